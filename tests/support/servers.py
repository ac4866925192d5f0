"""The services of the test world, one process per namespace: ``servers.py JSON``.

The argument lists them as ``[[kind, address, port], …]``. The process prints ``ready`` once all of them
listen, then one JSON object per thing that reached a service, and ends when its stdin closes. Kinds: http,
tcp-echo, udp-echo, discard, dns, tftp.
"""

import asyncio
import hashlib
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import addresses, tftp, zone

_CHUNK = 256 * 1024
_Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def _report(kind: str, local: str, peer: str, data: bytes = b"") -> None:
    event = {"kind": kind, "local": local, "peer": peer, "data": data[:256].hex()}
    print(json.dumps(event), flush=True)


def _name(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


async def _http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """GET what ``addresses.file`` knows; POST or PUT /upload, which answers the SHA-256 of the body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    lines = head.split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
    if fields.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    digest = hashlib.sha256()
    left = int(fields.get("content-length", "0"))
    while left:
        chunk = await reader.read(min(left, _CHUNK))
        if not chunk:
            return
        digest.update(chunk)
        left -= len(chunk)
    if target == "/upload" and method in ("POST", "PUT"):
        status, body = "200 OK", f"{digest.hexdigest()}\n".encode()
    elif method == "GET" and (found := addresses.file(target.removeprefix("/"))) is not None:
        status, body = "200 OK", found
    else:
        status, body = "404 Not Found", b"not found\n"
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
    for start in range(0, len(body), _CHUNK):
        writer.write(body[start : start + _CHUNK])
        await writer.drain()


async def _tcp_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what came; after the client's FIN (it can still read: RFC 9293 §3.6) a trailer."""
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
    writer.write(addresses.TRAILER)


async def _discard(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(_CHUNK):
        pass


async def _dns_over_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """RFC 1035 §4.2.2: two bytes of length before each message."""
    while True:
        size = int.from_bytes(await reader.readexactly(2), "big")
        reply = zone.answer(await reader.readexactly(size), tcp=True)
        if reply is not None:
            writer.write(len(reply).to_bytes(2, "big") + reply)


def _served(kind: str, handler: _Handler) -> _Handler:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        local, peer = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        _report(kind, _name(local), _name(peer))
        try:
            await handler(reader, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            _report(f"{kind}-error", _name(local), _name(peer), repr(error).encode())
        finally:
            writer.close()

    return serve


class _Datagrams(asyncio.DatagramProtocol):
    """A UDP service: ``reply`` maps a datagram to the answer, or to None for silence."""

    def __init__(self, kind: str, reply: Callable[[bytes], bytes | None]) -> None:
        self._kind = kind
        self._reply = reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._local = _name(transport.get_extra_info("sockname"))

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        _report(self._kind, self._local, _name(addr), data)
        reply = self._reply(data)
        if reply is not None:
            self._transport.sendto(reply, addr)


_STREAMS: dict[str, _Handler] = {
    "http": _http,
    "tcp-echo": _tcp_echo,
    "discard": _discard,
    "dns": _dns_over_tcp,
}
_DATAGRAMS: dict[str, Callable[[bytes], bytes | None]] = {
    "udp-echo": lambda data: data,
    "dns": lambda query: zone.answer(query, tcp=False),
}


def _datagrams(kind: str) -> Callable[[], asyncio.DatagramProtocol]:
    if kind == "tftp":
        return lambda: tftp.Server(addresses.file, _report)
    return lambda: _Datagrams(kind, _DATAGRAMS[kind])


async def _main(services: list[tuple[str, str, int]]) -> None:
    loop = asyncio.get_running_loop()
    kept: list[object] = []
    for kind, address, port in services:
        if kind in _STREAMS:
            kept.append(await asyncio.start_server(_served(kind, _STREAMS[kind]), address, port))
        if kind in _DATAGRAMS or kind == "tftp":
            kept.append(await loop.create_datagram_endpoint(_datagrams(kind), local_addr=(address, port)))
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main([(kind, address, port) for kind, address, port in json.loads(sys.argv[1])]))
