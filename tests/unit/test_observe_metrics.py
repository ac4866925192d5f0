"""The names dashboards rely on, all there from the start, and logs a machine can read."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from aero_l2.observe import log
from aero_l2.observe.audit.lines import KINDS
from aero_l2.observe.metrics import Metrics
from aero_l2.session.closing import Reason

COUNTERS = [
    "l2_sessions_total",
    "aero_l2_idle_timeouts_total",
    "aero_l2_tcp_connections_reset_total",
    "l2_sessions_closed_quota_bytes_total",
    "l2_sessions_closed_quota_fps_total",
    "l2_sessions_closed_backpressure_total",
    "l2_upgrade_rejected_total",
    "l2_upgrade_reject_origin_missing_total",
    "l2_upgrade_reject_origin_not_allowed_total",
    "l2_upgrade_reject_host_missing_total",
    "l2_upgrade_reject_host_invalid_total",
    "l2_upgrade_reject_host_not_allowed_total",
    "l2_upgrade_reject_auth_missing_total",
    "l2_upgrade_reject_auth_invalid_total",
    "l2_upgrade_reject_max_connections_total",
    "l2_upgrade_reject_max_connections_per_session_total",
    "l2_upgrade_reject_max_tunnels_per_session_total",
    "l2_upgrade_reject_rate_limited_total",
    "l2_upgrade_reject_quota_bytes_total",
    "l2_upgrade_ip_limit_exceeded_total",
    "l2_auth_failures_total",
    "l2_session_connection_denied_total",
    "l2_session_cookies_issued_total",
    "l2_session_cookies_refused_total",
    "l2_frames_rx_total",
    "l2_frames_tx_total",
    "l2_bytes_rx_total",
    "l2_bytes_tx_total",
    "l2_frames_dropped_total",
    "l2_capture_bytes_total",
    "l2_capture_frames_total",
    "l2_capture_frames_dropped_total",
    "l2_capture_errors_total",
    "l2_policy_denied_total",
    "l2_tcp_connect_fail_total",
    "l2_udp_send_fail_total",
    "l2_udp_flow_limit_exceeded_total",
    "l2_dns_queries_total",
    "l2_dns_fail_total",
    "aero_l2_audit_lines_lost_total",
    "aero_l2_audit_errors_total",
    *(f'aero_l2_audit_lines_total{{kind="{kind}"}}' for kind in KINDS),
    *(
        f'aero_l2_upgrades_shed_total{{reason="{reason}"}}'
        for reason in ("setups", "lag", "room", "failed", "shutdown")
    ),
]
LIMITS = ["setting", "files", "pids", "memory", "conntrack", "ports", "tcp"]
GAUGES = [
    *("l2_sessions_active", "aero_l2_sessions_kept", "l2_tcp_conns_active", "l2_udp_flows_active"),
    *("aero_l2_ready", "aero_l2_setups_active", "aero_l2_setups_waiting", "aero_l2_python_blocks"),
    *(f'aero_l2_capacity_tunnels{{limit="{limit}"}}' for limit in LIMITS),
]
CLOSINGS = [reason.name.lower() for reason in Reason]
RESUMES = ["resumed", "taken_over", "unknown"]
REASONS = ["missing_credentials", "invalid_api_key", "invalid_cookie", "invalid_jwt", "jwt_origin_mismatch"]


def exposed() -> dict[str, str]:
    lines = Metrics().render().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def test_every_metric_stands_at_zero_from_the_start() -> None:
    samples = exposed()
    labelled = [f'l2_auth_reject_total{{reason="{reason}"}}' for reason in REASONS]
    labelled += [f'aero_l2_sessions_closed_total{{reason="{reason}"}}' for reason in CLOSINGS]
    labelled += [f'aero_l2_resumes_total{{result="{result}"}}' for result in RESUMES]
    for name in COUNTERS + GAUGES + labelled:
        assert samples.pop(name) == "0.0"
    assert all(name.startswith(("l2_ping_rtt_ms", "aero_l2_loop_lag_seconds")) for name in samples)


def test_ping_buckets() -> None:
    buckets = [name.split('"')[1] for name in exposed() if name.startswith("l2_ping_rtt_ms_bucket")]
    assert [float(bucket) for bucket in buckets[:-1]] == [1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500]
    assert buckets[-1] == "+Inf"


def test_no_created_series() -> None:
    assert not any("_created" in name for name in exposed())


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def configured(stream: io.StringIO, level: str = "info") -> list[dict[str, Any]]:
    """Log a few lines, ours and the standard library's; what came out."""
    handlers, root_level = logging.getLogger().handlers, logging.getLogger().level
    try:
        log.configure(level, "auto", stream)
        structlog.get_logger("x").debug("fine")
        structlog.get_logger("x").info("ours", size=3)
        logging.getLogger("asyncio").warning("theirs %d", 4)
        try:
            raise ValueError("why")
        except ValueError:
            structlog.get_logger("x").exception("failed")
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers, logging.getLogger().level = handlers, root_level
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_are_json_off_a_terminal(stream: io.StringIO) -> None:
    ours, theirs, failed = configured(stream)
    assert (ours["event"], ours["level"], ours["size"]) == ("ours", "info", 3)
    assert (theirs["event"], theirs["level"]) == ("theirs 4", "warning")
    assert "ValueError: why" in failed["exception"]
    assert ours["timestamp"].endswith("Z")


def test_level_filters(stream: io.StringIO) -> None:
    assert [line["event"] for line in configured(stream, "error")] == ["failed"]


def on_console(stream: io.StringIO, act: Callable[[], None]) -> str:
    """What `act` logs in the form for terminals."""
    handlers = logging.getLogger().handlers
    try:
        log.configure("info", "console", stream)
        act()
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers = handlers
    return stream.getvalue()


def test_traceback_on_a_console_shows_no_local_variable(stream: io.StringIO) -> None:
    def fail(secret: str) -> None:
        raise ValueError(f"of {len(secret)} bytes")

    def act() -> None:
        try:
            fail("canary")
        except ValueError:
            structlog.get_logger("x").exception("failed")

    shown = on_console(stream, act)
    assert "ValueError: of 6 bytes" in shown
    assert "canary" not in shown.replace('fail("canary")', "")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("closed")])
def test_log_that_cannot_be_written_raises_nothing(error: Exception) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise error

        def flush(self) -> None:
            raise error

    on_console(Full(), lambda: structlog.get_logger("x").info("a line"))
