"""Every metric of the program, declared once, in a registry of its own.

Counters stand at 0 from the start and labelled children are made here, so that counting costs one call
(docs/SPECIFICATION.md lists the names, which dashboards rely on, and says which of them move yet).
"""

from __future__ import annotations

from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
PING_BUCKETS_MS: Final = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)
AUTH_REJECT_REASONS: Final = (
    "missing_credentials",
    "invalid_api_key",
    "invalid_cookie",
    "invalid_jwt",
    "jwt_origin_mismatch",
)


class Metrics:
    """The metrics, one attribute each, named after the exposed name without `l2_` and `_total`."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._declare_sessions()
        self._declare_door()
        self._declare_traffic()

    def _declare_sessions(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.sessions_active = gauge("l2_sessions_active", "Tunnels that are open.")
        self.tcp_conns_active = gauge("l2_tcp_conns_active", "TCP flows of all tunnels.")
        self.udp_flows_active = gauge("l2_udp_flows_active", "UDP flows of all tunnels.")
        self.sessions = counter("l2_sessions_total", "Tunnels opened.")
        self.idle_timeouts = counter("aero_l2_idle_timeouts_total", "Tunnels closed for being idle.")
        self.sessions_closed_quota_bytes = counter(
            "l2_sessions_closed_quota_bytes_total", "Tunnels closed for their byte quota."
        )
        self.sessions_closed_quota_fps = counter(
            "l2_sessions_closed_quota_fps_total", "Tunnels closed for their frame rate quota."
        )
        self.sessions_closed_backpressure = counter(
            "l2_sessions_closed_backpressure_total", "Tunnels closed because the client took nothing."
        )
        self.ping_rtt_ms = Histogram(
            "l2_ping_rtt_ms",
            "Time from a PING to its PONG, in milliseconds.",
            registry=self.registry,
            buckets=PING_BUCKETS_MS,
        )

    def _declare_door(self) -> None:
        counter = self._counter
        self.upgrade_rejected = counter("l2_upgrade_rejected_total", "Upgrades refused.")
        self.upgrade_reject_origin_missing = self._reject("origin_missing")
        self.upgrade_reject_origin_not_allowed = self._reject("origin_not_allowed")
        self.upgrade_reject_host_missing = self._reject("host_missing")
        self.upgrade_reject_host_invalid = self._reject("host_invalid")
        self.upgrade_reject_host_not_allowed = self._reject("host_not_allowed")
        self.upgrade_reject_auth_missing = self._reject("auth_missing")
        self.upgrade_reject_auth_invalid = self._reject("auth_invalid")
        self.upgrade_reject_max_connections = self._reject("max_connections")
        self.upgrade_reject_max_connections_per_session = self._reject("max_connections_per_session")
        self.upgrade_reject_max_tunnels_per_session = self._reject("max_tunnels_per_session")
        self.upgrade_reject_rate_limited = self._reject("rate_limited")
        self.upgrade_ip_limit_exceeded = counter(
            "l2_upgrade_ip_limit_exceeded_total", "Upgrades refused for the limit per client address."
        )
        self.auth_failures = counter("l2_auth_failures_total", "Upgrades refused with 401.")
        auth_reject = Counter(
            "l2_auth_reject_total",
            "Upgrades refused with 401, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.auth_reject = {reason: auth_reject.labels(reason) for reason in AUTH_REJECT_REASONS}
        self.session_connection_denied = counter(
            "l2_session_connection_denied_total", "Upgrades refused for the limit per session principal."
        )

        self.session_cookies_issued = counter(
            "l2_session_cookies_issued_total", "Cookies that POST /session issued."
        )
        self.session_cookies_refused = counter(
            "l2_session_cookies_refused_total", "Requests for a cookie that were refused."
        )

    def _declare_traffic(self) -> None:
        counter = self._counter
        self.frames_rx = counter("l2_frames_rx_total", "Frames from guests.")
        self.frames_tx = counter("l2_frames_tx_total", "Frames to guests.")
        self.bytes_rx = counter("l2_bytes_rx_total", "Bytes of frames from guests.")
        self.bytes_tx = counter("l2_bytes_tx_total", "Bytes of frames to guests.")
        self.frames_dropped = counter(
            "l2_frames_dropped_total", "Frames lost: a full queue, a closed TAP, a limit, too short."
        )
        self.capture_bytes = counter("l2_capture_bytes_total", "Bytes of capture files.")
        self.capture_frames = counter("l2_capture_frames_total", "Frames captured.")
        self.capture_frames_dropped = counter("l2_capture_frames_dropped_total", "Frames not captured.")
        self.capture_errors = counter("l2_capture_errors_total", "Captures ended by an error.")
        self.policy_denied = counter("l2_policy_denied_total", "Packets and names the policy denied.")
        self.tcp_connect_fail = counter("l2_tcp_connect_fail_total", "TCP connections that failed.")
        self.udp_send_fail = counter("l2_udp_send_fail_total", "Datagrams answered by an ICMP error.")
        self.udp_flow_limit_exceeded = counter(
            "l2_udp_flow_limit_exceeded_total", "UDP flows refused for the limit per tunnel."
        )
        self.dns_queries = counter("l2_dns_queries_total", "DNS queries of guests.")
        self.dns_fail = counter("l2_dns_fail_total", "DNS queries that failed other than by policy.")

    def render(self) -> bytes:
        """All metrics in the Prometheus text format, version 0.0.4 (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def _reject(self, reason: str) -> Counter:
        return self._counter(f"l2_upgrade_reject_{reason}_total", f"Upgrades refused: {reason}.")
