"""What becomes of a tunnel's DNS queries, as metrics and the audit log have it."""

from __future__ import annotations

import dns.rcode
import dns.rdatatype

from aero_l2.observe.audit.session import SessionAudit
from aero_l2.observe.metrics import Metrics
from aero_l2.observe.metrics.dns import RCODES
from aero_l2.services.dns.openings import openings
from aero_l2.services.dns.responder import Answered


class DnsCounters:
    """DNS queries and failures as the process counts them, and those of one tunnel."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.queries = self.failures = self.denied = 0

    def dns_query(self) -> None:
        """One query that gets an answer."""
        self.queries += 1
        self._metrics.dns_queries.inc()

    def dns_failure(self) -> None:
        """One answer that was neither NOERROR nor by policy."""
        self.failures += 1
        self._metrics.dns_fail.inc()

    def dns_denied(self) -> None:
        """One name that policy denies."""
        self.denied += 1
        self._metrics.policy_denied["query"].inc()

    def dns_answer(self, rcode: int) -> None:
        """One answer with this response code."""
        self._metrics.dns_answers[RCODES[rcode] if rcode < len(RCODES) else "other"].inc()


def tell(audit: SessionAudit, answered: Answered) -> None:
    """Have the audit log know what a query's answer was, and the names of its addresses."""
    query, rcode = answered.query, dns.rcode.to_text(answered.rcode)
    if query is None:
        audit.query(None, None, rcode, (), denied=False)
        return
    name = query.name.to_text(omit_final_dot=True)
    addresses = [] if answered.reply is None else list(map(str, openings(answered.reply, query.name)))
    if answered.denied:
        audit.name_denied(name)
    audit.handed_out(name, addresses)
    qtype = dns.rdatatype.to_text(query.rdtype)
    audit.query(name, qtype, rcode, addresses, denied=answered.denied)
