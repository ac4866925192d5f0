"""A TFTP server for reading, with options (RFC 1350, 2347, 2348 blksize, 2349 timeout and tsize).

Each transfer has a socket of its own on a port of its own, as RFC 1350 §4 asks for: the first answer comes
from another port than the one that was asked. None of the servers on PyPI that fit binds that socket to the
address that was asked, which matters where a machine has several.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

RRQ, DATA, ACK, ERROR, OACK = 1, 3, 4, 5, 6
NOT_FOUND, ILLEGAL = 1, 4  # codes of ERROR packets
_BLOCK_BYTES = 512
_TIMEOUT_S = 1
_TRIES = 30

Report = Callable[[str, str, str, bytes], None]  # kind of event, local and peer as address:port, data


class RequestError(ValueError):
    """What is sent to the asker instead of the file: a code and a text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.packet = _packet(ERROR, code, text.encode() + b"\0")


def _packet(opcode: int, number: int, rest: bytes = b"") -> bytes:
    return opcode.to_bytes(2, "big") + number.to_bytes(2, "big") + rest


@dataclass(frozen=True)
class Request:
    """A read request: the file's name and the options, names in lower case."""

    name: str
    options: Mapping[str, str]


def parse(datagram: bytes) -> Request:
    """A read request in octet mode; raises RequestError for everything else."""
    opcode = int.from_bytes(datagram[:2], "big")
    words = datagram[2:].split(b"\0")
    if opcode != RRQ or len(words) < 3 or len(words) % 2 == 0 or words[-1]:
        raise RequestError(ILLEGAL, "only read requests are served")
    name, mode, *options = (word.decode("latin-1") for word in words[:-1])
    if mode.lower() != "octet":
        raise RequestError(ILLEGAL, "only octet mode is served")
    return Request(name, {key.lower(): value for key, value in zip(options[::2], options[1::2], strict=True)})


def _accepted(asked: Mapping[str, str], size: int) -> dict[str, int]:
    """The options that are granted: unknown and senseless ones are left out (RFC 2347)."""
    values = {name: int(text) for name, text in asked.items() if text.isascii() and text.isdigit()}
    accepted = {}
    if values.get("blksize", 0) >= 8:
        accepted["blksize"] = min(values["blksize"], 65464)
    if 1 <= values.get("timeout", 0) <= 255:
        accepted["timeout"] = values["timeout"]
    if "tsize" in values:
        accepted["tsize"] = size
    return accepted


class Transfer:
    """One file on its way: which packet is due. Bytes in, bytes out; no socket and no clock."""

    def __init__(self, content: bytes, options: Mapping[str, str]) -> None:
        self.accepted = _accepted(options, len(content))
        self.over = False  # nothing is due any more
        self.whole = False  # the reader has acknowledged all of it
        self.timeout_s = self.accepted.get("timeout", _TIMEOUT_S)
        self._content = content
        self._size = self.accepted.get("blksize", _BLOCK_BYTES)
        self._block = 0 if self.accepted else 1

    @property
    def packet(self) -> bytes:
        """The packet that is due, to be sent again until it is acknowledged."""
        if self._block == 0:
            words = (word for item in self.accepted.items() for word in map(str, item))
            return OACK.to_bytes(2, "big") + b"".join(word.encode() + b"\0" for word in words)
        start = (self._block - 1) * self._size
        return _packet(DATA, self._block % 65536, self._content[start : start + self._size])

    def received(self, datagram: bytes) -> bool:
        """Take what the reader sent; true if another packet is due now. An ACK that comes twice is answered
        once, or every packet would be sent twice from then on (RFC 1123 §4.2.3.1)."""
        if datagram[:2] == ERROR.to_bytes(2, "big"):  # also of a reader that only wanted the size
            self.over = True
        if self.over or datagram[:4] != _packet(ACK, self._block % 65536):
            return False
        self.over = self.whole = self._block * self._size > len(self._content)
        self._block += 1
        return not self.over


class _Sender(asyncio.DatagramProtocol):
    """The socket of one transfer, connected to the reader."""

    def __init__(self, transfer: Transfer, report: Report) -> None:
        self._transfer = transfer
        self._report = report
        self._tries = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._send()

    def _send(self) -> None:
        self._tries += 1
        if self._tries > _TRIES:
            self._transport.close()
            return
        self._transport.sendto(self._transfer.packet)
        loop = asyncio.get_running_loop()
        self._again = loop.call_later(self._transfer.timeout_s, self._send)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._transfer.received(data):
            self._again.cancel()
            self._tries = 0
            self._send()
        elif self._transfer.over:
            self._transport.close()

    def error_received(self, exc: Exception) -> None:
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._again.cancel()
        ends = (self._transport.get_extra_info(end) for end in ("sockname", "peername"))
        local, peer = (f"{address}:{port}" for address, port in ends)
        self._report("tftp-sent" if self._transfer.whole else "tftp-lost", local, peer, b"")


class Server(asyncio.DatagramProtocol):
    """Serves ``read(name)``, which gives a file's content or None, on the port it is bound to."""

    def __init__(self, read: Callable[[str], bytes | None], report: Report) -> None:
        self._read = read
        self._report = report
        self._tasks: set[asyncio.Task[object]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._address, self._port = transport.get_extra_info("sockname")

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._report("tftp", f"{self._address}:{self._port}", f"{addr[0]}:{addr[1]}", data)
        try:
            transfer = self._transfer(parse(data))
        except RequestError as refused:
            self._transport.sendto(refused.packet, addr)
            return
        loop = asyncio.get_running_loop()
        endpoint = loop.create_datagram_endpoint(
            lambda: _Sender(transfer, self._report), local_addr=(self._address, 0), remote_addr=addr
        )
        task: asyncio.Task[object] = loop.create_task(endpoint)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _transfer(self, request: Request) -> Transfer:
        content = self._read(request.name.lstrip("/"))
        if content is None:
            raise RequestError(NOT_FOUND, "no such file")
        return Transfer(content, request.options)
