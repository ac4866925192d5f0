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
from aero_l2.observe.metrics import Metrics
from aero_l2.observe.metrics.host import CAPACITY_LIMITS
from aero_l2.quota.capacity import LIMITS
from aero_l2.session.closing import Reason

CONTRACT = {
    "counter": [
        "l2_sessions_total",
        "aero_l2_idle_timeouts_total",
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
        "l2_upgrade_ip_limit_exceeded_total",
        "l2_auth_failures_total",
        "l2_auth_reject_total",
        "l2_session_connection_denied_total",
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
    ],
    "gauge": ["l2_sessions_active", "l2_tcp_conns_active", "l2_udp_flows_active"],
    "histogram": ["l2_ping_rtt_ms"],
}
"""Names and types that existing dashboards know; what else begins with l2_ came before aero_l2_ did."""
BEFORE = {
    "l2_upgrade_reject_rate_limited_total",
    "l2_upgrade_reject_quota_bytes_total",
    "l2_session_cookies_issued_total",
    "l2_session_cookies_refused_total",
}
REASONS = ["missing_credentials", "invalid_api_key", "invalid_cookie", "invalid_jwt", "jwt_origin_mismatch"]


def exposed() -> dict[str, str]:
    lines = Metrics().render().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


def types() -> dict[str, str]:
    lines = Metrics().render().decode().splitlines()
    return dict(line.split()[2:4] for line in lines if line.startswith("# TYPE"))


def test_every_series_is_there_from_the_start_and_none_has_moved() -> None:
    assert all(float(value) == 0 for name, value in exposed().items() if "build_info" not in name)


def test_names_and_types_of_the_contract_are_there() -> None:
    found = types()
    for kind, names in CONTRACT.items():
        assert {name: found.get(name) for name in names} == dict.fromkeys(names, kind)
    ours = {name for name in found if not name.startswith("aero_l2_")}
    assert (
        ours
        == {name for names in CONTRACT.values() for name in names} - {"aero_l2_idle_timeouts_total"} | BEFORE
    )


def test_labels_of_the_contract() -> None:
    found = [name for name in exposed() if name.startswith("l2_auth_reject_total")]
    assert found == [f'l2_auth_reject_total{{reason="{reason}"}}' for reason in REASONS]


def test_close_reasons_are_those_of_the_table() -> None:
    reasons = [reason.value for reason in Reason]
    found = [name for name in exposed() if name.startswith("aero_l2_sessions_closed_total")]
    assert found == [f'aero_l2_sessions_closed_total{{reason="{reason}"}}' for reason in reasons]


def test_limits_are_those_of_the_capacity() -> None:
    assert CAPACITY_LIMITS == LIMITS


def test_switched_off_nothing_is_declared_and_everything_can_be_called() -> None:
    metrics = Metrics(is_on=False)
    metrics.frames_rx.value += 3
    metrics.sessions_active.dec()
    metrics.setup_seconds["turn"].observe(1)
    metrics.dropped_rx["rate"].inc()
    metrics.netd_request("create", "ok", 1.0)
    metrics.ready.set_function(lambda: 1)
    metrics.describe_build("1", "2", "3")
    assert metrics.render() == b""


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
    assert (theirs["event"], theirs["text"], theirs["level"]) == ("library says", "theirs 4", "warning")
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
