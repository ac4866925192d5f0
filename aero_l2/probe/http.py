"""A small HTTP/1.1 client (RFC 9112): one GET, the status, and as much of the body as is wanted."""

from __future__ import annotations

import re
from typing import Final

from aero_l2 import __version__
from aero_l2.client.errors import printable
from aero_l2.probe.outcome import Kind, StepFailed
from aero_l2.probe.streams import Stream
from aero_l2.probe.targets import ProbeTarget

MAX_HEAD_BYTES: Final = 16_384
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_INTERIM: Final = 200


def request(target: ProbeTarget) -> bytes:
    """The request's bytes."""
    lines = (
        f"GET {target.path} HTTP/1.1",
        f"Host: {target.authority}",
        f"User-Agent: aero-l2/{__version__}",
        "Accept: */*",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode("ascii")


def split_head(data: bytes) -> tuple[int, bytes] | None:
    """Status, and what follows the head; None while it is not complete.

    Interim answers (1xx) are stepped over. Raises ValueError for what is no HTTP.
    """
    while True:
        if not b"HTTP/1."[: len(data)] == data[:7]:
            raise ValueError(printable(data[:40].decode("latin-1")))
        head, end, body = data.partition(b"\r\n\r\n")
        if not end:
            if len(data) > MAX_HEAD_BYTES:
                raise ValueError(f"a head of more than {MAX_HEAD_BYTES} bytes")
            return None
        line = _STATUS_LINE.match(head + end)
        if line is None:
            raise ValueError(printable(data[:40].decode("latin-1")))
        if int(line[1]) >= _INTERIM:
            return int(line[1]), body
        data = body


async def get(stream: Stream, target: ProbeTarget) -> int:
    """Ask for the target's path; the status. What has come of the body is read next."""
    await stream.write(request(target))
    data = b""
    while True:
        more = await stream.read()
        if not more:
            raise stream.broken("before it answered" if not data else "in the middle of its answer")
        data += more
        try:
            found = split_head(data)
        except ValueError as fault:
            raise StepFailed(Kind.WRONG_ANSWER, f"{target}: no HTTP: {fault}") from None
        if found is not None:
            stream.unread(found[1])
            return found[0]
