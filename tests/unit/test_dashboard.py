"""The dashboard of deploy/grafana: importable, whole, and of nothing but the metrics that there are."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support.promtool import ROOT, alerts, promtool, samples, unknown

DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/aero-l2.json").read_text())
SCHEMA = json.loads((ROOT / "tests/schemas/grafana-dashboard.schema.json").read_text())
ROWS = [panel for panel in DASHBOARD["panels"] if panel["type"] == "row"]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
INSTANCES = 'job="aero-l2", instance=~"$instance"'
NOT_SHOWN = {
    "aero_l2_idle_timeouts_total",  # these are reasons of aero_l2_sessions_closed_total
    "l2_sessions_closed_quota_bytes_total",
    "l2_sessions_closed_quota_fps_total",
    "l2_sessions_closed_backpressure_total",
    "l2_upgrade_reject_max_tunnels_per_session_total",  # others under a second name
    "l2_session_connection_denied_total",
    "l2_auth_failures_total",
    "l2_capture_frames_dropped_total",
    "l2_frames_dropped_total",  # sums of what is shown by cause, reason or limit
    "l2_udp_flow_limit_exceeded_total",
    "l2_dns_queries_total",
    "l2_dns_fail_total",
}


def expressions() -> Iterator[tuple[str, str]]:
    """Title and query of every target."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def plain(expression: str) -> str:
    """As Grafana asks it, its variables filled in."""
    return expression.replace("$__rate_interval", "5m").replace("$instance", ".*")


def test_dashboard_is_what_grafana_imports() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(DASHBOARD, SCHEMA)


def test_ids_and_titles_are_unique() -> None:
    for what in ([panel["id"] for panel in DASHBOARD["panels"]], [panel["title"] for panel in PANELS]):
        assert len(set(what)) == len(what)
    for panel in PANELS:
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names)


def test_panels_do_not_cover_each_other_nor_leave_the_grid() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)


def test_data_source_and_instances_are_variables() -> None:
    source, instance = DASHBOARD["templating"]["list"]
    assert (source["type"], source["query"], source["name"]) == ("datasource", "prometheus", "datasource")
    assert (instance["type"], instance["name"], instance["multi"]) == ("query", "instance", True)
    asked = instance["query"]["query"]
    assert asked == instance["definition"]
    assert unknown(asked, samples()) == []
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(PANELS)))
    assert used == {"datasource", "instance", "__rate_interval"}


@pytest.mark.parametrize(("title", "expression"), list(expressions()))
def test_query_names_only_what_metrics_have(title: str, expression: str) -> None:
    assert unknown(plain(expression), samples()) == []
    selectors = re.findall(r"\b(?:aero_l2|l2)_\w+(\{[^}]*\})?", expression)
    assert selectors
    assert all(selector.startswith("{" + INSTANCES) for selector in selectors), expression


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_legend_names_only_labels_that_are_left(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) - {"instance"}
        kept = {
            name.strip()
            for names in re.findall(r"by \(([^)]*)\)", target["expr"])
            for name in names.split(",")
        }
        assert wanted <= kept, (panel["title"], target["legendFormat"])


def test_queries_are_what_prometheus_understands(tmp_path: Path) -> None:
    rules = [
        {"record": f"dashboard:panel_{number}", "expr": plain(expression)}
        for number, (_, expression) in enumerate(expressions())
    ]
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", "--lint=none", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_is_shown_or_said_not_to_be() -> None:
    text = " ".join(expression for _, expression in expressions())
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples()}
    shown = {family for family in families if re.search(rf"\b{family}(_bucket|_count)?\b", text)}
    assert families - shown == NOT_SHOWN


def test_rates_are_of_counters_and_quantiles_of_buckets() -> None:
    for title, expression in expressions():
        for function, name in re.findall(r"\b(rate|increase)\((\w+)", expression):
            assert name.endswith(("_total", "_bucket", "_count")), (title, function, name)
        for name in re.findall(r"\b((?:aero_l2|l2)_\w+_total)\b", expression):
            assert f"rate({name}" in expression, (title, name)


def test_runbook_entries_that_panels_name_exist() -> None:
    named = {name for panel in PANELS for name in re.findall(r"AeroL2\w+", panel["description"])}
    assert named
    assert named <= set(alerts())


def test_panels_that_the_runbook_names_exist() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    named = {
        name
        for group in re.findall(
            r"[Pp]anels? (?:of )?((?:\*[^*]+\*(?: and )?)+)|[Pp]anels of (\*[^*]+\*)", text
        )
        for name in re.findall(r"\*([^*]+)\*", "".join(group))
    }
    assert named
    assert named <= {panel["title"] for panel in (*PANELS, *ROWS)}


def test_shape_of_a_unit_fits_its_panel() -> None:
    for panel in PANELS:
        unit = panel["fieldConfig"]["defaults"]["unit"]
        text = " ".join(target["expr"] for target in panel["targets"])
        if "_seconds_bucket" in text:
            assert unit == "s", panel["title"]
        if unit == "percentunit":
            assert " / " in text, panel["title"]
        if unit in ("bps",):
            assert text.startswith("8 *"), panel["title"]
