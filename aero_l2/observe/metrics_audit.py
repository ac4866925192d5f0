"""The metrics of the audit log; a part of `aero_l2.observe.metrics.Metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from aero_l2.observe.audit.lines import KINDS


class AuditMetrics:
    """Declared in `declare_audit`, one attribute each."""

    def declare_audit(self, registry: CollectorRegistry) -> None:
        """Make them, at 0."""
        lines = Counter(
            "aero_l2_audit_lines_total", "Lines for the audit log, by kind.", ["kind"], registry=registry
        )
        self.audit_lines = {kind: lines.labels(kind) for kind in KINDS}
        self.audit_lines_lost = Counter(
            "aero_l2_audit_lines_lost_total",
            "Lines that the audit log does not have: it was not written for too long.",
            registry=registry,
        )
        self.audit_errors = Counter(
            "aero_l2_audit_errors_total", "Times that writing the audit log began to fail.", registry=registry
        )
