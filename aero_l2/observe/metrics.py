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

from aero_l2.observe.metrics_audit import AuditMetrics

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
PING_BUCKETS_MS: Final = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)
LAG_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
CAPACITY_LIMITS: Final = ("setting", "files", "pids", "memory", "conntrack", "ports", "tcp")
SHED_REASONS: Final = ("setups", "lag", "room", "failed", "shutdown")
AUTH_REJECT_REASONS: Final = (
    "missing_credentials",
    "invalid_api_key",
    "invalid_cookie",
    "invalid_jwt",
    "jwt_origin_mismatch",
)

CLOSE_REASONS: Final = (
    "malformed_message",
    "byte_quota",
    "hourly_byte_quota",
    "frame_rate_quota",
    "backpressure",
    "idle_timeout",
    "session_too_long",
    "session_expired",
    "shutdown",
    "tunnel_failed",
    "websocket_failed",
    "peer_closed",
    "peer_gone",
    "peer_silent",
    "not_resumed",
    "cut_off",
)
"""Names of `aero_l2.session.closing.Reason`, in small letters."""

RESUME_RESULTS: Final = ("resumed", "taken_over", "unknown")
"""Its tunnel was kept; its old WebSocket had not broken yet, for us; there was none for it, but a new one."""


class Metrics(AuditMetrics):
    """The metrics, one attribute each, named after the exposed name without `l2_` and `_total`."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._declare_sessions()
        self._declare_door()
        self._declare_pressure()
        self._declare_traffic()
        self.declare_audit(self.registry)

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
        closed = Counter(
            "aero_l2_sessions_closed_total",
            "Tunnels that ended, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.sessions_kept = gauge(
            "aero_l2_sessions_kept", "Tunnels that wait for their client to come back."
        )
        resumes = Counter(
            "aero_l2_resumes_total",
            "Clients that came back for a tunnel, by what became of it.",
            ["result"],
            registry=self.registry,
        )
        self.resumes = {result: resumes.labels(result) for result in RESUME_RESULTS}
        self.sessions_closed = {reason: closed.labels(reason) for reason in CLOSE_REASONS}
        self.ping_rtt_ms = Histogram(
            "l2_ping_rtt_ms",
            "Time from a PING to its PONG, in milliseconds.",
            registry=self.registry,
            buckets=PING_BUCKETS_MS,
        )

    def _declare_door(self) -> None:
        counter = self._counter
        self.upgrade_rejected = counter(
            "l2_upgrade_rejected_total",
            "Upgrades refused with 401, 403 or 429; a 503 counts in aero_l2_upgrades_shed_total.",
        )
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
        self.upgrade_reject_quota_bytes = self._reject("quota_bytes")
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

    def _declare_pressure(self) -> None:
        self.ready = self._gauge("aero_l2_ready", "1 where /readyz answers 200, 0 where 503.")
        capacity = Gauge(
            "aero_l2_capacity_tunnels",
            "Tunnels at once that each limit allows; the smallest binds.",
            ["limit"],
            registry=self.registry,
        )
        self.capacity_tunnels = {limit: capacity.labels(limit) for limit in CAPACITY_LIMITS}
        self.setups_active = self._gauge("aero_l2_setups_active", "Tunnels that are being set up.")
        self.setups_waiting = self._gauge("aero_l2_setups_waiting", "Tunnels that wait to be set up.")
        shed = Counter(
            "aero_l2_upgrades_shed_total",
            "Upgrades answered 503, none of which counts as rejected: too many set-ups, lag of the loop, no "
            "room on the host, the tunnel failed to be made (the network helper, for one), shutdown.",
            ["reason"],
            registry=self.registry,
        )
        self.upgrades_shed = {reason: shed.labels(reason) for reason in SHED_REASONS}
        self.loop_lag_seconds = Histogram(
            "aero_l2_loop_lag_seconds",
            "How late the event loop runs what is due, ten times a second.",
            registry=self.registry,
            buckets=LAG_BUCKETS_S,
        )
        self.python_blocks = self._gauge(
            "aero_l2_python_blocks", "Memory blocks in use by Python objects of the server."
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
        self.tcp_connections_reset = counter(
            "aero_l2_tcp_connections_reset_total", "TCP connections of guests reset for the memory they held."
        )
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
