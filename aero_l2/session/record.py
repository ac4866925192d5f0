"""What log and metrics say of a tunnel: who had it, why it ended, how long it was, how much went through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import structlog

from aero_l2.observe.metrics import Metrics
from aero_l2.session.closing import CLOSINGS, Reason
from aero_l2.session.lifecycle import Lifecycle
from aero_l2.session.pump import Traffic
from aero_l2.session.registry import Holder
from aero_l2.web.echo import echo

_log = structlog.get_logger("aero_l2.session")


class Record:
    """Of one tunnel. peer: its address and port. holder: who it is for, and so behind what the guest did."""

    def __init__(self, session_id: int, peer: str, holder: Holder, metrics: Metrics) -> None:
        self.session_id = session_id
        self._metrics = metrics
        self._was_opened = False
        self._is_kept = False
        self._begun = time.monotonic()
        self._log = _log.bind(session=session_id, peer=peer, client=holder.client)
        if holder.principal is not None:
            self._log = self._log.bind(sid=echo(holder.principal))

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
        reason = f"{who}, while its tunnel was being made"
        self._log.info("tunnel not opened", reason=reason, seconds=round(seconds, 3))

    def has_turn(self) -> None:
        """It waited for others long enough."""
        self._metrics.setup_seconds["turn"].observe(time.monotonic() - self._begun)

    def opened(self, framing: str) -> None:
        """Frames flow."""
        self._metrics.setup_seconds["total"].observe(time.monotonic() - self._begun)
        self._was_opened = True
        self._metrics.sessions.inc()
        self._metrics.sessions_active.inc()
        self._log.info("tunnel opened", framing=framing)

    def kept(self, seconds: float) -> None:
        """Its WebSocket broke; it may be taken up again for so long."""
        self._is_kept = True
        self._metrics.sessions_kept.inc()
        self._log.info("tunnel kept", kept_for_s=seconds)

    def resumed(self, peer: str, holder: Holder, away_s: float, *, is_taken_over: bool) -> None:
        """Its client is back after so many seconds. is_taken_over: its old WebSocket had not broken yet."""
        self._log = self._log.bind(peer=peer, client=holder.client)
        result = "taken_over" if is_taken_over else "resumed"
        self._metrics.resumes[result].inc()
        self._no_longer_kept()
        self._log.info("tunnel resumed", result=result, away_s=round(away_s, 3))

    def _no_longer_kept(self) -> None:
        if self._is_kept:
            self._is_kept = False
            self._metrics.sessions_kept.dec()

    def fails(self, why: str) -> None:
        """Something of ours is lost, and the tunnel ends for it."""
        self._log.error("tunnel fails", why=why)

    def capture_failed(self, why: str, path: str | None) -> None:
        """Its capture ended before its time, or could not be begun; the tunnel goes on."""
        self._log.error("capture ends", why=why, file=path)

    def closing(self, reason: Reason) -> None:
        """The end has begun."""
        self._no_longer_kept()
        self._metrics.sessions_closed[reason.value].inc()
        metric = CLOSINGS[reason].metric
        if metric is not None:
            getattr(self._metrics, metric).inc()

    def closed(
        self, life: Lifecycle, reason: Reason, traffic: Traffic, spent: Mapping[str, int], now: float
    ) -> None:
        """It has ended; the last word on it. spent: what a quota counted, where that ended it."""
        self._metrics.sessions_active.dec()
        getattr(self._log, CLOSINGS[reason].log_level)(
            "tunnel closed",
            reason=reason.value,
            **spent,
            text=life.text,
            seconds=round(now - life.opened_at, 3),
            frames_rx=traffic.frames_rx,
            bytes_rx=traffic.bytes_rx,
            frames_tx=traffic.frames_tx,
            bytes_tx=traffic.bytes_tx,
            frames_dropped=traffic.frames_dropped,
        )
