"""One tunnel from the upgrade to its end: what belongs to it whatever it is used through, and its WebSocket.

Its own: `Lifecycle` (phase and deadlines), `Allowance` (what may still be used) and `Lan` (segment and pump).
The WebSocket's: `Link` and `Keepalive`, made in `_attach` and nowhere else (docs/adr/0017).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from aero_l2.observe.metrics import Metrics
from aero_l2.quota.traffic import Allowance
from aero_l2.session.attaching import attach
from aero_l2.session.closing import CLOSINGS, QUOTA_REASONS, Reason
from aero_l2.session.keepalive import Keepalive
from aero_l2.session.lan import Lan
from aero_l2.session.lifecycle import Drop, Due, End, Lifecycle, Phase, SendPing
from aero_l2.session.link import Link
from aero_l2.session.options import TunnelOptions
from aero_l2.session.ports import Segment
from aero_l2.session.record import Record
from aero_l2.session.registry import Holder
from aero_l2.session.spending import Spending
from aero_l2.session.tickets import Tickets
from aero_l2.session.timer import LifeTimer
from aero_l2.wire.framing import Framing
from aero_l2.wire.receive import Aside
from aero_l2.wire.send import websocket_message
from aero_l2.wire.tunnel import Inbound, MessageType, encode, encode_resume


class Tunnel:
    """One tunnel; made while its segment stands, run once its transport is upgraded.

    record: what is said of it. holder: who it is for. expires_at: unix seconds at which it is closed, None =
    never. framing: how its client sends and gets frames. allowance: what it may use. hour_is_over: told when
    its principal has used up what it may in an hour. tickets: where its client gets the secret to come back
    with, None: it cannot. capture: of its frames. The messages of one read arrive together in `on_messages`.
    """

    def __init__(
        self,
        record: Record,
        segment: Segment,
        options: TunnelOptions,
        metrics: Metrics,
        *,
        holder: Holder,
        framing: Framing,
        expires_at: float | None = None,
        allowance: Allowance | None = None,
        hour_is_over: Callable[[str], None] = lambda principal: None,
        tickets: Tickets[Tunnel] | None = None,
    ) -> None:
        self.session_id = record.session_id
        self.holder = holder
        self.life = Lifecycle(options.times, expires_at)
        self.life.preparing()
        self._options = options
        self._framing = framing
        self._metrics = metrics
        self._record = record
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._timer = LifeTimer(self.life, self._do)
        self._spending = Spending(allowance or Allowance(), framing)
        self._hour_is_over = hour_is_over
        self._tickets = tickets
        self._lan = Lan(
            record,
            segment,
            framing,
            options,
            metrics,
            lost=self._segment_lost,
            nat_ready=self._timer.nat_ready,
            admit=self._spending.admit_now if self._spending.is_limited else None,
            refused=self._quota_exceeded,
        )
        self.capture = self._lan.capture
        self._is_judged = self._spending.is_limited or options.times.idle_s > 0
        self.link: Link
        self._keepalive: Keepalive

    async def run(self, transport: asyncio.Transport, early: bytes) -> None:
        """Carry frames until the end, whoever brings it; then all of this is stopped, the segment not yet.

        Args:
            transport: the upgraded connection; it is closed on return, also on cancellation.
            early: bytes the client sent right behind its handshake.
        """
        with ExitStack() as stack:
            stack.callback(self._ended)
            stack.callback(self._stop)
            self._open(transport, early)
            await self._over
            await self.link.finish()

    def close(self, reason: Reason, text: str | None = None) -> None:
        """Begin the end: ERROR (if the framing has any) and close frame as `CLOSINGS` says, once.

        `text` replaces the table's text in what the peer sees.
        """
        if not self.life.is_live:
            return
        closing = CLOSINGS[reason]
        text = closing.text if text is None else text
        self.life.closing(reason, text, time.monotonic())
        self._record.closing(reason)
        self._keepalive.stop()
        self._lan.stop()
        if closing.error_code is not None and (error := self._framing.error(closing.error_code, text)):
            self.link.write(error)
        if closing.close_code is not None:
            self.link.send_close(closing.close_code, text)
        if not self._over.done():
            self._over.set_result(None)
        self._timer.set()

    # -- what the link tells

    def on_messages(self, messages: list[bytes], asides: Sequence[Aside]) -> None:
        """The messages of one read: frames to the TAP, PONGs back, malformed ones end the tunnel."""
        if not self.life.is_open:
            return
        inbound = self._framing.sort(messages)
        if self._is_judged:
            inbound = self._judge(messages, asides, inbound)
        if inbound.frames:
            self._lan.from_client(inbound.frames)
        if inbound.pings and self.life.is_open:  # an answer to a frame may have been too much
            pongs = (websocket_message(encode(MessageType.PONG, payload)) for payload in inbound.pings)
            self.link.reply(b"".join(pongs))
        if inbound.pongs:
            self._answered(inbound.pongs)
        if inbound.fault is not None:
            self.close(Reason.MALFORMED_MESSAGE, str(inbound.fault))
        elif self._spending.exceeded is not None:
            self._quota_exceeded()

    def _judge(self, messages: list[bytes], asides: Sequence[Aside], inbound: Inbound) -> Inbound:
        """Note that the client spoke, and leave out what is beyond its quotas."""
        now = time.monotonic()
        if messages or any(aside.kind in ("text", "ping") for aside in asides):
            self.life.heard(now)
        if not self._spending.is_limited:
            return inbound
        return self._spending.receive(messages, asides, inbound, now)

    def on_paused(self) -> None:
        """The client does not keep up."""
        self._lan.pump.pause()

    def on_resumed(self) -> None:
        """The client has caught up."""
        self._lan.pump.resume()

    def on_stalled(self) -> None:
        """The client takes nothing: closed or, where it can come back, dropped and waited for."""
        if self._tickets is None:
            self.close(Reason.BACKPRESSURE)
            return
        self.link.let_go()
        self.on_gone()

    def on_websocket_end(self) -> None:
        """The peer closed, or broke the WebSocket protocol."""
        if not self.life.is_open:
            self.link.finish_now()
            return
        failure = self.link.failure
        if failure is None:
            self.close(Reason.PEER_CLOSED)
        else:
            self.close(Reason.WEBSOCKET_FAILED, f"{failure[0]} {failure[1]}")

    def on_gone(self) -> None:
        """The connection is lost, without a close frame if the tunnel is open still."""
        if not self.life.is_open or self._tickets is None:
            self.close(Reason.PEER_GONE)
            return
        self._keepalive.stop()
        self.life.kept(time.monotonic())
        self._record.kept(self._options.times.keep_s)
        self._lan.pump.discard()
        self._timer.set()

    def resume(
        self, transport: asyncio.Transport, early: bytes, peer: str, holder: Holder, expires_at: float | None
    ) -> None:
        """Go on through this connection, as `run` began; one that has not broken yet, for us, is dropped."""
        now, is_taken_over = time.monotonic(), self.life.is_open
        if is_taken_over:
            self._keepalive.stop()
            self.link.let_go()
            self.life.kept(now)
        away_s = self.life.resumed(now, expires_at)
        self.holder = holder
        self._record.resumed(peer, holder, away_s, is_taken_over=is_taken_over)
        self._attach(transport)
        self._lan.pump.deliver(self.link.write)
        self._go_on(early, is_resumed=True)

    def keep_no_more(self) -> None:
        """The process is about to end: nobody can come back."""
        self._tickets = None
        if self.life.phase is Phase.KEPT:
            self.close(Reason.SHUTDOWN)

    def let_go(self) -> None:
        """Drop its parts when it is over: they refer back to it, and the garbage collector comes by late."""
        for part in ("link", "_keepalive", "_timer", "_lan", "capture"):
            vars(self).pop(part, None)

    # -- what its life asks for

    def _do(self, due: Due) -> None:
        match due:
            case End(reason, why):
                if why:
                    self._record.fails(why)
                self.close(reason)
            case SendPing(payload):
                self._send_ping(payload)
            case Drop():
                self.link.abort()

    def _send_ping(self, payload: bytes) -> None:
        """What is not read is not piled up; a PING that is left out counts as one that was lost."""
        if not self._lan.pump.is_paused:
            self._say(self.link.write_aside, encode(MessageType.PING, payload))

    def _say(self, write: Callable[[bytes], None], *messages: bytes) -> None:
        """Messages of our own, which cost quota as any."""
        if self._spending.spend(sum(map(len, messages)), time.monotonic()):
            write(b"".join(map(websocket_message, messages)))
        else:
            self._quota_exceeded()

    def _answered(self, pongs: Sequence[bytes]) -> None:
        for payload in pongs:
            took = self.life.answered(payload, time.monotonic())
            if took is not None:
                self._metrics.ping_rtt_ms.observe(took * 1000)
                self._timer.set()

    def _quota_exceeded(self) -> None:
        assert self._spending.exceeded is not None
        reason = QUOTA_REASONS[self._spending.exceeded]
        self.close(reason)
        if reason is Reason.HOURLY_BYTE_QUOTA and self.holder.principal is not None:
            self._hour_is_over(self.holder.principal)

    def _segment_lost(self, why: str) -> None:
        if self.life.is_live:
            self._record.fails(why)
            self.close(Reason.TUNNEL_FAILED)

    # -- begin and end

    def _open(self, transport: asyncio.Transport, early: bytes) -> None:
        nat_ready, pinged = self._lan.is_nat_ready, self._framing.has_pings
        self.life.opened(time.monotonic(), nat_ready=nat_ready, pinged=pinged)
        self._record.opened(self._framing.name)
        self._attach(transport)
        self._lan.start(self.link.write)
        self._go_on(early, is_resumed=False)

    def _go_on(self, early: bytes, *, is_resumed: bool) -> None:
        """Ahead of every other message the client is told what it needs to come back."""
        if self._tickets is not None and self.life.is_open:
            secret = self._tickets.issue(self, self.holder.owner)
            self._say(self.link.write, *encode_resume(secret, is_resumed=is_resumed))
        self._timer.look()
        if early:
            self.link.data_received(early)

    def _attach(self, transport: asyncio.Transport) -> None:
        """Use the tunnel through this WebSocket from now on."""
        silent = partial(self.close, Reason.PEER_SILENT)
        self.link, self._keepalive = attach(transport, self, self._framing, self._options, silent)

    def _stop(self) -> None:
        self._timer.stop()
        self._keepalive.stop()
        self._lan.stop()
        self.link.abort()

    def _ended(self) -> None:
        life = self.life
        if life.phase in (Phase.ACCEPTED, Phase.PREPARING):
            return
        if life.reason is None:
            self._record.closing(Reason.CUT_OFF)
        reason = life.closed(Reason.CUT_OFF)
        spent = self._spending.standing(reason)
        self._record.closed(life, reason, self._lan.pump.traffic, spent, time.monotonic())
