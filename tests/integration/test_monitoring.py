"""What the real proxy serves to Prometheus, read by promtool and compared with rules and dashboard."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from support.promtool import promtool, samples
from support.proxy import Proxy

NAMES_OF_THE_CONTRACT = ["l2_ping_rtt_ms metric names should not contain abbreviated units"]


async def test_real_metrics_are_what_promtool_would_have_them_be(proxy: Proxy) -> None:
    async with proxy.tunnel():
        text = proxy.get("/metrics")[1]
    done = promtool("check", "metrics", text=text)
    assert [line for line in (done.stdout + done.stderr).split("\n") if line] == NAMES_OF_THE_CONTRACT


async def test_real_metrics_are_those_that_rules_and_dashboard_are_judged_by(proxy: Proxy) -> None:
    families = text_string_to_metric_families(proxy.get("/metrics")[1])
    found = {(sample.name, frozenset(sample.labels)) for family in families for sample in family.samples}
    assert found == {(name, frozenset(labels)) for name, labels in samples().items()}
