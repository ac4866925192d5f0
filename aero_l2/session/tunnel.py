"""One tunnel from the upgrade to its end: segment, pump and link, held together and released together."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import structlog

from aero_l2.observe.metrics import Metrics
from aero_l2.quota.bucket import TokenBucket
from aero_l2.session.closing import CLOSINGS, Reason
from aero_l2.session.connecting import ConnectWatch
from aero_l2.session.keepalive import PING_INTERVAL_S, Keepalive
from aero_l2.session.link import Link
from aero_l2.session.ports import Segment
from aero_l2.session.pump import Pump
from aero_l2.session.registry import Holder
from aero_l2.session.state import Phase, TunnelState
from aero_l2.web.echo import echo
from aero_l2.wire.framing import Framing
from aero_l2.wire.receive import Receiver
from aero_l2.wire.send import websocket_message
from aero_l2.wire.tunnel import MessageType, encode

EXPIRY_LOOK_S: Final = 30.0

_log = structlog.get_logger("aero_l2.session")


@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """What all tunnels of a process share. stall_timeout_s: 0 = none. library_only: see `Receiver`.

    packets_per_second: frames of a guest that are passed on, 0 = no limit; packets_burst: as many at once.
    ping_interval_s: between WebSocket pings, where the framing has them sent.
    """

    stall_timeout_s: float = 10.0
    connect_timeout_s: float = 5.0
    library_only: bool = False
    packets_per_second: int = 0
    packets_burst: int = 0
    ping_interval_s: float = PING_INTERVAL_S

    def packet_rate(self) -> TokenBucket | None:
        """A new tunnel's rate of frames, None where there is no limit."""
        if not self.packets_per_second:
            return None
        return TokenBucket(self.packets_per_second, self.packets_burst, time.monotonic())


