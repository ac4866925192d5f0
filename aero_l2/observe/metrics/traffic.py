"""Metrics of what tunnels carry, and of what they do not."""

from __future__ import annotations

from typing import Final

from aero_l2.observe.metrics.declaring import Declarer

DROPPED_RX: Final = (
    "rate",
    "early_queue",
    "too_short",
    "tap",
    "queue",
    "limit_bytes",
    "limit_new_flows",
    "limit_server",
    "limit_fragments",
    "limit_dns",
)
DROPPED_TX: Final = ("too_long", "away", "quota", "queue", "limit_bytes", "limit_pings")
DENIED_REASONS: Final = (
    "spoofed",
    "martian",
    "gateway",
    "lan",
    "nat",
    "host",
    "prefix",
    "special",
    "port",
    "protocol",
    "stray",
    "name",
    "encrypted_dns",
    "query",
)
"""Those of `netns.ruleset.DENIED_COUNTERS`, and DNS queries."""
LIMITS: Final = (
    "fragments",
    "dns",
    "new_flows",
    "server",
    "pings",
    "tcp",
    "udp",
    "redirected_dns",
    "bytes",
)
"""Those of `netns.ruleset.LIMIT_COUNTERS`, and the bytes a second of `netns.shaping`."""
IGNORED_REASONS: Final = ("invalid", "ipv6", "icmp_errors")


CAPTURE_CAUSES: Final = ("size", "queue", "error")


class TrafficMetrics(Declarer):
    """Of frames, and of packets in the tunnels' namespaces."""

    def _declare_frames(self) -> None:
        plain = self._plain
        self.frames_rx = plain("l2_frames_rx_total", "Frames from guests.")
        self.frames_tx = plain("l2_frames_tx_total", "Frames to guests.")
        self.bytes_rx = plain("l2_bytes_rx_total", "Bytes of frames from guests.")
        self.bytes_tx = plain("l2_bytes_tx_total", "Bytes of frames to guests.")
        dropped = self._grid(
            "aero_l2_frames_dropped_total",
            "Frames lost, from guests (rx) or to them (tx), by cause: rate of frames a second, early_queue "
            "full before the NAT process was there, too_short for Ethernet, tap closed or full; too_long for "
            "the client, away because the client was, quota of bytes reached; by the kernel in the tunnel's "
            "namespace, queue full, limit_* exceeded.",
            ("direction", "cause"),
            {"rx": DROPPED_RX, "tx": DROPPED_TX},
        )
        self.dropped_rx, self.dropped_tx = dropped["rx"], dropped["tx"]
        self._sum(
            "l2_frames_dropped_total",
            "Frames lost: a full queue, a closed TAP, a limit, too short; the sum of "
            "aero_l2_frames_dropped_total.",
            [*self.dropped_rx.values(), *self.dropped_tx.values()],
        )

    def _declare_captures(self) -> None:
        counter = self._counter
        self.capture_bytes = counter("l2_capture_bytes_total", "Bytes of capture files.")
        self.capture_frames = counter("l2_capture_frames_total", "Frames captured.")
        self.capture_frames_dropped = self._counters(
            "aero_l2_capture_frames_dropped_total",
            "Frames not captured, by cause: beyond the largest size of a file, queue full before a disk that "
            "is too slow, error of the disk.",
            "cause",
            CAPTURE_CAUSES,
        )
        self._sum(
            "l2_capture_frames_dropped_total",
            "Frames not captured: the sum of aero_l2_capture_frames_dropped_total.",
            list(self.capture_frames_dropped.values()),
        )
        self.capture_errors = counter("l2_capture_errors_total", "Captures ended by an error.")

    def _declare_policy(self) -> None:
        self.policy_denied = self._counters(
            "aero_l2_policy_denied_total",
            "Packets and names that the policy denied, by the rule that did: the guest's address is spoofed; "
            "to a martian address, the gateway, the lan, the nat's network, the host, a denied prefix, a "
            "special-purpose prefix; a denied port or protocol; a stray segment of no connection; an address "
            "that no allowed name gave (name); encrypted_dns where names are judged; a DNS query for a name.",
            "reason",
            DENIED_REASONS,
        )
        self._sum(
            "l2_policy_denied_total",
            "Packets and names the policy denied; the sum of aero_l2_policy_denied_total.",
            [*self.policy_denied.values()],
        )
        self.packets_limited = self._counters(
            "aero_l2_packets_limited_total",
            "Packets that a limit refused, with an answer (tcp and udp flows, redirected_dns) or without one "
            "(those count in aero_l2_frames_dropped_total, too).",
            "limit",
            LIMITS,
        )
        self.packets_ignored = self._counters(
            "aero_l2_packets_ignored_total",
            "Packets of guests that are dropped without being a refusal or a loss: invalid for connection "
            "tracking, ipv6, icmp_errors about what they got.",
            "reason",
            IGNORED_REASONS,
        )

    def _declare_flows(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.tcp_conns_active = gauge("l2_tcp_conns_active", "TCP flows of all tunnels.")
        self.udp_flows_active = gauge("l2_udp_flows_active", "UDP flows of all tunnels.")
        self.tcp_connect_fail = counter("l2_tcp_connect_fail_total", "TCP connections that failed.")
        self.tcp_connections_reset = counter(
            "aero_l2_tcp_connections_reset_total", "TCP connections of guests reset for the memory they held."
        )
        self.udp_send_fail = counter("l2_udp_send_fail_total", "Datagrams answered by an ICMP error.")
        self.udp_flow_limit_exceeded = counter(
            "l2_udp_flow_limit_exceeded_total", "UDP flows refused for the limit per tunnel."
        )
