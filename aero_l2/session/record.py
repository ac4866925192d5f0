"""What log and metrics say of a tunnel: who had it, why it ended, how long it was, how much went through."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict

import structlog

from aero_l2.observe.audit.session import SessionAudit
from aero_l2.observe.limit import Kind, LimitedLog, LineLimit
from aero_l2.observe.metrics import Metrics
from aero_l2.session.closing import CLOSINGS, Reason
from aero_l2.session.lifecycle import Lifecycle, Phase
from aero_l2.session.pump import Traffic
from aero_l2.session.registry import Holder
from aero_l2.session.spending import Spending
from aero_l2.tasks import concerns
from aero_l2.web.echo import echo

_log = structlog.get_logger(component="session")


class Record:
    """Of one tunnel, and with it of the task that makes it.

    opened_at: unix seconds, None before. resumes: how often its client came back. rtt_s: of its last PING.

    Args:
        peer: its address and port.
        holder: who it is for, and so behind what the guest did.
        limited: for what clients can provoke without a tunnel.
        audit: its part of the audit log, if there is one.
    """

    def __init__(
        self,
        session_id: int,
        peer: str,
        holder: Holder,
        metrics: Metrics,
        limited: LimitedLog,
        audit: SessionAudit | None = None,
    ) -> None:
        self.session_id = session_id
        self.peer = peer
        self.opened_at: float | None = None
        self.resumes = 0
        self.rtt_s: float | None = None
        self._metrics = metrics
        self._was_opened = False
        self._is_kept = False
        self._begun = time.monotonic()
        self._limited = limited
        self._audit = audit
        self._moves = LineLimit()
        self._who: dict[str, object] = {"session": session_id, "client": holder.client, "peer": peer}
        if holder.principal is not None:
            self._who["principal"] = echo(holder.principal)
        concerns(**self._who)

    def left_early(self, kind: type[BaseException] | None, *, is_ending: bool) -> None:
        """The tunnel is released, and `kind` the exception for it. One that never opened has its only line
        here. is_ending: the process does.

        Where something of ours was the reason, whoever refuses the upgrade says so.
        """
        is_failure = kind is not None and not issubclass(kind, (asyncio.CancelledError, GeneratorExit))
        if self._was_opened or is_failure:
            return
        seconds = time.monotonic() - self._begun
        who = "the process ends" if is_ending else f"the client left after {seconds:.1f} s"
        text = f"{who}, while its tunnel was being made"
        self._limited.write(
            "info", "tunnel not opened", text, kind="", **self._who, seconds=round(seconds, 3)
        )

    def has_turn(self) -> None:
        """It waited for others long enough."""
        self._metrics.setup_seconds["turn"].observe(time.monotonic() - self._begun)

    def opened(self, framing: str) -> None:
        """Frames flow."""
        self._metrics.setup_seconds["total"].observe(time.monotonic() - self._begun)
        self._was_opened = True
        self.opened_at = time.time()
        self._metrics.sessions.inc()
        self._metrics.sessions_active.inc()
        _log.info("tunnel opened", **self._who, framing=framing)
        if self._audit is not None:
            self._audit.opened(self.peer, framing)

    def kept(self, seconds: float) -> None:
        """Its WebSocket broke; it may be taken up again for so long."""
        self._is_kept = True
        self._metrics.sessions_kept.inc()
        if self._may_tell("tunnel kept"):
            _log.info("tunnel kept", **self._who, kept_for_s=seconds)
        if self._audit is not None:
            self._audit.kept(seconds)

    def resumed(self, peer: str, holder: Holder, away_s: float, *, is_taken_over: bool) -> None:
        """Its client is back after so many seconds. is_taken_over: its old WebSocket had not broken yet."""
        self.peer = peer
        self._who |= {"client": holder.client, "peer": peer}
        self.resumes += 1
        result = "taken_over" if is_taken_over else "resumed"
        self._metrics.resumes[result].inc()
        self._no_longer_kept()
        if self._may_tell("tunnel resumed"):
            _log.info("tunnel resumed", **self._who, result=result, away_s=round(away_s, 3))
        if self._audit is not None:
            self._audit.resumed(peer, holder.client, result, away_s)

    def _may_tell(self, event: str) -> bool:
        """Coming and going costs a client next to nothing: so many lines a minute, and all are counted."""
        now = time.monotonic()
        self._moves.ended(now)
        return self._moves.admit(Kind("info", event, ""), now)

    def _no_longer_kept(self) -> None:
        if self._is_kept:
            self._is_kept = False
            self._metrics.sessions_kept.dec()

    def answered(self, took_s: float) -> None:
        """A PING of ours was."""
        self.rtt_s = took_s
        self._metrics.ping_rtt_ms.observe(took_s * 1000)

    def fails(self, why: str) -> None:
        """Something of ours is lost, and the tunnel ends for it."""
        _log.error("tunnel fails", **self._who, text=why)

    def capture_failed(self, why: str, path: str | None) -> None:
        """Its capture ended before its time, or could not be begun; the tunnel goes on."""
        _log.error("capture ends", **self._who, text=why, file=path)

    def closing(self, reason: Reason) -> None:
        """The end has begun."""
        self._no_longer_kept()
        self._metrics.sessions_closed[reason.value].inc()
        metric = CLOSINGS[reason].metric
        if metric is not None:
            getattr(self._metrics, metric).inc()

    def closed(self, life: Lifecycle, traffic: Traffic, spending: Spending, now: float) -> None:
        """It has ended; the last word on it, if it ever was open."""
        if life.phase in (Phase.ACCEPTED, Phase.PREPARING):
            return
        if life.reason is None:
            self.closing(Reason.CUT_OFF)
        reason = life.closed(Reason.CUT_OFF)
        self._metrics.sessions_active.dec()
        totals = asdict(traffic)
        getattr(_log, CLOSINGS[reason].log_level)(
            "tunnel closed",
            **self._who,
            reason=reason.value,
            **spending.standing(reason),
            text=life.text,
            seconds=round(now - life.opened_at, 3),
            resumes=self.resumes,
            **totals,
        )
        if self._audit is not None:
            self._audit.closed(reason.value, totals)
