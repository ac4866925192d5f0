"""Metrics of the resolver."""

from __future__ import annotations

from typing import Final

from aero_l2.observe.metrics.declaring import Declarer

RCODES: Final = ("noerror", "formerr", "servfail", "nxdomain", "notimp", "refused", "other")
UPSTREAM_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
UPSTREAM_FAILURES: Final = ("timeout", "unreachable", "malformed", "rcode", "no_server", "too_many")
CACHE_RESULTS: Final = ("hit", "shared", "miss")


class DnsMetrics(Declarer):
    """Of guests' queries and of what became of them."""

    def _declare_dns(self) -> None:
        self.dns_queries = self._counter("l2_dns_queries_total", "DNS queries of guests.")
        self.dns_fail = self._counter("l2_dns_fail_total", "DNS queries that failed other than by policy.")
        self.dns_answers = self._counters(
            "aero_l2_dns_answers_total",
            "DNS answers to guests by response code, denials by policy included.",
            "rcode",
            RCODES,
        )
        self.dns_pending = self._gauge(
            "aero_l2_dns_pending", "DNS questions of all tunnels that wait for an upstream."
        )
        self.dns_cache_lookups = self._counters(
            "aero_l2_dns_cache_lookups_total",
            "DNS queries that need an upstream's answer: hit has it kept, shared waits with another query "
            "for the same one, miss asks.",
            "result",
            CACHE_RESULTS,
        )
        self.dns_upstream_seconds = self._histogram(
            "aero_l2_dns_upstream_seconds",
            "Time from asking an upstream resolver to its answer, which may be that it cannot.",
            UPSTREAM_BUCKETS_S,
        )
        self.dns_upstream_failures = self._counters(
            "aero_l2_dns_upstream_failures_total",
            "Questions that an upstream resolver did not answer well: timeout, unreachable, malformed "
            "answer, rcode SERVFAIL, REFUSED, NOTIMP or FORMERR; and those that none was asked: no_server is "
            "known, too_many wait.",
            "cause",
            UPSTREAM_FAILURES,
        )
