"""HTTP/1.x, as much as the door needs: bounded request heads in, small responses out (RFC 9110, 9112).

Pure: bytes in, values out. One request a connection; every response says `Connection: close`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import Final

from websockets.datastructures import Headers

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_HEADERS: Final = 128
MAX_EMPTY_LINES: Final = 2
MAX_ELEMENTS: Final = 64

_TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_ABSOLUTE_FORM = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_PLAIN_TEXT: Final = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; `head_only` leaves the body out but not its length (RFC 9110 §9.3.2)."""

    status: int
    body: bytes = b""
    content_type: str = _PLAIN_TEXT
    headers: tuple[tuple[str, str], ...] = ()

    def serialize(self, *, head_only: bool = False) -> bytes:
        """Bytes to write; the connection is to be closed behind them.

        A field `Upgrade` is listed in `Connection`, as RFC 9110 §7.8 asks.
        """
        upgrade = ", Upgrade" if any(name == "Upgrade" for name, _ in self.headers) else ""
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"Date: {formatdate(usegmt=True)}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            f"Connection: close{upgrade}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        return head if head_only else head + self.body


def text_response(status: int, text: str, *headers: tuple[str, str]) -> Response:
    """A plain-text answer, exactly `text`."""
    return Response(status, text.encode("utf-8", "replace"), headers=headers)


class BadRequest(Exception):
    """The bytes are no request we serve; `response` is the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.response = text_response(status, text)


@dataclass(frozen=True, slots=True)
class RequestHead:
    """Request line and header fields; `path` and `query` are as sent, not decoded.

    Its repr shows nothing that may hold a credential.
    """

    method: str
    path: str = field(repr=False)
    query: str = field(repr=False)
    version: str
    headers: Headers = field(default_factory=Headers, repr=False)

    @property
    def has_body(self) -> bool:
        """Whether a body is announced (RFC 9112 §6.3)."""
        lengths = self.headers.get_all("Content-Length")
        return "Transfer-Encoding" in self.headers or any(length.strip("0") for length in lengths)

    def elements(self, name: str) -> list[str]:
        """Elements of a comma-separated header over all its lines; of too many the first `MAX_ELEMENTS`."""
        found: list[str] = []
        for line in self.headers.get_all(name):
            parts = line.split(",", MAX_ELEMENTS)[:MAX_ELEMENTS]
            found += [element for part in parts if (element := part.strip())]
            if len(found) >= MAX_ELEMENTS:
                break
        return found[:MAX_ELEMENTS]

    def tokens(self, name: str) -> list[str]:
        """The same in lower case."""
        return [element.lower() for element in self.elements(name)]


class HeadReader:
    """Collects bytes until a request head is complete; never holds more than `max_bytes` and one read."""

    def __init__(self, max_bytes: int = MAX_HEAD_BYTES) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._empty_lines = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing has arrived."""
        return not self._buffer

    def feed(self, data: bytes) -> tuple[RequestHead, bytes] | None:
        """The head and what follows it, or None while more is to come.

        Raises:
            BadRequest: malformed, behind more than `MAX_EMPTY_LINES`, or larger than `max_bytes` (431).
        """
        searched = max(0, len(self._buffer) - 3)
        self._buffer += data
        self._drop_leading_empty_lines()
        if self._buffer and self._buffer != b"\r" and not _TOKEN.fullmatch(self._buffer[:1]):
            raise BadRequest(400, "malformed request line")  # TLS, most often: do not let it wait
        end = self._buffer.find(b"\r\n\r\n", searched)
        if end < 0 and len(self._buffer) <= self._max_bytes:
            return None
        if end < 0 or end + 4 > self._max_bytes:
            raise BadRequest(431, f"request head larger than {self._max_bytes} bytes")
        head, rest = bytes(self._buffer[:end]), bytes(self._buffer[end + 4 :])
        self._buffer.clear()
        return parse_head(head), rest

    def _drop_leading_empty_lines(self) -> None:
        """RFC 9112 §2.2 asks for it, of at least one; they do not count against the head's size."""
        while self._buffer.startswith(b"\r\n"):
            if self._empty_lines == MAX_EMPTY_LINES:
                raise BadRequest(400, f"more than {MAX_EMPTY_LINES} empty lines before the request")
            self._empty_lines += 1
            del self._buffer[:2]


def parse_head(head: bytes) -> RequestHead:
    """Parse a head without its final empty line; no folding, no bare CR or LF, no space before a colon.

    Raises:
        BadRequest: 400, 505 for a version other than 1.0 and 1.1, 431 for too many fields.
    """
    request_line, *lines = head.split(b"\r\n")
    parts = request_line.split(b" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not _TARGET.fullmatch(parts[1]):
        raise BadRequest(400, "malformed request line")
    method, target, version = (part.decode("latin-1") for part in parts)
    if not _VERSION.fullmatch(parts[2]):
        raise BadRequest(400, "malformed request line")
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise BadRequest(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    headers = _parse_headers(lines)
    absolute = _ABSOLUTE_FORM.match(target)
    if absolute is not None:
        rest = target[absolute.end() :]
        target = rest if rest.startswith("/") else "/" + rest
        if "Host" in headers:
            del headers["Host"]
        headers["Host"] = absolute[1]  # which counts instead of the field (RFC 9112 §3.2.2)
    path, _, query = target.partition("?")
    return RequestHead(method, path, query, version, headers)


def _parse_headers(lines: list[bytes]) -> Headers:
    if len(lines) > MAX_HEADERS:
        raise BadRequest(431, f"more than {MAX_HEADERS} header fields")
    headers = Headers()
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
            raise BadRequest(400, "malformed header field")
        headers[name.decode("ascii")] = value.strip(b" \t").decode("latin-1")
    return headers
