"""Many idle tunnels, of a program of its own: ``idle.py PORT COUNT AT_ONCE ECHOES``.

Opens COUNT tunnels, AT_ONCE at a time, sends a datagram through each to the echo in the test internet
and back, as often as ECHOES says, and prints a line of JSON: seconds, those of each, and what failed. On a
line of stdin it closes them all with a close frame, awaits theirs, and prints the seconds that took.
"""

import asyncio
import json
import sys
import time
from ipaddress import IPv4Address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import addresses as at
from support import floods

HANDSHAKE = (
    "GET /l2 HTTP/1.1\r\nHost: idle\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Protocol: aero-l2-tunnel-v1\r\n\r\n"
)
PATIENCE_S = 60.0
_CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"
_ARP_REQUEST = b"\x08\x06\0\1\x08\0\6\4\0\1"
_RESEND_S = 1.0


def _arp_reply() -> bytes:
    mac, gateway = bytes.fromhex("02000000000f"), bytes.fromhex(at.GATEWAY_MAC.replace(":", ""))
    addresses = (mac, IPv4Address(at.GUEST).packed, gateway, IPv4Address(at.GATEWAY).packed)
    return floods.masked(gateway + mac + b"\x08\x06\0\1\x08\0\6\4\0\2" + b"".join(addresses))


class Idle:
    """One tunnel."""

    def __init__(self, port: int, number: int) -> None:
        self._port = port
        self._number = number

    async def open(self) -> float:
        """Seconds until the 101. Raises OSError, EOFError, ValueError with what was answered instead."""
        began = time.monotonic()
        self._reader, self._writer = await asyncio.open_connection(at.LOOPBACK, self._port)
        self._writer.write(HANDSHAKE.encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ValueError((head + await self._reader.read(200)).decode())
        return time.monotonic() - began

    async def echo(self) -> None:
        """A datagram there and back, sent again each second; the gateway's ARP is answered."""
        data = b"idle tunnel %d;" % self._number
        frame = floods.masked(floods.datagram(IPv4Address(at.WEB).packed, 7000, at.ECHO_PORT, data))
        seen = b""
        while data not in seen:
            self._writer.write(frame)
            try:
                async with asyncio.timeout(_RESEND_S):
                    while data not in seen:
                        more = await self._reader.read(65536)
                        if not more:
                            raise EOFError("closed by the server")
                        seen = seen[-200:] + more
                        if _ARP_REQUEST in seen:
                            self._writer.write(_arp_reply())
                            seen = seen.replace(_ARP_REQUEST, b"")
            except TimeoutError:
                continue

    async def close(self) -> None:
        """Close frame there and back."""
        self._writer.write(_CLOSE)
        while await self._reader.read(65536):
            pass
        self._writer.close()


async def _all(count: int, at_once: int, port: int, echoes: int) -> tuple[list[Idle], list[float], list[str]]:
    tunnels = [Idle(port, number) for number in range(count)]
    left, times, errors, done = iter(tunnels), [], [], []

    async def worker() -> None:
        for tunnel in left:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    times.append(await tunnel.open())
                    for _ in range(echoes):
                        await tunnel.echo()
                    done.append(tunnel)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                errors.append(f"{type(error).__name__}: {error}")

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return done, times, errors


async def main(port: int, count: int, at_once: int, echoes: int) -> None:
    """Open, wait, close."""
    began = time.monotonic()
    tunnels, times, errors = await _all(count, at_once, port, echoes)
    opened = {"seconds": time.monotonic() - began, "times": sorted(times), "errors": errors}
    print(json.dumps(opened), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(tunnel.close() for tunnel in tunnels))
    print(json.dumps({"seconds": time.monotonic() - began}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:5])))
