"""The alert rules of deploy/prometheus: each fires when it should and not otherwise, as promtool judges."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from support.promtool import ALERTS, ROOT, alerts, promtool, samples, unknown

RULES = alerts()
SUMMARY_AT_MOST = 90


class Case(NamedTuple):
    """Series by name and labels, as promtool writes values (one a minute, for an hour)."""

    fires: dict[str, str]
    quiet: dict[str, str]


def histogram(name: str, fast: str, slow: str, *, good: float, bad: float, more: str = "") -> dict[str, str]:
    """Buckets in which so many observations take up to ``good`` seconds, and so many up to ``bad``."""
    return {
        f'{name}_bucket{{{more}le="{good}"}}': fast,
        f'{name}_bucket{{{more}le="{bad}"}}': slow,
        f'{name}_bucket{{{more}le="+Inf"}}': slow,
    }


def dropped(lost: str, frames: str) -> dict[str, str]:
    return {
        'aero_l2_frames_dropped_total{direction="tx",cause="queue"}': lost,
        'aero_l2_frames_dropped_total{direction="rx",cause="quota"}': "0+1000x60",
        "l2_frames_rx_total": frames,
        "l2_frames_tx_total": frames,
    }


def dns(failed: str, answered: str) -> dict[str, str]:
    return {
        'aero_l2_dns_upstream_failures_total{cause="timeout"}': failed,
        'aero_l2_dns_upstream_failures_total{cause="rcode"}': "0+1000x60",
        'aero_l2_dns_upstream_failures_total{cause="no_server"}': "0x60",
        "aero_l2_dns_upstream_seconds_count": answered,
    }


SHED = "aero_l2_upgrades_shed_total"
TOTAL = 'step="total",'
FULL = "l2_upgrade_reject_max_connections_total"
STARTED = "aero_l2_process_start_time_seconds"
CASES = {
    "AeroL2Down": Case({"up": "1x50 0x10"}, {"up": "1x58 0x0 1x10"}),
    "AeroL2NotReady": Case({"aero_l2_ready": "1x50 0x10"}, {"aero_l2_ready": "1x50 0x1 1x10"}),
    "AeroL2SetupsFail": Case(
        {f'{SHED}{{reason="failed"}}': "0x50 0+5x10"},
        {f'{SHED}{{reason="failed"}}': "0x50 1x10", f'{SHED}{{reason="shutdown"}}': "0+50x60"},
    ),
    "AeroL2Full": Case(
        {FULL: "0x60", f'{SHED}{{reason="room"}}': "0x50 0+5x10"},
        {FULL: "7x60", f'{SHED}{{reason="room"}}': "9x60"},
    ),
    "AeroL2Overloaded": Case(
        {f'{SHED}{{reason="lag"}}': "0+60x60"},
        {f'{SHED}{{reason="lag"}}': "0x40 0+60x5 300x20", f'{SHED}{{reason="room"}}': "0+60x60"},
    ),
    "AeroL2TunnelsFail": Case(
        {'aero_l2_sessions_closed_total{reason="tunnel_failed"}': "0x50 0+1x10"},
        {
            'aero_l2_sessions_closed_total{reason="tunnel_failed"}': "0x50 1x10",
            'aero_l2_sessions_closed_total{reason="peer_gone"}': "0+90x60",
        },
    ),
    "AeroL2CapacityLow": Case(
        {'aero_l2_capacity_used{limit="pids"}': "90x60", 'aero_l2_capacity_max{limit="pids"}': "100x60"},
        {
            'aero_l2_capacity_used{limit="pids"}': "50x60",
            'aero_l2_capacity_max{limit="pids"}': "100x60",
            'aero_l2_capacity_used{limit="tcp"}': "0x60",
            'aero_l2_capacity_max{limit="tcp"}': " ".join(["Inf"] * 61),
        },
    ),
    "AeroL2FileDescriptorsLow": Case(
        {
            'aero_l2_process_open_fds{process="netd"}': "900x60",
            'aero_l2_process_max_fds{process="netd"}': "1000x60",
        },
        {
            'aero_l2_process_open_fds{process="netd"}': "700x60",
            'aero_l2_process_max_fds{process="netd"}': "1000x60",
            'aero_l2_process_open_fds{process="nat"}': "900x60",
            'aero_l2_process_max_fds{process="nat"}': "1000x60",
        },
    ),
    "AeroL2MemoryGrows": Case(
        {
            'aero_l2_process_resident_memory_bytes{process="server"}': "400000000x60",
            "l2_sessions_active": "64x60",
        },
        {
            'aero_l2_process_resident_memory_bytes{process="server"}': "400000000x60",
            "l2_sessions_active": "500x60",
        },
    ),
    "AeroL2TcpMemory": Case(
        {"aero_l2_tcp_connections_reset_total": "0x55 0+1x5"},
        {"aero_l2_tcp_connections_reset_total": "0x20 0+1x5 5x40"},
    ),
    "AeroL2SetupsSlow": Case(
        histogram("aero_l2_setup_seconds", "0+50x60", "0+100x60", good=0.1, bad=2.0, more=TOTAL),
        histogram("aero_l2_setup_seconds", "0+100x60", "0+100x60", good=0.1, bad=2.0, more=TOTAL),
    ),
    "AeroL2LoopLag": Case(
        histogram("aero_l2_loop_lag_seconds", "0+90x60", "0+100x60", good=0.005, bad=1.0),
        histogram("aero_l2_loop_lag_seconds", "0+1000x60", "0+1001x60", good=0.005, bad=1.0),
    ),
    "AeroL2FramesDropped": Case(dropped("0+100x60", "0+1000x60"), dropped("0+1x60", "0+1000x60")),
    "AeroL2NetdFails": Case(
        {'aero_l2_netd_requests_total{kind="create",result="timeout"}': "0x50 0+5x10"},
        {
            'aero_l2_netd_requests_total{kind="create",result="timeout"}': "0x50 2x10",
            'aero_l2_netd_requests_total{kind="create",result="refused"}': "0+50x60",
        },
    ),
    "AeroL2Restarts": Case(
        {f'{STARTED}{{process="netd"}}': "1x40 2x5 3x20"},
        {f'{STARTED}{{process="netd"}}': "1x40 0x1 2x20", f'{STARTED}{{process="nat"}}': "0+1x60"},
    ),
    "AeroL2DnsFails": Case(dns("0+60x60", "0+6x60"), dns("0+6x60", "0+60x60")),
    "AeroL2DnsSlow": Case(
        histogram("aero_l2_dns_upstream_seconds", "0+50x60", "0+100x60", good=0.1, bad=2.0),
        histogram("aero_l2_dns_upstream_seconds", "0+95x60", "0+100x60", good=0.1, bad=2.0),
    ),
    "AeroL2AuthFailures": Case(
        {"l2_auth_failures_total": "0+120x60"}, {"l2_auth_failures_total": "0x55 0+120x2 240x10"}
    ),
    "AeroL2PolicyDenials": Case(
        {"l2_policy_denied_total": "0x50 0+6000x10"}, {"l2_policy_denied_total": "0+600x60"}
    ),
    "AeroL2AuditLost": Case(
        {"aero_l2_audit_lines_lost_total": "0x58 0+1x2"}, {"aero_l2_audit_lines_lost_total": "7x60"}
    ),
    "AeroL2AuditFails": Case(
        {"aero_l2_audit_errors_total": "0x58 1x2"}, {"aero_l2_audit_errors_total": "1x60"}
    ),
    "AeroL2CaptureFails": Case(
        {
            "l2_capture_errors_total": "0x60",
            'aero_l2_capture_frames_dropped_total{cause="queue"}': "0x58 0+9x2",
        },
        {
            "l2_capture_errors_total": "3x60",
            'aero_l2_capture_frames_dropped_total{cause="size"}': "0x58 0+9x2",
        },
    ),
}


def at_instance(series: dict[str, str], instance: str) -> list[dict[str, str]]:
    where = f'job="aero-l2",instance="{instance}"'
    written = []
    for name, values in series.items():
        metric, _, labels = name.partition("{")
        inside = ",".join(part for part in (labels.removesuffix("}"), where) if part)
        written.append({"series": f"{metric}{{{inside}}}", "values": values})
    return written


def judged(folder: Path, series: list[dict[str, str]], expression: str, samples: list[object]) -> str:
    """What promtool finds wrong at the end of the hour; empty where the expression is as expected."""
    test = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [{"expr": expression, "eval_time": "1h", "exp_samples": samples}],
            }
        ],
    }
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    done = promtool("test", "rules", str(file))
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    assert set(CASES) == set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_alert_fires_for_its_instance_and_not_for_one_that_is_well(tmp_path: Path, name: str) -> None:
    """Both are scraped by one Prometheus, so neither may be counted with the other."""
    case = CASES[name]
    series = [*at_instance(case.fires, "ill:1"), *at_instance(case.quiet, "well:1")]
    asked = f'group by (instance, job) (ALERTS{{alertname="{name}", alertstate="firing"}})'
    expected = [{"labels": '{instance="ill:1", job="aero-l2"}', "value": 1}]
    assert judged(tmp_path, series, asked, expected) == ""


def test_nothing_fires_where_all_is_well(tmp_path: Path) -> None:
    series: dict[str, str] = {"up": "1x60"}
    for case in CASES.values():
        series |= {name: values for name, values in case.quiet.items() if name not in series}
    well = [one for one in at_instance(series, "well:1") if "capacity" not in one["series"]]
    assert judged(tmp_path, well, 'ALERTS{alertstate="firing"}', []) == ""


def test_down_is_also_told_where_there_is_no_target(tmp_path: Path) -> None:
    asked = 'count(ALERTS{alertname="AeroL2Down", alertstate="firing"})'
    assert judged(tmp_path, [], asked, [{"labels": "{}", "value": 1}]) == ""


@pytest.mark.parametrize("name", RULES)
def test_alert_is_written_as_prometheus_shows_it(tmp_path: Path, name: str) -> None:
    """Its templates expand, and say which instance: promtool prints them, since nothing is expected here."""
    series = at_instance(CASES[name].fires, "ill:1")
    test = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "alert_rule_test": [{"eval_time": "1h", "alertname": name, "exp_alerts": []}],
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    said = promtool("test", "rules", str(file))
    shown = said.stdout + said.stderr
    assert said.returncode == 1
    assert "ill:1" in re.sub(r"Labels:\{[^}]*\}", "", shown)
    assert "error" not in shown.lower()
    assert "{{" not in shown


def test_rules_and_example_are_what_prometheus_accepts() -> None:
    for arguments in (
        ("check", "rules", "--lint-fatal", str(ALERTS)),
        ("check", "config", "--lint-fatal", str(ALERTS.with_name("prometheus.yaml"))),
    ):
        done = promtool(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", RULES)
def test_alert_names_only_what_metrics_have(name: str) -> None:
    assert unknown(RULES[name]["expr"], samples()) == []


@pytest.mark.parametrize("name", RULES)
def test_alert_is_whole(name: str) -> None:
    rule = RULES[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert len(rule["annotations"]["summary"]) <= SUMMARY_AT_MOST
    assert 'job="aero-l2"' in rule["expr"]


@pytest.mark.parametrize("name", RULES)
def test_alert_has_its_entry_in_the_runbook(name: str) -> None:
    """A heading of its own, and what it means, how to see more, what to do."""
    page, _, anchor = RULES[name]["annotations"]["runbook_url"].partition("#")
    text = (ROOT / page).read_text()
    entries = re.findall(rf"^### {name}\n(.*?)(?=^##)", f"{text}\n##", re.MULTILINE | re.DOTALL)
    assert (len(entries), anchor) == (1, name.lower())
    for part in ("**Means**", "**See**", "**Do**"):
        assert part in entries[0], part


def test_runbook_has_no_entry_without_an_alert() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    assert set(re.findall(r"^### (AeroL2\w+)$", text, re.MULTILINE)) == set(RULES)


def test_metrics_are_what_promtool_would_have_them_be() -> None:
    """But for one name, which is the contract's."""
    from aero_l2.observe.metrics import Metrics

    done = promtool("check", "metrics", text=Metrics().render().decode())
    said = (done.stdout + done.stderr).split("\n")
    assert [line for line in said if line] == [
        "l2_ping_rtt_ms metric names should not contain abbreviated units"
    ]
