"""What the audit log says of a flow. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from aero_l2.observe.audit.lines import stamp
from aero_l2.observe.audit.tally import Rate, Tally

RATE: Final = Rate(500, 20.0)
"""Lines of one session's flows; those beyond are summed up by protocol and address."""

Ending = Literal["closed", "reset", "refused", "unanswered", "idle", "tunnel_end", "unknown"]
"""How a flow ended: by FIN; by RST; by RST or not at all in place of a first answer; by silence; with its
tunnel, before it was over; nobody saw."""


@dataclass(frozen=True, slots=True)
class Sent:
    """Packets and bytes each way, from the guest's view; bytes of whole IP packets."""

    bytes_sent: int
    packets_sent: int
    bytes_received: int
    packets_received: int


@dataclass(frozen=True, slots=True)
class FlowEnd:
    """One flow that is over.

    begun_by_guest: False where the far end sent first. address, port: as the guest dialled, or of the far
    end; port None for ICMP. target: whom a forward led to instead. name: what the address was resolved from.
    started: unix seconds, None where its begin was not seen. sent: None where nobody could tell any more.
    """

    protocol: str
    begun_by_guest: bool
    guest_port: int | None
    address: str
    port: int | None
    target: tuple[str, int] | None
    name: str | None
    ended: Ending
    started: float | None
    duration_s: float | None
    sent: Sent | None

    def fields(self) -> dict[str, object]:
        """As the line has them."""
        sent = self.sent
        return {
            "protocol": self.protocol,
            "begun_by": "guest" if self.begun_by_guest else "remote",
            "guest_port": self.guest_port,
            "address": self.address,
            "port": self.port,
            "target_address": None if self.target is None else self.target[0],
            "target_port": None if self.target is None else self.target[1],
            "name": self.name,
            "verdict": "allowed",
            "ended": self.ended,
            "start": None if self.started is None else stamp(self.started),
            "duration_s": None if self.duration_s is None else round(self.duration_s, 3),
            "bytes_sent": None if sent is None else sent.bytes_sent,
            "packets_sent": None if sent is None else sent.packets_sent,
            "bytes_received": None if sent is None else sent.bytes_received,
            "packets_received": None if sent is None else sent.packets_received,
        }


FlowKey = tuple[str, str | None]
"""Protocol and address; None for all other addresses."""


def flow_tally(now: float) -> Tally[FlowKey]:
    """What flows of one session come to that get no line."""
    return Tally(RATE, lambda key: (key[0], None), now)


def add_to(tally: Tally[FlowKey], flow: FlowEnd) -> None:
    """Sum it up."""
    sent = flow.sent or Sent(0, 0, 0, 0)
    tally.add(
        (flow.protocol, flow.address),
        0 if flow.sent else 1,
        sent.bytes_sent,
        sent.packets_sent,
        sent.bytes_received,
        sent.packets_received,
    )


SUMS: Final = (
    "flows",
    "flows_uncounted",
    "bytes_sent",
    "packets_sent",
    "bytes_received",
    "packets_received",
)
"""Fields of a summary, in the order of what a tally of `add_to` holds."""
