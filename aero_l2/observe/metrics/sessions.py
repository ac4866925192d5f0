"""Metrics of tunnels: how many, how they are set up, and why they end."""

from __future__ import annotations

from typing import Final

from aero_l2.observe.metrics.declaring import Declarer

PING_BUCKETS_MS: Final = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500)
SETUP_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

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

NETD_STEPS: Final = ("queue", "namespace", "taps", "rules", "sockets", "nat_start")
"""Those of `netns.messages.STEPS`."""
SETUP_STEPS: Final = ("turn", "lookup", "netd", *NETD_STEPS, "services", "total", "nat_ready")
SHED_REASONS: Final = ("setups", "lag", "room", "failed", "shutdown")


class SessionMetrics(Declarer):
    """Of tunnels as such."""

    def _declare_sessions(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.sessions_active = gauge("l2_sessions_active", "Tunnels that are open.")
        self.sessions = counter("l2_sessions_total", "Tunnels opened.")
        self.sessions_closed = self._counters(
            "aero_l2_sessions_closed_total", "Tunnels that ended, by reason.", "reason", CLOSE_REASONS
        )
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
        self.sessions_kept = gauge(
            "aero_l2_sessions_kept", "Tunnels that wait for their client to come back."
        )
        self.resumes = self._counters(
            "aero_l2_resumes_total",
            "Clients that came back for a tunnel, by what became of it.",
            "result",
            RESUME_RESULTS,
        )
        self.ping_rtt_ms = self._histogram(
            "l2_ping_rtt_ms", "Time from a PING to its PONG, in milliseconds.", PING_BUCKETS_MS
        )

    def _declare_setups(self) -> None:
        self.setups_active = self._gauge("aero_l2_setups_active", "Tunnels that are being set up.")
        self.setups_waiting = self._gauge("aero_l2_setups_waiting", "Tunnels that wait to be set up.")
        self.setup_seconds = self._histograms(
            "aero_l2_setup_seconds",
            "Time that each step of setting a tunnel up took: turn waits for others; lookup resolves the "
            "targets of forwards; netd is from the request to the network helper to its answer, and within "
            "it queue waits for a thread, namespace makes it, taps both interfaces, rules applies nftables "
            "and configures the interfaces beside it, sockets opens them inside, nat_start starts "
            "slirp4netns; services starts DHCP and DNS; total is from the admitted upgrade to its 101; "
            "nat_ready from netd's answer until slirp4netns reads packets, behind the 101 mostly.",
            "step",
            SETUP_STEPS,
            SETUP_BUCKETS_S,
        )
        self.upgrades_shed = self._counters(
            "aero_l2_upgrades_shed_total",
            "Upgrades answered 503, none of which counts as rejected: too many set-ups, lag of the loop, no "
            "room on the host, the tunnel failed to be made (the network helper, for one), shutdown.",
            "reason",
            SHED_REASONS,
        )
