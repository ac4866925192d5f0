"""Frames a second through `aero_l2.client`, each way, against a server that costs nearly nothing.

Run: .venv/bin/python bench/client.py [rounds] [--uvloop]

The server is a process of its own that shakes hands, then sends or reads bytes without looking at them.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import multiprocessing
import socket
import statistics
import sys
import time
from multiprocessing.connection import Connection

from aero_l2.client import Options, connect
from aero_l2.wire.send import websocket_message
from aero_l2.wire.tunnel import FRAME_HEADER

FRAMES = 100_000
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3


def serve(ready: Connection) -> None:
    """One connection after the other: `/source/SIZE` sends `FRAMES` frames, `/sink/SIZE` reads as many."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready.send(listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            with connection:
                path = shake_hands(connection)
                size = int(path.rpartition("/")[2])
                if path.startswith("/source"):
                    batch = websocket_message(FRAME_HEADER + bytes(size)) * 100
                    for _ in range(FRAMES // 100):
                        connection.sendall(batch)
                else:
                    header = 8 if size + 4 > 125 else 6
                    left = FRAMES * (header + 4 + size)
                    while left > 0:
                        left -= len(connection.recv(1 << 20))
                    connection.sendall(websocket_message(FRAME_HEADER + b"done"))
                while connection.recv(1 << 16):
                    pass


def shake_hands(connection: socket.socket) -> str:
    """Answer the upgrade; returns the path."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    lines = head.split(b"\r\n")
    key = next(line.split(b": ")[1] for line in lines if line.lower().startswith(b"sec-websocket-key"))
    accept = base64.b64encode(hashlib.sha1(key + _GUID).digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Protocol: aero-l2-tunnel-v1\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    return lines[0].split()[1].decode()


async def receive(url: str, size: int) -> tuple[float, float]:
    """Frames a second of wall clock and of processor time."""
    async with connect(f"{url}/source/{size}", Options(keepalive_s=0)) as tunnel:
        began, spent = time.perf_counter(), time.process_time()
        left = FRAMES
        while left:
            left -= len(await tunnel.receive_frames())
        return FRAMES / (time.perf_counter() - began), FRAMES / (time.process_time() - spent)


async def send(url: str, size: int) -> tuple[float, float]:
    """The same, the other way."""
    async with connect(f"{url}/sink/{size}", Options(keepalive_s=0)) as tunnel:
        frame = bytes(size)
        began, spent = time.perf_counter(), time.process_time()
        for _ in range(FRAMES):
            await tunnel.send_frame(frame)
        await tunnel.receive_frames()
        return FRAMES / (time.perf_counter() - began), FRAMES / (time.process_time() - spent)


def main(rounds: int) -> None:
    """Print a table of medians."""
    if "--uvloop" in sys.argv:
        import uvloop

        run = uvloop.run
    else:
        run = asyncio.run
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("fork").Process(target=serve, args=(there,), daemon=True)
    server.start()
    url = f"ws://127.0.0.1:{here.recv()}"
    print(f"{'':>8} {'bytes':>6} {'frames/s':>10} {'per CPU s':>10}   (median of {rounds})")
    for name, way in (("receive", receive), ("send", send)):
        for size in (60, 1514):
            results = [run(way(url, size)) for _ in range(rounds)]
            wall, cpu = (statistics.median(column) for column in zip(*results, strict=True))
            print(f"{name:>8} {size:>6} {wall:>10,.0f} {cpu:>10,.0f}")
    server.terminate()
    server.join()


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    main(numbers[0] if numbers else 5)