class Tunnel:
    """One tunnel; made while its segment stands, run once its transport is upgraded.

    holder: for the log, which has to say who was behind what a guest did. expires_at: unix seconds at which
    it is closed, None = never. framing: how its client sends and gets frames.

    The messages of one read arrive together in `on_messages`; what counts or merges them belongs there.
    """

    def __init__(
        self,
        session_id: int,
        peer: str,
        segment: Segment,
        options: TunnelOptions,
        metrics: Metrics,
        *,
        holder: Holder,
        framing: Framing,
        expires_at: float | None = None,
    ) -> None:
        self.session_id = session_id
        self.state = TunnelState().preparing()
        self._opened_at = 0.0
        self._segment = segment
        self._framing = framing
        self._metrics = metrics
        self._log = _log.bind(session=session_id, peer=peer, client=holder.client)
        if holder.principal is not None:
            self._log = self._log.bind(sid=echo(holder.principal))
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._expires_at = expires_at
        self._expiry: asyncio.TimerHandle | None = None
        receiver = Receiver(framing.max_message, library_only=options.library_only)
        self.link = Link(receiver, self, stall_timeout_s=options.stall_timeout_s)
        self._keepalive = Keepalive(self.link, options.ping_interval_s, self._peer_silent)
        self._pump = Pump(
            segment.tap,
            prefixes=framing.prefixes,
            send=self.link.write,
            failed=self._segment_lost,
            metrics=metrics,
            rate=options.packet_rate(),
            delivered=lambda frames: self._connects.to_guest(frames),
        )
        self._connects = ConnectWatch(options.connect_timeout_s, self._pump, metrics)

    async def run(self, transport: asyncio.Transport, early: bytes) -> None:
        """Carry frames until the end, whoever brings it; then all of this is stopped, the segment not yet.

        Args:
            transport: the upgraded connection; it is closed on return, also on cancellation.
            early: bytes the client sent right behind its handshake.
        """
        with ExitStack() as stack:
            stack.callback(self._ended)
            stack.callback(self.link.abort)
            stack.callback(self._pump.stop)
            stack.callback(self._connects.close)
            stack.callback(self._forget_expiry)
            stack.callback(self._keepalive.stop)
            self._open(transport, early)
            await self._over
            await self.link.finish()

    def close(self, reason: Reason, text: str | None = None) -> None:
        """Begin the end: ERROR (if the framing has any) and close frame as `CLOSINGS` says, once.

        `text` replaces the table's text in what the peer sees.
        """
        if not self.state.is_open:
            return
        closing = CLOSINGS[reason]
        text = closing.text if text is None else text
        self.state = self.state.closing(reason, text)
        self._connects.close()
        self._keepalive.stop()
        self._pump.stop()
        if closing.metric is not None:
            getattr(self._metrics, closing.metric).inc()
        if closing.error_code is not None and (error := self._framing.error(closing.error_code, text)):
            self.link.write(error)
        if closing.close_code is not None:
            self.link.send_close(closing.close_code, text)
        if not self._over.done():
            self._over.set_result(None)

    # -- what the link tells

    def on_messages(self, messages: list[bytes]) -> None:
        """The messages of one read: frames to the TAP, PONGs back, malformed ones end the tunnel."""
        if not self.state.is_open:
            return
        inbound = self._framing.sort(messages)
        self._connects.from_guest(inbound.frames)
        self._pump.to_tap(inbound.frames)
        if inbound.pings:
            pongs = (websocket_message(encode(MessageType.PONG, payload)) for payload in inbound.pings)
            self.link.reply(b"".join(pongs))
        if inbound.fault is not None:
            self.close(Reason.MALFORMED_MESSAGE, str(inbound.fault))

    def on_paused(self) -> None:
        """The client does not keep up."""
        self._pump.pause()

    def on_resumed(self) -> None:
        """The client has caught up."""
        self._pump.resume()

    def on_stalled(self) -> None:
        """The client takes nothing."""
        self.close(Reason.BACKPRESSURE)

    def on_websocket_end(self) -> None:
        """The peer closed, or broke the WebSocket protocol."""
        if not self.state.is_open:
            self.link.finish_now()
            return
        failure = self.link.failure
        if failure is None:
            self.close(Reason.PEER_CLOSED)
        else:
            self.close(Reason.WEBSOCKET_FAILED, f"{failure[0]} {failure[1]}")

    def on_gone(self) -> None:
        """The connection is lost."""
        self.close(Reason.PEER_GONE)

    # -- begin and end

    def _open(self, transport: asyncio.Transport, early: bytes) -> None:
        self.state = self.state.opened()
        self._opened_at = time.monotonic()
        self._metrics.sessions.inc()
        self._metrics.sessions_active.inc()
        self._log.info("tunnel opened", framing=self._framing.name)
        transport.set_protocol(self.link)
        self.link.connection_made(transport)
        self._segment.failed.add_done_callback(self._on_segment_failed)
        if not self._segment.nat_ready.done():
            self._pump.hold_early()
            self._segment.nat_ready.add_done_callback(self._on_nat_ready)
        try:
            self._pump.start()
        except OSError as failure:
            self._segment_lost(f"the TAP cannot be watched: {failure.strerror}")
        self._look_at_expiry()
        if self._framing.pinged and self.state.is_open:
            self._keepalive.start()
        if early:
            self.link.data_received(early)

    def _look_at_expiry(self) -> None:
        """Close at the expiry by the wall clock, which may be set meanwhile: so it is looked at often."""
        if self._expires_at is None:
            return
        left = self._expires_at - time.time()
        if left <= 0:
            self.close(Reason.SESSION_EXPIRED)
        else:
            self._expiry = self._loop.call_later(min(left, EXPIRY_LOOK_S), self._look_at_expiry)

    def _forget_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _peer_silent(self) -> None:
        self.close(Reason.PEER_SILENT)

    def _on_segment_failed(self, failed: asyncio.Future[str]) -> None:
        if not failed.cancelled():
            failure = failed.exception()
            self._segment_lost(failed.result() if failure is None else str(failure))

    def _on_nat_ready(self, _: asyncio.Future[None]) -> None:
        self._pump.release_early()

    def _segment_lost(self, why: str) -> None:
        if self.state.is_open:
            self._log.error("segment lost", why=why)
            self.close(Reason.TUNNEL_FAILED)

    def _ended(self) -> None:
        self._segment.failed.remove_done_callback(self._on_segment_failed)
        self._segment.nat_ready.remove_done_callback(self._on_nat_ready)
        if self.state.phase in (Phase.ACCEPTED, Phase.PREPARING):
            return
        self.state = self.state.closed()
        self._metrics.sessions_active.dec()
        reason = self.state.reason
        level = CLOSINGS[reason].log_level if reason is not None else "warning"
        getattr(self._log, level)(
            "tunnel closed",
            reason=reason.value if reason is not None else "cancelled",
            text=self.state.text,
            seconds=round(time.monotonic() - self._opened_at, 3),
        )
