"""What the audit log says of one session: its beginning and end, flows, what was denied, and names."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol

from aero_l2.observe.audit.denials import DOMAIN, Denials
from aero_l2.observe.audit.flows import SUMS, FlowEnd, add_to, flow_tally
from aero_l2.observe.audit.lines import Kind, stamp
from aero_l2.observe.audit.tally import Rate, Tally
from aero_l2.web.echo import echo

QUERIES: Final = Rate(200, 10.0)
"""Lines about DNS queries of one session."""
MAX_NAMES: Final = 1024
"""Addresses whose names one session's log remembers."""
MAX_ADDRESSES: Final = 16
"""Of one answer, in its line."""


class Log(Protocol):
    """What a session needs of `aero_l2.observe.audit.log.AuditLog`."""

    has_queries: bool

    def write(self, kind: Kind, **fields: object) -> None:
        """One line."""

    def is_due(self, part: SessionAudit) -> None:
        """Have it sum up soon."""


class SessionAudit:
    """Of one session. client: its address now, for it may come back from another one."""

    def __init__(self, log: Log, session_id: int, client: str, principal: str | None) -> None:
        now = time.monotonic()
        self._log = log
        self._id = session_id
        self._client = client
        self._principal = None if principal is None else echo(principal)
        self._names: OrderedDict[str, str] = OrderedDict()
        self._tally = flow_tally(now)
        self._queries: Tally[tuple[str, bool]] = Tally(QUERIES, lambda key: key, now)
        self._denials = Denials(now)
        self._flows = 0
        self._opened = 0.0
        self._begun = now
        self._closed: dict[str, object] | None = None

    # -- its life

    def opened(self, peer: str, framing: str) -> None:
        """Frames flow."""
        self._opened, self._begun = time.time(), time.monotonic()
        self._write("session_open", peer=peer, framing=framing)

    def kept(self, seconds: float) -> None:
        """Its WebSocket broke; it may be taken up again for so long."""
        self._write("session_kept", kept_for_s=seconds)

    def resumed(self, peer: str, client: str, result: str, away_s: float) -> None:
        """Its client is back."""
        self._client = client
        self._write("session_resumed", peer=peer, result=result, away_s=round(away_s, 3))

    def closed(self, reason: str, totals: Mapping[str, int]) -> None:
        """No frame flows any more; its flows may still end."""
        self._closed = {
            "reason": reason,
            "start": stamp(self._opened),
            "duration_s": round(time.monotonic() - self._begun, 3),
            **totals,
        }

    def end(self) -> None:
        """The last line, once everything else is said; none where it was never opened."""
        self.sum_up()
        if self._closed is not None:
            self._write("session_close", **self._closed, flows=self._flows, denied=self._denials.denied)

    # -- flows

    def name_of(self, address: str) -> str | None:
        """What this session's DNS has handed the address out for, last."""
        return self._names.get(address)

    def flow(self, flow: FlowEnd) -> None:
        """A flow is over."""
        self._flows += 1
        if self._tally.admits(time.monotonic()):
            self._write("flow", **flow.fields())
        else:
            add_to(self._tally, flow)
            self._log.is_due(self)

    def incomplete(self, flows: int | None, why: str) -> None:
        """So many flows have no line; None: nobody can tell."""
        self._write("incomplete", flows=flows, why=why)

    # -- what was denied

    def denied(
        self, rule: str, protocol: str, address: str | None, port: int | None, target: tuple[str, int] | None
    ) -> None:
        """One packet was. address, port: as the guest dialled, None where nobody knows any more."""
        if self._denials.is_first(rule, (protocol, address, port, target), time.monotonic()):
            name = None if address is None else self.name_of(address)
            self._denied(rule, protocol, address, port, target, name)

    def counted(self, counters: Mapping[str, int]) -> None:
        """What the firewall has counted by now, by named counter."""
        self._denials.counted(counters)
        if self._denials.is_due:
            self._log.is_due(self)

    def name_denied(self, name: str) -> None:
        """DNS has refused one."""
        shown = echo(name)
        self._denials.name_denied()
        if self._denials.is_first(DOMAIN, shown, time.monotonic()):
            self._denied(DOMAIN, "dns", None, None, None, shown)
        else:
            self._log.is_due(self)

    def _denied(
        self,
        rule: str,
        protocol: str,
        address: str | None,
        port: int | None,
        target: tuple[str, int] | None,
        name: str | None,
    ) -> None:
        self._write(
            "denied",
            protocol=protocol,
            address=address,
            port=port,
            target_address=None if target is None else target[0],
            target_port=None if target is None else target[1],
            name=name,
            verdict="denied",
            rule=rule,
            packets=1,
        )

    # -- names

    def handed_out(self, name: str, addresses: Iterable[str]) -> None:
        """DNS gives these addresses for a name."""
        shown = echo(name)
        for address in addresses:
            self._names[address] = shown
            self._names.move_to_end(address)
            if len(self._names) > MAX_NAMES:
                self._names.popitem(last=False)

    def query(
        self, name: str | None, qtype: str | None, rcode: str, addresses: Sequence[str], *, denied: bool
    ) -> None:
        """DNS has answered. name, type: None where the query was no question."""
        if not self._log.has_queries:
            return
        if self._queries.admits(time.monotonic()):
            self._write(
                "dns",
                name=None if name is None else echo(name),
                qtype=qtype,
                rcode=rcode,
                verdict="denied" if denied else "allowed",
                addresses=list(addresses[:MAX_ADDRESSES]),
                addresses_total=len(addresses),
            )
        else:
            self._queries.add((rcode, denied))
            self._log.is_due(self)

    # -- lines

    def sum_up(self) -> None:
        """What got no line of its own."""
        for (protocol, address), sums in self._tally.taken():
            self._write("flows", protocol=protocol, address=address, **dict(zip(SUMS, sums, strict=True)))
        for count in self._denials.due():
            self._write("denials", **count._asdict())
        for (rcode, denied), (queries,) in self._queries.taken():
            verdict = "denied" if denied else "allowed"
            self._write("queries", rcode=rcode, verdict=verdict, queries=queries)

    def _write(self, kind: Kind, **fields: object) -> None:
        self._log.write(kind, session=self._id, principal=self._principal, client=self._client, **fields)
