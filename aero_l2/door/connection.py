"""One client at the door: reads a request head, answers it, or becomes a tunnel.

reading head → answering (half-closed, rest of the input discarded) → gone
             → upgrading (segment being made) → tunnel: the transport gets another protocol
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, Final

from aero_l2.auth.modes import Admitted
from aero_l2.door.answering import Answering, Step
from aero_l2.door.endpoints import Tunnelled
from aero_l2.door.handshake import ENDING, FAULT, Refusal, Upgrade, accept, judge, not_now, refusal_of
from aero_l2.door.http import RequestHead, Response, text_response
from aero_l2.door.ports import Door
from aero_l2.door.resume import ResumeOffer, resume_offer
from aero_l2.errors import AtCapacity, Overloaded, SegmentUnavailable
from aero_l2.session.registry import Holder
from aero_l2.tasks import concerns, spawn, subject
from aero_l2.web.forwarded import Via, client_group
from aero_l2.wire.framing import Framing

MAX_EARLY_BYTES: Final = 64 * 1024


class Connection(Answering):
    """Protocol of a fresh TCP connection; see the module for its steps."""

    def __init__(self, door: Door) -> None:
        super().__init__(door)
        self._door = door
        self._early = b""
        self._client = ""
        self._upgrade: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        """Bytes of the request, or of a client that does not wait for its 101."""
        if self._step is Step.UPGRADING:
            self._keep_early(data)
        else:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Undo what was begun for this client."""
        super().connection_lost(exc)
        if self._upgrade is not None:
            self._upgrade.cancel()

    def refuse_for_shutdown(self) -> None:
        """Answer an upgrade that is under way with 503: no tunnel opens any more."""
        if self._step is Step.UPGRADING and self._upgrade is not None:
            self._refuse(ENDING)
            self._upgrade.cancel()

    # -- request

    def _serve(self, head: RequestHead, rest: bytes) -> None:
        how = self._door.rules.via(self.address, head)
        response = self._door.respond(head, how)
        if response is not None:
            self._give(response, head_only=head.method == "HEAD")
            return
        self._client = client_group(how.client)
        tunnelled = self._door.endpoints.tunnelled(head.path) or Tunnelled()
        upgrade = self._upgrade_of(head, how, tunnelled)
        too_early = not_now(upgrade)
        if too_early is not None:
            self._refuse(too_early)
            return
        switching = accept(head, tunnelled.framing)
        if isinstance(switching, Response):
            self._reject(switching)
            return
        judged = judge(upgrade, self._door.rules)
        if isinstance(judged, Refusal):
            self._refuse(judged)
            return
        framing = self._door.framing(tunnelled.framing)
        offer = resume_offer(head, framing)
        self._step = Step.UPGRADING
        self._door.entered(self)
        if not self._keep_early(rest):
            return
        self._upgrade = spawn(
            self._become_tunnel(switching, judged, framing, offer), name=f"tunnel of {self._peer}"
        )

    def _upgrade_of(self, head: RequestHead, how: Via, tunnelled: Tunnelled) -> Upgrade:
        attempts, client = self._door.attempts, self._client

        def comes_back() -> bool:
            offer = resume_offer(head, self._door.framing(tunnelled.framing))
            return offer is not None and self._door.tunnels.knows(offer.secret)

        return Upgrade(
            head,
            how,
            tunnelled,
            draining=self._door.endpoints.draining,
            within_rate=lambda: attempts.allow(client, time.monotonic()),
            retry_after_s=attempts.retry_after_s,
            overload=lambda: self._door.overload(client),
            comes_back=comes_back,
        )

    def _keep_early(self, data: bytes) -> bool:
        """Keep what comes before the 101, which a client should wait for (RFC 6455 §4.1).

        False: more than `MAX_EARLY_BYTES`, so the answer was 400 and there is no upgrade any more.
        """
        self._early += data
        if len(self._early) <= MAX_EARLY_BYTES:
            return True
        self._reject(text_response(400, "data before the handshake was answered"))
        if self._upgrade is not None:
            self._upgrade.cancel()
        return False

    # -- upgrade

    async def _become_tunnel(
        self, switching: bytes, admitted: Admitted, framing: Framing, offer: ResumeOffer | None
    ) -> None:
        transport = self._transport
        assert transport is not None
        holder = Holder(self._client, admitted.principal)
        concerns(**self._who)
        expires_at = admitted.expires_at if self._door.close_on_expiry else None
        try:
            if offer is not None and self._resume(transport, switching, offer, holder, expires_at):
                return
            async with self._door.tunnels.prepare(
                self._peer, holder, framing, expires_at, resumable=offer is not None
            ) as tunnel:
                if self._step is not Step.UPGRADING or transport.is_closing():
                    return
                self._switch(transport, switching)
                await tunnel.run(transport, self._early)
        except (AtCapacity, Overloaded, SegmentUnavailable) as failure:
            if isinstance(failure, SegmentUnavailable):
                self._door.log.write("error", "tunnel cannot be made", failure.reason, **subject())
            self._refuse(replace(refusal_of(failure), principal=admitted.principal))
        except Exception:
            self._refuse(replace(FAULT, principal=admitted.principal))
            if self._step is Step.DONE:
                transport.abort()  # the 101 is out, and nobody else may have taken the connection over
            raise

    def _resume(
        self,
        transport: asyncio.Transport,
        switching: bytes,
        offer: ResumeOffer,
        holder: Holder,
        expires_at: float | None,
    ) -> bool:
        """Whether the tunnel that the client had goes on through this connection.

        It takes one turn of the loop, so that a secret is used up only by whoever gets its tunnel.

        Raises:
            AtCapacity: the client's new address has no permit left.
            Overloaded: the secret was good for nothing in the end, and nobody else would have come this far.
        """
        if offer.secret is None or self._step is not Step.UPGRADING or transport.is_closing():
            return False
        tunnel = self._door.tunnels.redeem(offer.secret, holder)
        if tunnel is None:
            overloaded = self._door.overload(self._client)
            if overloaded is not None:
                raise overloaded
            return False
        self._switch(transport, switching)
        tunnel.resume(transport, self._early, self._peer, holder, expires_at)
        return True

    def _switch(self, transport: asyncio.Transport, switching: bytes) -> None:
        """Say 101: from here on the connection is a tunnel's."""
        self._step = Step.DONE
        self._door.left(self)
        transport.write(switching)

    @property
    def _who(self) -> dict[str, Any]:
        return {"client": self._client, **super()._who} if self._client else super()._who

    # -- answer

    def _refuse(self, refusal: Refusal) -> None:
        if self._step is Step.DONE:
            return
        self._door.refused(refusal, {**subject(), **self._who, **refusal.fields()})
        self._answer(refusal.response())

    def _answer(self, response: Response, *, head_only: bool = False) -> None:
        self._early = b""
        super()._answer(response, head_only=head_only)
