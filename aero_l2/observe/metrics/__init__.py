"""Every metric of the program, declared once, in a registry of its own.

Counters stand at 0 from the start and labelled children are made here, so that counting costs one call
(docs/metrics.md lists them all, for dashboards to rely on). No label has a value that a client chooses.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from aero_l2.observe.metrics.audit import AuditMetrics
from aero_l2.observe.metrics.dns import DnsMetrics
from aero_l2.observe.metrics.door import DoorMetrics
from aero_l2.observe.metrics.host import HostMetrics
from aero_l2.observe.metrics.sessions import SessionMetrics
from aero_l2.observe.metrics.traffic import TrafficMetrics

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4


class Metrics(SessionMetrics, DoorMetrics, TrafficMetrics, DnsMetrics, AuditMetrics, HostMetrics):
    """The metrics, one attribute each; a labelled one is a dict by the label's value.

    is_on: False counts nothing (`AERO_L2_METRICS=off`).
    """

    def __init__(self, *, is_on: bool = True) -> None:
        super().__init__(is_on=is_on)
        self._declare_sessions()
        self._declare_setups()
        self._declare_door()
        self._declare_frames()
        self._declare_flows()
        self._declare_policy()
        self._declare_dns()
        self._declare_captures()
        self._declare_audit()
        self._declare_netd()
        self._declare_pressure()
        self._declare_processes()
        self._declare_build()

    def render(self) -> bytes:
        """All metrics in the Prometheus text format, version 0.0.4 (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)
