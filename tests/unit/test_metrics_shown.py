"""Each child of every metric has a test that moves it, by a real client or guest, and compares by how much.

What no guest can move, or not without moving more, is moved in a unit test; the table says why.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from aero_l2.observe.audit.lines import KINDS as AUDIT_KINDS
from aero_l2.observe.metrics import Metrics
from aero_l2.observe.metrics.host import CAPACITY_LIMITS, NETD_RESULTS, PROCESSES
from aero_l2.observe.metrics.sessions import SETUP_STEPS

TREE = Path(__file__).parents[2]
EXACT = "tests/integration/test_metrics_exact.py::"
MEMORY = "tests/integration/test_tcp_memory.py::test_what_a_silent_guest_does_not_take_is_bounded"
FAULTS = "tests/integration/test_capture_faults.py::"
METRICS_PY = "tests/integration/test_metrics.py::"
CAUSES = "tests/integration/test_metrics_causes.py::"
DOOR = "tests/integration/test_metrics_door.py::"
LIMITS = "tests/integration/test_metrics_limits.py::"
USED = EXACT + "test_requests_to_netd_by_kind_and_what_processes_use"
CREDENTIALS = DOOR + "test_credentials_origin_and_host"
COOKIES = DOOR + "test_cookies_jwts_and_tunnels_of_a_session"
CAPTURES = "tests/integration/test_capture.py::"
ENDS = CAUSES + "test_ends_of_tunnels_that_clients_and_their_nat_bring_about"
POLICY = EXACT + "test_each_rule_of_the_policy_counts_its_own_packets"
NAMES = EXACT + "test_names_that_policy_denies"
EARLY = EXACT + "test_frames_before_the_nat_process_is_there"
LIMIT = LIMITS + "test_limit_counts_the_same_as_refused_and_as_lost"
FLOWS = EXACT + "test_flows_and_limits_of_them"
KINDS = CAUSES + "test_dns_answers_of_every_kind"
NOBODY = CAUSES + "test_dns_questions_that_nobody_is_asked"
SETUP = EXACT + "test_tunnel_is_counted_with_each_step_of_its_making"
KEPT = EXACT + "test_kept_tunnels_and_clients_that_come_back"
CAPACITY = EXACT + "test_capacity_and_what_is_used_of_it"
ASKED = "test_each_question_is_counted_by_what_became_of_it"
ONLY_SENT = "test_what_is_only_sent_is_counted_as_sent_or_lost"
CLOSING = "tests/unit/test_session_closing.py::test_every_reason_is_seen_by_client_log_and_metrics"
PRESSURE = "tests/unit/test_door_pressure.py::"
ACCOUNT = "tests/unit/test_netns_account.py::"
AUDIT = (
    "tests/integration/test_audit.py::"
    "test_neither_payload_nor_secrets_are_in_any_line_and_every_kind_is_as_published"
)
AUDIT_FAILURES = (
    "tests/unit/test_observe_audit.py::test_lines_that_need_a_failure_or_an_end_are_counted_by_kind_too"
)
HOST = PRESSURE + "test_each_limit_of_the_host_is_shown_as_it_is"
WITHOUT_LABELS = {
    "l2_sessions_active": EXACT + "test_tunnel_is_counted_with_each_step_of_its_making",
    "l2_sessions": EXACT + "test_tunnel_is_counted_with_each_step_of_its_making",
    "aero_l2_idle_timeouts": EXACT + "test_frame_rate_and_idle_ends",
    "l2_sessions_closed_quota_bytes": EXACT + "test_byte_quota_ends_a_tunnel_and_loses_what_is_beyond_it",
    "l2_sessions_closed_quota_fps": EXACT + "test_frame_rate_and_idle_ends",
    "l2_sessions_closed_backpressure": EXACT + "test_client_that_takes_nothing_is_closed_for_backpressure",
    "aero_l2_sessions_kept": EXACT + "test_kept_tunnels_and_clients_that_come_back",
    "l2_ping_rtt_ms": EXACT + "test_pings_that_are_answered_are_timed",
    "aero_l2_setups_active": EXACT + "test_setups_that_wait_and_netd_that_is_silent",
    "aero_l2_setups_waiting": EXACT + "test_setups_that_wait_and_netd_that_is_silent",
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
    "l2_session_connection_denied": DOOR + "test_cookies_jwts_and_tunnels_of_a_session",
    "l2_session_cookies_issued": DOOR + "test_cookies_that_are_issued_and_refused",
    "l2_session_cookies_refused": DOOR + "test_cookies_that_are_issued_and_refused",
    "l2_frames_rx": EXACT + "test_frames_and_bytes_both_ways",
    "l2_frames_tx": EXACT + "test_frames_and_bytes_both_ways",
    "l2_bytes_rx": EXACT + "test_frames_and_bytes_both_ways",
    "l2_bytes_tx": EXACT + "test_frames_and_bytes_both_ways",
    "l2_frames_dropped": EXACT + "test_frames_before_the_nat_process_is_there",
    "l2_tcp_conns_active": EXACT + "test_flows_and_limits_of_them",
    "l2_udp_flows_active": EXACT + "test_flows_and_limits_of_them",
    "l2_tcp_connect_fail": EXACT + "test_connects_and_datagrams_that_fail",
    "aero_l2_tcp_connections_reset": MEMORY,  # at least those that the guest found reset
    "l2_udp_send_fail": EXACT + "test_connects_and_datagrams_that_fail",
    "l2_udp_flow_limit_exceeded": EXACT + "test_flows_and_limits_of_them",
    "l2_policy_denied": EXACT + "test_each_rule_of_the_policy_counts_its_own_packets",
    "l2_dns_queries": EXACT + "test_dns_by_outcome",
    "l2_dns_fail": EXACT + "test_dns_by_outcome",
    "aero_l2_dns_pending": EXACT + "test_question_that_is_under_way_is_shared_and_its_time_out_counts_once",
    "aero_l2_dns_upstream_seconds": EXACT + "test_dns_by_outcome",
    "l2_capture_bytes": CAPTURES + "test_every_frame_both_ways_is_in_a_file_that_others_read",
    "l2_capture_frames": CAPTURES + "test_every_frame_both_ways_is_in_a_file_that_others_read",
    "l2_capture_frames_dropped": CAPTURES + "test_size_has_a_cap_and_what_is_beyond_is_counted",
    "l2_capture_errors": FAULTS + "test_a_full_disk_ends_the_capture_and_not_the_tunnel",
    "aero_l2_audit_lines_lost": AUDIT_FAILURES,
    "aero_l2_audit_errors": AUDIT_FAILURES,
    "aero_l2_ready": DOOR + "test_what_is_shed_and_readiness",
    "aero_l2_loop_lag_seconds": EXACT + "test_capacity_and_what_is_used_of_it",
    "aero_l2_python_blocks": METRICS_PY + "test_blocks_of_python_objects_follow_what_is_alive",
}
CHILDREN = {
    "aero_l2_capture_frames_dropped": {
        "size": CAPTURES + "test_size_has_a_cap_and_what_is_beyond_is_counted",
        "queue": FAULTS + "test_a_disk_that_does_not_answer_holds_nobody_up",
        "error": "tests/unit/test_session_capturing.py::"
        "test_a_capture_that_fails_late_does_not_end_the_next_one",
    },
    "aero_l2_sessions_closed": {
        **dict.fromkeys(("malformed_message", "peer_gone", "websocket_failed", "tunnel_failed"), ENDS),
        **dict.fromkeys(("frame_rate_quota", "idle_timeout"), EXACT + "test_frame_rate_and_idle_ends"),
        "byte_quota": EXACT + "test_byte_quota_ends_a_tunnel_and_loses_what_is_beyond_it",
        "hourly_byte_quota": DOOR + "test_hour_of_a_principal",
        "backpressure": EXACT + "test_client_that_takes_nothing_is_closed_for_backpressure",
        "peer_closed": SETUP,
        # Over real sockets; the tunnel's namespace is played. After cut_off nobody is left to be scraped.
        **dict.fromkeys(("session_too_long", "session_expired", "kicked", "shutdown"), CLOSING),
        **dict.fromkeys(("peer_silent", "not_resumed", "cut_off"), CLOSING),
    },
    "aero_l2_resumes": dict.fromkeys(("resumed", "taken_over", "unknown"), KEPT),
    "aero_l2_setup_seconds": dict.fromkeys(SETUP_STEPS, SETUP),
    "aero_l2_upgrades_shed": {
        "failed": CAUSES + "test_set_ups_that_fail_by_what_became_of_them",
        "shutdown": DOOR + "test_what_is_shed_and_readiness",
        # Over real sockets; the host's room and the loop's lag are played.
        "setups": PRESSURE + "test_upgrade_beyond_those_that_wait_is_503_with_retry_after",
        "lag": PRESSURE + "test_upgrades_are_refused_while_the_loop_is_late_and_taken_again_after",
        "room": PRESSURE + "test_host_without_memory_for_one_more_says_so",
    },
    "l2_auth_reject": {
        **dict.fromkeys(("missing_credentials", "invalid_api_key"), CREDENTIALS),
        **dict.fromkeys(("invalid_cookie", "invalid_jwt", "jwt_origin_mismatch"), COOKIES),
    },
    "aero_l2_frames_dropped": {
        "rx early_queue": EARLY,
        "rx tap": EARLY,
        "rx too_short": EXACT + "test_frames_that_are_too_short_and_too_fast",
        "rx rate": CAUSES + "test_frames_beyond_the_rate_are_those_that_are_not_answered",
        "tx too_long": CAUSES + "test_frames_that_are_too_long_for_the_client",
        "tx away": CAUSES + "test_frames_for_a_client_that_is_away",
        "tx quota": EXACT + "test_byte_quota_ends_a_tunnel_and_loses_what_is_beyond_it",
        # How much a rate lets pass is a matter of time: compared with the refusals that nft counted.
        **dict.fromkeys(
            (f"rx limit_{limit}" for limit in ("new_flows", "server", "fragments", "dns")), LIMIT
        ),
        **dict.fromkeys(("rx limit_bytes", "tx limit_bytes", "tx limit_pings"), LIMIT),
        "tx queue": LIMITS + "test_what_a_client_does_not_take_is_lost_in_the_queue_to_it",
        "rx queue": CAUSES + "test_packets_that_do_not_fit_before_a_nat_process_that_is_held_up",
    },
    "aero_l2_policy_denied": {
        **dict.fromkeys(("spoofed", "martian", "gateway", "lan", "nat", "host", "prefix", "special"), POLICY),
        **dict.fromkeys(("port", "protocol", "stray"), POLICY),
        **dict.fromkeys(("query", "name", "encrypted_dns"), NAMES),
    },
    "aero_l2_packets_limited": {
        **dict.fromkeys(("tcp", "udp"), FLOWS),
        **dict.fromkeys(
            ("fragments", "dns", "new_flows", "server", "pings", "redirected_dns", "bytes"), LIMIT
        ),
    },
    "aero_l2_packets_ignored": {
        "invalid": CAUSES + "test_packets_that_connection_tracking_finds_invalid",
        **dict.fromkeys(("ipv6", "icmp_errors"), EXACT + "test_packets_that_are_neither_refused_nor_lost"),
    },
    "aero_l2_dns_answers": {
        **dict.fromkeys(("noerror", "nxdomain"), EXACT + "test_dns_by_outcome"),
        **dict.fromkeys(("formerr", "servfail", "notimp", "refused", "other"), KINDS),
    },
    "aero_l2_dns_cache_lookups": {
        **dict.fromkeys(("hit", "miss"), EXACT + "test_dns_by_outcome"),
        "shared": EXACT + "test_question_that_is_under_way_is_shared_and_its_time_out_counts_once",
    },
    "aero_l2_dns_upstream_failures": {
        "rcode": EXACT + "test_dns_by_outcome",
        "timeout": EXACT + "test_question_that_is_under_way_is_shared_and_its_time_out_counts_once",
        "unreachable": EXACT + "test_resolver_that_is_not_there_is_unreachable",
        "malformed": KINDS,
        **dict.fromkeys(("no_server", "too_many"), NOBODY),
    },
    "aero_l2_audit_lines": {
        **dict.fromkeys(set(AUDIT_KINDS) - {"lost", "incomplete", "log_close"}, AUDIT),
        # What needs a failure, and what is written when nobody is left to be scraped.
        **dict.fromkeys(("lost", "incomplete", "log_close"), AUDIT_FAILURES),
    },
    # The proxy asks of its own accord, so only a played netd sees each request for itself.
    "aero_l2_netd_requests": {
        f"{kind} {result}": ACCOUNT + (ONLY_SENT if "sent" in results else ASKED)
        for kind, results in NETD_RESULTS.items()
        for result in results
    },
    "aero_l2_netd_request_seconds": {
        kind: ACCOUNT + ASKED for kind, results in NETD_RESULTS.items() if "ok" in results
    },
    # What the host has is no guest's doing: it is played, but for the server's own files.
    "aero_l2_capacity_tunnels": dict.fromkeys(CAPACITY_LIMITS, HOST),
    "aero_l2_capacity_max": {**dict.fromkeys(CAPACITY_LIMITS, HOST), "files": CAPACITY},
    "aero_l2_capacity_used": {**dict.fromkeys(CAPACITY_LIMITS, HOST), "files": CAPACITY},
    "aero_l2_processes": dict.fromkeys(PROCESSES, USED),
    "aero_l2_process_cpu_seconds": dict.fromkeys(PROCESSES, USED),
    "aero_l2_process_resident_memory_bytes": dict.fromkeys(PROCESSES, USED),
    "aero_l2_process_open_fds": dict.fromkeys(PROCESSES, USED),
    "aero_l2_process_max_fds": dict.fromkeys(PROCESSES, USED),
    "aero_l2_process_threads": dict.fromkeys(PROCESSES, USED),
    "aero_l2_process_start_time_seconds": dict.fromkeys(PROCESSES, USED),
}
"""Of each metric with labels: for the values of one child, in the order of their declaration, its test."""
FIXED_LISTS = {*SETUP_STEPS, *AUDIT_KINDS, *CAPACITY_LIMITS, *PROCESSES, *NETD_RESULTS, "ok", "sent", "lost"}
"""Values that a test may take from the list of the program, all of them."""


def children() -> set[tuple[str, str]]:
    """Every child of every metric: its name and the values of its labels, "" without labels."""
    found = set()
    for metric, parent in zip(METRICS.registry.collect(), METRICS.collectors, strict=True):
        names = getattr(parent, "_labelnames", ())
        if metric.name != "aero_l2_build_info":
            samples = [sample.labels for sample in metric.samples] if names else [{}]
            found |= {(metric.name, " ".join(labels[name] for name in names)) for labels in samples}
    return found


BOUNDED = {
    WITHOUT_LABELS["aero_l2_python_blocks"],  # the interpreter's business: more with tunnels, no more after
}
"""Tests that can only say between what bounds a number is."""
METRICS = Metrics()
SHOWN = {
    **{(name, ""): test for name, test in WITHOUT_LABELS.items()},
    **{(name, values): test for name, tests in CHILDREN.items() for values, test in tests.items()},
}


def test_every_child_of_every_metric_is_in_the_table_and_none_else() -> None:
    assert set(SHOWN) == children()


class Source:
    """A test, and all of its file that it uses: strings, attributes, names, and how it compares."""

    def __init__(self, test_id: str) -> None:
        file, _, wanted = test_id.partition("::")
        tree = ast.parse((TREE / file).read_text())
        self._known = {name: node for node in tree.body for name in _defines(node)}
        assert wanted in self._known, f"there is no {test_id}"
        self.words: set[str] = set()
        self.is_exact = False
        self._seen: set[str] = set()
        self._take(wanted)

    def _take(self, name: str) -> None:
        if name in self._seen or name not in self._known:
            return
        self._seen.add(name)
        for node in ast.walk(self._known[name]):
            self._look(node)

    def _look(self, node: ast.AST) -> None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            self.words |= {node.value, *re.findall(r"\w+", node.value)}
        elif isinstance(node, ast.Attribute):
            self.is_exact |= node.attr == "exactly"
            self.words |= {node.attr, node.attr.lower()}
        elif isinstance(node, ast.Name):
            self._take(node.id)
            self.words.add(node.id)
        elif isinstance(node, ast.Compare):
            self.is_exact |= any(isinstance(op, ast.Eq) for op in node.ops)
        elif isinstance(node, ast.arg):
            self._take(node.arg)  # a fixture of the file

    def names(self, metric: str) -> bool:
        """Whether it speaks of a metric, by its name or by a name that is put together from two parts."""
        exposed = {metric, f"{metric}_total", f"{metric}_count"}
        if exposed & self.words or METRIC_ATTRIBUTES.get(metric) in self.words:
            return True
        parts = [word for word in self.words if word.endswith("_") and metric.startswith(word)]
        return any(metric.removeprefix(part) in self.words for part in parts)


METRIC_ATTRIBUTES = {"aero_l2_netd_requests": "netd_requests"}


def _defines(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        named = [name for target in node.targets for name in ast.walk(target)]
        return [name.id for name in named if isinstance(name, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


@pytest.mark.parametrize("test_id", sorted(set(SHOWN.values())))
def test_the_test_is_there_and_speaks_of_what_it_is_said_to_show(test_id: str) -> None:
    """The metric and the label's value must be words of the test or of what it uses in its file, and it must
    compare for equality."""
    source = Source(test_id)
    assert source.is_exact != (test_id in BOUNDED)
    for (metric, values), test in SHOWN.items():
        if test == test_id:
            assert source.names(metric), metric
            missing = set(values.split()) - source.words - FIXED_LISTS
            assert not missing, f"{metric}: {missing}"


def test_wrong_rows_would_be_found() -> None:
    source = Source(NAMES)
    assert source.names("aero_l2_policy_denied")
    assert not source.names("aero_l2_dns_cache_lookups")
    assert {"query", "name", "encrypted_dns"} <= source.words
    assert not {"spoofed", "stray", "shared", "early_queue"} & source.words
    with pytest.raises(AssertionError, match="there is no"):
        Source(EXACT + "test_that_nobody_wrote")
