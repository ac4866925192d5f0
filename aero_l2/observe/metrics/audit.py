"""Metrics of the audit log."""

from __future__ import annotations

from aero_l2.observe.audit.lines import KINDS
from aero_l2.observe.metrics.declaring import Declarer


class AuditMetrics(Declarer):
    """Lines of the audit log, and those it does not have."""

    def _declare_audit(self) -> None:
        self.audit_lines = self._counters(
            "aero_l2_audit_lines_total", "Lines for the audit log, by kind.", "kind", KINDS
        )
        self.audit_lines_lost = self._counter(
            "aero_l2_audit_lines_lost_total",
            "Lines that the audit log does not have: it was not written for too long.",
        )
        self.audit_errors = self._counter(
            "aero_l2_audit_errors_total", "Times that writing the audit log began to fail."
        )
