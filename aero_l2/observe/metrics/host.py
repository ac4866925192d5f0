"""Metrics of the process and its helpers, and of what the host has for them."""

from __future__ import annotations

import platform
from typing import Final

from prometheus_client import Gauge

from aero_l2.observe.metrics.declaring import Declarer

LAG_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
NETD_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 15.0)
CAPACITY_LIMITS: Final = ("setting", "files", "pids", "memory", "conntrack", "ports", "tcp")
NETD_RESULTS: Final = {
    **dict.fromkeys(
        ("create", "counters", "flows", "open"), ("ok", "refused", "timeout", "lost", "cancelled")
    ),
    "check": ("ok", "timeout", "lost", "cancelled"),
    **dict.fromkeys(("adopt", "release"), ("sent", "lost")),
}
"""What became of each kind of request to the network helper; the last two kinds are not answered."""
BUILD_LABELS: Final = ("version", "git_sha", "built_at", "python")
PROCESSES: Final = ("launch", "netd", "server", "nat")


class HostMetrics(Declarer):
    """Of what tunnels are made by, and of."""

    def _declare_pressure(self) -> None:
        self.ready = self._gauge("aero_l2_ready", "1 where /readyz answers 200, 0 where 503.")
        self.capacity_tunnels = self._gauges(
            "aero_l2_capacity_tunnels",
            "Tunnels at once that each limit allows; the smallest binds.",
            "limit",
            CAPACITY_LIMITS,
        )
        self.capacity_max = self._gauges(
            "aero_l2_capacity_max",
            "What there is of what limits tunnels, +Inf where nothing limits or tells: setting in tunnels, "
            "files in descriptors of the server, pids in processes, memory in bytes, conntrack in entries of "
            "the host, ports in UDP ports of the host, tcp in bytes of its memory for TCP.",
            "limit",
            CAPACITY_LIMITS,
        )
        self.capacity_used = self._gauges(
            "aero_l2_capacity_used",
            "What is in use of aero_l2_capacity_max, by whomever; 0 where nothing limits or tells.",
            "limit",
            CAPACITY_LIMITS,
        )
        self.loop_lag_seconds = self._histogram(
            "aero_l2_loop_lag_seconds",
            "How late the event loop runs what is due, ten times a second.",
            LAG_BUCKETS_S,
        )
        self.python_blocks = self._gauge(
            "aero_l2_python_blocks", "Memory blocks in use by Python objects of the server."
        )

    def _declare_netd(self) -> None:
        self.netd_requests = self._grid(
            "aero_l2_netd_requests_total",
            "Requests to the network helper by what became of them: ok, refused by it, timeout, lost "
            "because it was not there or went, cancelled by us; adopt and release are not answered, but "
            "sent; check asks whether it answers at all.",
            ("kind", "result"),
            NETD_RESULTS,
        )
        answered = [kind for kind, results in NETD_RESULTS.items() if "ok" in results]
        self.netd_request_seconds = self._histograms(
            "aero_l2_netd_request_seconds",
            "Time from a request to the network helper to its answer.",
            "kind",
            answered,
            NETD_BUCKETS_S,
        )

    def netd_request(self, kind: str, result: str, seconds: float | None) -> None:
        """Count a request to the network helper (`netns.account.Account`)."""
        self.netd_requests[kind][result].inc()
        if seconds is not None:
            self.netd_request_seconds[kind].observe(seconds)

    def _declare_processes(self) -> None:
        self.process_cpu_seconds = self._counters(
            "aero_l2_process_cpu_seconds_total",
            "Processor time used, user and system; nat: of all slirp4netns processes, ended ones included.",
            "process",
            PROCESSES,
        )
        self.processes = self._of_processes("aero_l2_processes", "Processes of this kind that run.")
        self.process_memory = self._of_processes(
            "aero_l2_process_resident_memory_bytes", "Memory that is in RAM; nat: of all together."
        )
        self.process_fds = self._of_processes(
            "aero_l2_process_open_fds", "File descriptors that are open; nat: of all together."
        )
        self.process_max_fds = self._of_processes(
            "aero_l2_process_max_fds", "File descriptors that may be open; nat: of all together."
        )
        self.process_threads = self._of_processes("aero_l2_process_threads", "Threads; nat: of all together.")
        self.process_start_time = self._of_processes(
            "aero_l2_process_start_time_seconds",
            "When it started, in seconds since 1970; nat: the oldest; 0 where there is none.",
        )

    def _of_processes(self, name: str, text: str) -> dict[str, Gauge]:
        return self._gauges(name, text, "process", PROCESSES)

    def _declare_build(self) -> None:
        self.build_info = self._made(
            Gauge, "aero_l2_build_info", "1; its labels say what runs here.", labelnames=BUILD_LABELS
        )

    def describe_build(self, version: str, git_sha: str, built_at: str) -> None:
        """Expose the build, as /version says it, and the interpreter; once."""
        self._child(self.build_info, version, git_sha, built_at, platform.python_version()).set(1)
