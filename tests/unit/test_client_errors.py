"""What each answer of a server is called, and that its text is fit for a terminal."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.client import (
    ClientError,
    ClosedHere,
    CredentialRefused,
    HostRefused,
    LimitReached,
    NotATunnel,
    OriginRefused,
    Refused,
    TunnelClosed,
    TunnelLost,
    Unavailable,
)
from aero_l2.client.errors import MAX_QUOTED, printable, refusal
from aero_l2.client.queue import Closable
from aero_l2.wire.tunnel import ErrorCode, ErrorMessage


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (401, "invalid token", CredentialRefused, False),
        (403, "missing Origin header", OriginRefused, False),
        (403, "invalid Origin header: http://Host /x", OriginRefused, False),
        (403, "Origin not allowed: http://host.example", OriginRefused, False),
        (403, "missing Host header", HostRefused, False),
        (403, "malformed Host header", HostRefused, False),
        (403, "Host not allowed: origin.example", HostRefused, False),
        (403, "<html>Forbidden by the firewall of this Host", NotATunnel, False),
        (429, "max connections exceeded", LimitReached, True),
        (503, "shutting down", Unavailable, True),
        *((status, "Bad Gateway", Unavailable, True) for status in (408, 500, 502, 504)),
        *((status, "", NotATunnel, False) for status in (100, 200, 204, 301, 400, 404, 405, 426, 501, 505)),
    ],
)
def test_status_has_its_type(status: int, body: str, kind: type[Refused], retryable: bool) -> None:
    error = refusal(status, body)
    assert type(error) is kind
    assert (error.status, error.body, error.retryable) == (status, body, retryable)
    assert str(error) == f"HTTP {status}{': ' + body if body else ''} ({kind.hint})"


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        *(("5", 5.0), ("0", 0.0), ("", None), (None, None), ("-1", None), ("1e9", None), ("9" * 7, None)),
        *(("Wed, 21 Oct 2026 07:28:00 GMT", None), ("٣", None)),
    ],
)
def test_retry_after_is_read_where_it_is_seconds(line: str | None, seconds: float | None) -> None:
    assert refusal(503, "", line).retry_after_s == seconds


@given(st.text())
def test_any_text_becomes_one_printable_line(text: str) -> None:
    line = printable(text)
    assert line.isprintable()
    assert len(line) <= MAX_QUOTED
    for error in (refusal(418, text), TunnelClosed(1000, text), TunnelLost(text)):
        assert str(error).isprintable()
        assert len(str(error)) < MAX_QUOTED + 150


@pytest.mark.parametrize(
    ("code", "reason", "error", "retryable"),
    [
        (1001, "shutting down", None, True),
        (1011, "tunnel failed", None, True),
        (1008, "idle timeout", None, True),
        (1008, "", ErrorCode.BACKPRESSURE, True),
        (1008, "", ErrorCode.QUOTA_CONNECTIONS, True),
        (1008, "session expired", None, False),
        (1008, "closed by the operator", None, False),
        *((1008, "", error, False) for error in (1, 2, 3, 4, 5, 6, 7)),
        (1002, "", None, False),
        (1009, "", None, False),
    ],
)
def test_what_would_come_again_at_once_is_not_tried_again(
    code: int, reason: str, error: int | None, retryable: bool
) -> None:
    said = None if error is None else ErrorMessage(error, "said")
    assert TunnelClosed(code, reason, said).retryable is retryable


def test_end_says_codes_and_texts() -> None:
    both = TunnelClosed(1008, "byte quota exceeded", ErrorMessage(6, "byte quota exceeded"))
    assert str(both) == "the server closed the tunnel: byte quota exceeded (close code 1008, ERROR 6)"
    assert both.error_code is ErrorCode.QUOTA_BYTES
    plain = TunnelClosed(1008, "", ErrorMessage(None, "plain\ntext"))
    assert str(plain) == "the server closed the tunnel: plain text (close code 1008)"
    assert plain.error_code is None
    assert TunnelClosed(1008, "", ErrorMessage(777, "")).error_code is None
    assert str(TunnelLost("gone")) == "the connection to the server is lost: gone"
    assert TunnelLost("gone").retryable
    assert not ClosedHere().retryable
    assert issubclass(TunnelLost, TunnelClosed)
    assert issubclass(TunnelClosed, ClientError)


async def test_queue_keeps_its_order_and_its_size() -> None:
    queue = Closable(2)
    assert [queue.offer(b"1"), queue.offer(b"2"), queue.offer(b"3")] == [True, True, False]
    assert [queue.offer(b"c", beyond=1), queue.offer(b"d", beyond=1)] == [True, False]
    assert queue.take_now(1) == [b"1"]
    waiting = asyncio.ensure_future(queue.put(b"4"))
    await asyncio.sleep(0)
    assert await queue.take() == [b"2", b"c"]
    await waiting
    assert await queue.take(5) == [b"4"]


async def test_closed_queue_gives_what_is_left_and_takes_nothing() -> None:
    queue = Closable(1)
    queue.push(b"left")
    puts = [asyncio.ensure_future(queue.put(b"late")) for _ in range(2)]
    await asyncio.sleep(0)
    queue.close(KeyError("why"))
    queue.close(ValueError("not this"))
    assert [type(end) for end in await asyncio.gather(*puts, return_exceptions=True)] == [KeyError, KeyError]
    assert await queue.take() == [b"left"]
    with pytest.raises(KeyError):
        await queue.take()
    with pytest.raises(KeyError):
        queue.offer(b"late")


async def test_closed_queue_wakes_every_reader() -> None:
    queue = Closable(1)
    takes = [asyncio.ensure_future(queue.take()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.close(KeyError("why"))
    assert {type(end) for end in await asyncio.gather(*takes, return_exceptions=True)} == {KeyError}


async def test_cancelled_reader_and_writer_leave_the_queue_as_it_was() -> None:
    queue = Closable(1)
    take = asyncio.ensure_future(queue.take())
    await asyncio.sleep(0)
    queue.push(b"1")
    take.cancel()
    await asyncio.gather(take, return_exceptions=True)
    put = asyncio.ensure_future(queue.put(b"2"))
    await asyncio.sleep(0)
    put.cancel()
    await asyncio.gather(put, return_exceptions=True)
    assert await queue.take() == [b"1"]
    assert len(queue) == 0
