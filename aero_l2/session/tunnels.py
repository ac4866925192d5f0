"""All tunnels of the process: making them under permits, and closing them together."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import Final

import structlog

from aero_l2.errors import AtCapacity, Bound, HourUsedUp
from aero_l2.observe.audit.log import AuditLog
from aero_l2.observe.limit import LimitedLog
from aero_l2.observe.metrics import Metrics
from aero_l2.quota.hour import Account, HourQuotas
from aero_l2.quota.traffic import Allowance
from aero_l2.quota.turns import TurnLimits
from aero_l2.session.claims import Claim, Hold, claiming
from aero_l2.session.closing import Reason
from aero_l2.session.lifecycle import Phase
from aero_l2.session.options import TunnelOptions
from aero_l2.session.ports import SegmentOpener
from aero_l2.session.record import Record
from aero_l2.session.registry import Holder, PermitLimits, Permits
from aero_l2.session.setups import Setups
from aero_l2.session.tickets import Tickets
from aero_l2.session.tunnel import Tunnel
from aero_l2.wire.framing import Framing

RELEASE_TIMEOUT_S: Final = 2.0

_log = structlog.get_logger(component="session")


class Tunnels:
    """Makes tunnels and knows the live ones.

    Args:
        opener: makes a tunnel's segment.
        limits: how many tunnels there may be at once; `permits.limits` changes them later.
        options: shared by all new tunnels; may be replaced.
        setups: where each waits for its turn to be set up.
        audit: the audit log, if there is one.

    hours: what sessions may use in an hour, no limit at first.
    """

    def __init__(
        self,
        opener: SegmentOpener,
        *,
        limits: PermitLimits,
        options: TunnelOptions,
        metrics: Metrics,
        setups: Setups | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        self._opener = opener
        self.options = options
        self.hours = HourQuotas()
        self._metrics = metrics
        self._log = LimitedLog(_log)
        self._audit = audit
        self._ids = itertools.count(1)
        self._live: dict[Tunnel, Hold] = {}
        self._tickets: Tickets[Tunnel] = Tickets()
        self._keeps = True
        self._tasks: set[asyncio.Task[object]] = set()
        self.permits = Permits(limits)
        self.setups = setups or Setups(TurnLimits())

    @property
    def active(self) -> int:
        """Tunnels that are held, those being made or unmade included."""
        return self.permits.taken

    @property
    def standing(self) -> int:
        """Tunnels whose segment stands."""
        return len(self._live)

    @property
    def live(self) -> list[Tunnel]:
        """Tunnels whose segment stands, oldest first."""
        return sorted(self._live, key=lambda tunnel: tunnel.session_id)

    def find(self, session_id: int) -> Tunnel | None:
        """The tunnel with this id, if its segment stands."""
        return next((tunnel for tunnel in self._live if tunnel.session_id == session_id), None)

    def stands(self, tunnel: Tunnel) -> bool:
        """Whether its segment still does."""
        return tunnel in self._live

    def prepare(
        self,
        peer: str,
        holder: Holder,
        framing: Framing,
        expires_at: float | None = None,
        *,
        resumable: bool = False,
    ) -> AbstractAsyncContextManager[Tunnel]:
        """Take a permit and make a segment; both are given back when the block ends, however it ends.

        framing: how the client sends and gets frames. expires_at: unix seconds at which the tunnel is closed,
        None = never. resumable: its client can come back for it, where that is switched on.

        Where no permit is left, kept tunnels of the same owner give way, that which has waited longest first:
        not before this one's segment stands, so none is lost to a tunnel that is not made.

        Raises, on entering:
            AtCapacity: no permit is left, or the session has used up its hour.
            Overloaded: there was no turn to set it up, or no room.
            SegmentUnavailable: the segment cannot be made.
        """
        return self._prepare(peer, holder, framing, expires_at, resumable=resumable)

    def knows(self, secret: str | None) -> bool:
        """Whether `redeem` would find a tunnel by this secret, for whomever that is."""
        return secret is not None and self._tickets.knows(secret)

    def redeem(self, secret: str, holder: Holder) -> Tunnel | None:
        """The tunnel that this secret gives back to this holder, to be resumed at once, which uses it up.

        Raises:
            AtCapacity: the holder comes from another address, and that has no permit left. The secret stays
                good.
        """
        tunnel = self._tickets.find(secret, holder.owner)
        if tunnel is None or not tunnel.life.is_live:
            self._metrics.resumes["unknown"].inc()
            return None
        self._live[tunnel].permit.move(holder)
        return tunnel

    def keep_no_more(self) -> None:
        """The process is about to end: nobody can come back. What is kept ends now, the rest if it breaks."""
        self._keeps = False
        for tunnel in tuple(self._live):
            tunnel.keep_no_more()

    def close_all(self, reason: Reason) -> None:
        """Begin the end of every tunnel that is open."""
        for tunnel in tuple(self._live):
            tunnel.close(reason)

    async def wait_ended(self, timeout_s: float) -> bool:
        """Wait until every tunnel is released; False if some are not in time."""
        tasks = self._tasks - {asyncio.current_task()}
        if not tasks:
            return True
        _, left = await asyncio.wait(tasks, timeout=timeout_s)
        return not left

    async def cancel_all(self) -> None:
        """Cancel the tasks that hold tunnels and wait for what they release, within reason."""
        self._log.close()
        for task in tuple(self._tasks):
            task.cancel()
        if not await self.wait_ended(RELEASE_TIMEOUT_S):
            _log.error("tunnels are not released", left=len(self._tasks), waited_s=RELEASE_TIMEOUT_S)

    @asynccontextmanager
    async def _prepare(
        self, peer: str, holder: Holder, framing: Framing, expires_at: float | None, *, resumable: bool
    ) -> AsyncIterator[Tunnel]:
        with ExitStack() as stack:
            stack.enter_context(self._tracked())
            released = asyncio.Event()
            stack.callback(released.set)
            claim = stack.enter_context(claiming())
            self._promise_room(holder, claim)
            permit = stack.enter_context(self.permits.take(holder))
            account = stack.enter_context(self._account(holder))
            session_id, said = next(self._ids), None
            if self._audit is not None:
                session = self._audit.session(session_id, holder.client, holder.principal)
                said = stack.enter_context(session)
            record = Record(session_id, peer, holder, self._metrics, self._log, said)
            stack.push(lambda kind, *_: record.left_early(kind, is_ending=not self._keeps))
            async with AsyncExitStack() as made:
                async with self.setups.turn(holder.client):
                    record.has_turn()
                    segment = await made.enter_async_context(self._opener(record.session_id))
                    await self._make_room(holder, claim)
                options = self.options
                tunnel = Tunnel(
                    record,
                    segment,
                    options,
                    self._metrics,
                    holder=holder,
                    framing=framing,
                    expires_at=expires_at,
                    allowance=Allowance(options.max_bytes, options.max_messages, account),
                    hour_is_over=self._hour_is_over,
                    tickets=self._tickets if resumable and self._keeps and options.times.keep_s else None,
                )
                self._live[tunnel] = Hold(tunnel, permit, released)
                try:
                    yield tunnel
                finally:
                    self._tickets.revoke(tunnel)
                    del self._live[tunnel]
                    tunnel.let_go()

    def _promise_room(self, holder: Holder, claim: Claim, more: int = 1) -> None:
        """Have kept tunnels promised until so many permits more are left, or ended. Raises AtCapacity."""
        while True:
            try:
                self.permits.check(holder, more)
            except AtCapacity as full:
                hold = self._gives_way(holder, full.bound)
                if hold is None:
                    raise
                hold.permit.promise(claim)
                claim.append(hold)
            else:
                return

    async def _make_room(self, holder: Holder, claim: Claim) -> None:
        """End what was promised and is needed still, and wait until it is released.

        Raises:
            AtCapacity: a client has come back for it meanwhile, and there is nothing else; all stay then.
        """
        if any(hold.permit.promised_to is not claim for hold in claim):
            self._promise_room(holder, claim, more=0)
        claim.spare(self.permits)
        for hold in claim:
            if hold.permit.promised_to is claim:
                hold.tunnel.close(Reason.NOT_RESUMED, "it gives way to a new tunnel of its owner")
        for hold in claim:
            if hold.permit.promised_to is claim:
                await hold.released.wait()
        claim.clear()

    def _gives_way(self, holder: Holder, bound: Bound) -> Hold | None:
        """Of the kept tunnels whose end makes room under that limit, and that may, the one kept longest."""
        kept = [
            hold
            for tunnel, hold in self._live.items()
            if tunnel.life.phase is Phase.KEPT
            and hold.permit.promised_to is None
            and holder.may_replace(tunnel.holder, bound)
        ]
        return min(kept, key=lambda hold: hold.tunnel.life.kept_at, default=None)

    @contextmanager
    def _account(self, holder: Holder) -> Iterator[Account | None]:
        """What a session has used this hour, if that is limited and somebody is named. Raises HourUsedUp."""
        principal, hours = holder.principal, self.hours
        if principal is None or not hours.limit:
            yield None
            return
        wait_s = hours.wait_s(principal, time.monotonic())
        if wait_s > 0:
            raise HourUsedUp(hours.limit, wait_s)
        account = hours.hold(principal, time.monotonic())
        try:
            yield account
        finally:
            hours.release(principal, time.monotonic())

    def _hour_is_over(self, principal: str) -> None:
        """A session has used up its hour: none of its tunnels goes on, however little it sends."""
        self.hours.exhaust(principal, time.monotonic())
        for tunnel in tuple(self._live):
            if tunnel.holder.principal == principal:
                tunnel.close(Reason.HOURLY_BYTE_QUOTA)

    @contextmanager
    def _tracked(self) -> Iterator[None]:
        """Know the current task as one that holds a tunnel."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)
