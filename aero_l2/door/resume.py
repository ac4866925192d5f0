"""What an upgrade says of resuming, among the subprotocols it offers: docs/protocol.md. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from aero_l2.door.http import RequestHead
from aero_l2.wire.framing import Framing
from aero_l2.wire.tunnel import RESUME_SUBPROTOCOL

_WITH_SECRET: Final = f"{RESUME_SUBPROTOCOL}."


@dataclass(frozen=True, slots=True)
class ResumeOffer:
    """Of a client that wants to be able to resume. secret: of the tunnel that it had, None if it had none."""

    secret: str | None = field(default=None, repr=False)


def resume_offer(head: RequestHead, framing: Framing) -> ResumeOffer | None:
    """What the client offers, None where its framing has no messages for it; the first secret counts."""
    if not framing.has_pings:
        return None
    offered = head.elements("Sec-WebSocket-Protocol")
    for element in offered:
        if element.startswith(_WITH_SECRET) and len(element) > len(_WITH_SECRET):
            return ResumeOffer(element.removeprefix(_WITH_SECRET))
    return ResumeOffer() if RESUME_SUBPROTOCOL in offered else None
