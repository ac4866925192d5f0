"""One client that asks by HTTP: reads a request head within limits, and answers it. Nothing else.

reading head → making the answer, where that takes a while → answering (half-closed, rest of the input
discarded) → gone
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Final, Protocol, cast

from aero_l2.door.endpoints import Answer, Delayed
from aero_l2.door.http import BadRequest, HeadReader, RequestHead, Response, text_response
from aero_l2.door.ports import end_writing, prepare_socket
from aero_l2.observe.limit import LimitedLog

LINGER_S: Final = 1.0
FAULT: Final = text_response(500, "internal error")


class Step(enum.Enum):
    """Where a connection is; upgrading is for heirs."""

    READING = enum.auto()
    MAKING = enum.auto()
    ANSWERING = enum.auto()
    UPGRADING = enum.auto()
    DONE = enum.auto()


class Desk(Protocol):
    """What such a connection needs of its server."""

    max_head_bytes: int
    head_timeout_s: float
    log: LimitedLog

    def waits(self, connection: Answering) -> None:
        """A connection stands there; called again when it is about to go."""

    def left(self, connection: Answering) -> None:
        """It is gone."""

    def answer(self, head: RequestHead) -> Answer:
        """What it asked for."""


class Answering(asyncio.Protocol):
    """Protocol of a fresh TCP connection; see the module for its steps."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._step = Step.READING
        self._reader = HeadReader(desk.max_head_bytes)
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock for the request."""
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            prepare_socket(sock)
        self._set_timer(self._desk.head_timeout_s, self._head_too_slow)
        self._desk.waits(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of the request; those behind it are discarded."""
        if self._step is Step.READING:
            self._read_head(data)

    def eof_received(self) -> bool:
        """The client ends its side; so do we, once what we wrote is sent."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Undo what was begun for this client."""
        self._step = Step.DONE
        self._stop_timer()
        self._desk.left(self)

    def drop(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def address(self) -> str:
        """The peer's address; empty where it has none."""
        return self._peername[0]

    @property
    def _peer(self) -> str:
        address, port = self._peername
        return f"{address}:{port}" if address else "unknown"

    @property
    def _peername(self) -> tuple[str, int]:
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return (name[0], name[1]) if isinstance(name, tuple) else ("", 0)

    def _read_head(self, data: bytes) -> None:
        try:
            found = self._reader.feed(data)
            if found is not None:
                self._stop_timer()
                self._serve(*found)
        except BadRequest as bad:
            self._reject(bad.response)

    def _serve(self, head: RequestHead, rest: bytes) -> None:
        self._give(self._desk.answer(head), head_only=head.method == "HEAD")

    def _head_too_slow(self) -> None:
        if self._reader.is_empty and self._transport is not None:
            self._transport.close()
        else:
            self._reject(text_response(408, "request took too long"))

    # -- answer

    def _reject(self, response: Response) -> None:
        """Answer what is no request, or no handshake; `response` says in our own words why."""
        text = response.body.decode()
        self._desk.log.write("info", "request refused", text, peer=self._peer, status=response.status)
        self._answer(response)

    def _give(self, answer: Answer, *, head_only: bool) -> None:
        """Answer now, or once that is made."""
        if isinstance(answer, Response):
            self._answer(answer, head_only=head_only)
            return
        self._step = Step.MAKING
        made: Delayed = answer

        def give(body: asyncio.Future[bytes]) -> None:
            if self._step is Step.MAKING:
                failed = body.cancelled() or body.exception() is not None
                self._answer(FAULT if failed else made.response(body.result()), head_only=head_only)

        made.body.add_done_callback(give)

    def _answer(self, response: Response, *, head_only: bool = False) -> None:
        """Write the answer, half-close, and discard what still comes for a while.

        Closing with unread bytes would make the kernel reset the connection and could destroy the answer on
        its way (RFC 9112 §9.6).
        """
        transport = self._transport
        if transport is None or self._step in (Step.ANSWERING, Step.DONE):
            return
        self._step = Step.ANSWERING
        self._desk.waits(self)
        transport.write(response.serialize(head_only=head_only))
        end_writing(transport)
        self._set_timer(LINGER_S, self._linger_over)

    def _linger_over(self) -> None:
        """Close; a client that has not taken its answer by then gets a last stretch of the same length."""
        assert self._transport is not None
        self._set_timer(LINGER_S, self.drop)
        self._transport.close()

    def _set_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, callback)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
