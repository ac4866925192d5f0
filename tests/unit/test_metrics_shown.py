"""Every metric has a test that moves it, by a real client or guest, and compares by how much."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from aero_l2.observe.metrics import Metrics

TREE = Path(__file__).parents[2]
EXACT = "tests/integration/test_metrics_exact.py::"
DOOR = "tests/integration/test_metrics_door.py::"
LIMITS = "tests/integration/test_metrics_limits.py::"
PROCESSES = EXACT + "test_requests_to_netd_by_kind_and_what_processes_use"
CREDENTIALS = DOOR + "test_credentials_origin_and_host"
CAPTURES = "tests/integration/test_capture.py"
SHOWN = {
    "l2_sessions_active": EXACT + "test_tunnel_is_counted_with_each_step_of_its_making",
    "l2_sessions": EXACT + "test_tunnel_is_counted_with_each_step_of_its_making",
    "aero_l2_sessions_closed": EXACT + "test_frame_rate_and_idle_ends",
    "aero_l2_idle_timeouts": EXACT + "test_frame_rate_and_idle_ends",
    "l2_sessions_closed_quota_bytes": EXACT + "test_byte_quota_ends_a_tunnel_and_loses_what_is_beyond_it",
    "l2_sessions_closed_quota_fps": EXACT + "test_frame_rate_and_idle_ends",
    "l2_sessions_closed_backpressure": EXACT + "test_client_that_takes_nothing_is_closed_for_backpressure",
    "aero_l2_sessions_kept": EXACT + "test_kept_tunnels_and_clients_that_come_back",
    "aero_l2_resumes": EXACT + "test_kept_tunnels_and_clients_that_come_back",
    "l2_ping_rtt_ms": EXACT + "test_pings_that_are_answered_are_timed",
    "aero_l2_setups_active": EXACT + "test_setups_that_wait_and_netd_that_is_silent",
    "aero_l2_setups_waiting": EXACT + "test_setups_that_wait_and_netd_that_is_silent",
    "aero_l2_setup_seconds": EXACT + "test_tunnel_is_counted_with_each_step_of_its_making",
    "aero_l2_upgrades_shed": DOOR + "test_what_is_shed_and_readiness",
    "l2_upgrade_rejected": CREDENTIALS,
    "l2_upgrade_reject_origin_missing": CREDENTIALS,
    "l2_upgrade_reject_origin_not_allowed": CREDENTIALS,
    "l2_upgrade_reject_host_missing": CREDENTIALS,
    "l2_upgrade_reject_host_invalid": CREDENTIALS,
    "l2_upgrade_reject_host_not_allowed": CREDENTIALS,
    "l2_upgrade_reject_auth_missing": CREDENTIALS,
    "l2_upgrade_reject_auth_invalid": CREDENTIALS,
    "l2_upgrade_reject_max_connections": DOOR + "test_limits_of_tunnels",
    "l2_upgrade_reject_max_connections_per_session": DOOR + "test_cookies_jwts_and_tunnels_of_a_session",
    "l2_upgrade_reject_max_tunnels_per_session": DOOR + "test_cookies_jwts_and_tunnels_of_a_session",
    "l2_upgrade_reject_rate_limited": DOOR + "test_limits_of_tunnels",
    "l2_upgrade_reject_quota_bytes": DOOR + "test_hour_of_a_principal",
    "l2_upgrade_ip_limit_exceeded": DOOR + "test_limits_of_tunnels",
    "l2_auth_failures": CREDENTIALS,
    "l2_auth_reject": DOOR + "test_cookies_jwts_and_tunnels_of_a_session",
    "l2_session_connection_denied": DOOR + "test_cookies_jwts_and_tunnels_of_a_session",
    "l2_session_cookies_issued": DOOR + "test_cookies_that_are_issued_and_refused",
    "l2_session_cookies_refused": DOOR + "test_cookies_that_are_issued_and_refused",
    "l2_frames_rx": EXACT + "test_frames_and_bytes_both_ways",
    "l2_frames_tx": EXACT + "test_frames_and_bytes_both_ways",
    "l2_bytes_rx": EXACT + "test_frames_and_bytes_both_ways",
    "l2_bytes_tx": EXACT + "test_frames_and_bytes_both_ways",
    "aero_l2_frames_dropped": EXACT + "test_frames_before_the_nat_process_is_there",
    "l2_frames_dropped": EXACT + "test_frames_before_the_nat_process_is_there",
    "l2_tcp_conns_active": EXACT + "test_flows_and_limits_of_them",
    "l2_udp_flows_active": EXACT + "test_flows_and_limits_of_them",
    "l2_tcp_connect_fail": EXACT + "test_connects_and_datagrams_that_fail",
    "aero_l2_tcp_connections_reset": "tests/integration/test_tcp_memory.py",
    "l2_udp_send_fail": EXACT + "test_connects_and_datagrams_that_fail",
    "l2_udp_flow_limit_exceeded": EXACT + "test_flows_and_limits_of_them",
    "aero_l2_policy_denied": EXACT + "test_each_rule_of_the_policy_counts_its_own_packets",
    "l2_policy_denied": EXACT + "test_each_rule_of_the_policy_counts_its_own_packets",
    "aero_l2_packets_limited": LIMITS + "test_limit_counts_the_same_as_refused_and_as_lost",
    "aero_l2_packets_ignored": EXACT + "test_packets_that_are_neither_refused_nor_lost",
    "l2_dns_queries": EXACT + "test_dns_by_outcome",
    "l2_dns_fail": EXACT + "test_dns_by_outcome",
    "aero_l2_dns_answers": EXACT + "test_dns_by_outcome",
    "aero_l2_dns_pending": EXACT + "test_question_that_is_under_way_is_shared_and_its_time_out_counts_once",
    "aero_l2_dns_cache_lookups": EXACT + "test_dns_by_outcome",
    "aero_l2_dns_upstream_seconds": EXACT + "test_dns_by_outcome",
    "aero_l2_dns_upstream_failures": EXACT + "test_resolver_that_is_not_there_is_unreachable",
    "l2_capture_bytes": CAPTURES,
    "l2_capture_frames": CAPTURES,
    "l2_capture_frames_dropped": CAPTURES,
    "aero_l2_capture_frames_dropped": CAPTURES,
    "l2_capture_errors": "tests/integration/test_capture_faults.py",
    "aero_l2_audit_lines": "tests/integration/test_audit_log.py",
    "aero_l2_audit_lines_lost": "tests/integration/test_audit_log.py",
    "aero_l2_audit_errors": "tests/integration/test_audit_log.py",
    "aero_l2_netd_requests": PROCESSES,
    "aero_l2_netd_request_seconds": PROCESSES,
    "aero_l2_ready": DOOR + "test_what_is_shed_and_readiness",
    "aero_l2_capacity_tunnels": "tests/integration/test_pressure.py",
    "aero_l2_capacity_max": EXACT + "test_capacity_and_what_is_used_of_it",
    "aero_l2_capacity_used": EXACT + "test_capacity_and_what_is_used_of_it",
    "aero_l2_loop_lag_seconds": EXACT + "test_capacity_and_what_is_used_of_it",
    "aero_l2_python_blocks": "tests/integration/test_metrics.py",
    "aero_l2_process_cpu_seconds": PROCESSES,
    "aero_l2_processes": PROCESSES,
    "aero_l2_process_resident_memory_bytes": PROCESSES,
    "aero_l2_process_open_fds": PROCESSES,
    "aero_l2_process_max_fds": PROCESSES,
    "aero_l2_process_threads": PROCESSES,
    "aero_l2_process_start_time_seconds": PROCESSES,
    "aero_l2_build_info": EXACT + "test_capacity_and_what_is_used_of_it",
}
MADE_UP_FROM = ("reject(", "unauthorized(", "denied(", "lost(", "answers(", "limited(", "cache(", "request(")
"""What tests write names by."""


def test_every_metric_is_in_the_table_and_none_twice() -> None:
    declared = {family.name for family in Metrics().registry.collect()}
    assert set(SHOWN) == declared


@pytest.mark.parametrize(("name", "test_id"), SHOWN.items())
def test_the_test_exists_and_speaks_of_it(name: str, test_id: str) -> None:
    file, _, test = test_id.partition("::")
    source = (TREE / file).read_text()
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.AsyncFunctionDef)]
    if test:
        (function,) = [node for node in functions if node.name == test]
        first = min([function.lineno, *(node.lineno for node in function.decorator_list)])
        body = "\n".join(source.splitlines()[first - 1 : function.end_lineno])
        assert name in body or any(made in body for made in MADE_UP_FROM)
    words = name.removeprefix("l2_upgrade_reject_")
    assert name in source or words in source
