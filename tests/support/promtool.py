"""promtool of Debian's package prometheus (tests/packages-download.txt), and what it is fed."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from aero_l2.observe.metrics import Metrics
from support.images import downloaded

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_NAME = re.compile(r"\b(?:aero_l2|l2)_\w+")
SCRAPED = ("job", "instance")
"""Labels that Prometheus adds."""
VARIABLE = re.compile(r"\$\{?\w+")


def promtool(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Run it; its words are in stdout and stderr."""
    program = downloaded("prometheus") / "usr/bin/promtool"
    return subprocess.run(
        [str(program), *arguments], input=text, capture_output=True, text=True, timeout=120, check=False
    )


def alerts() -> dict[str, dict[str, Any]]:
    """The alert rules by name."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    named = {rule["alert"]: rule for rule in rules}
    assert len(named) == len(rules), "two alerts have one name"
    return named


def samples() -> dict[str, dict[str, set[str]]]:
    """Every sample of /metrics: its labels, and the values that each may have."""
    found: dict[str, dict[str, set[str]]] = {}
    metrics = Metrics()
    metrics.describe_build("0.1.0", "dev", "")
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def unknown(expression: str, known: Mapping[str, Mapping[str, set[str]]]) -> list[str]:
    """What an expression names that /metrics does not have: samples, labels, values."""
    faults = [name for name in _NAME.findall(_STRING.sub('""', expression)) if name not in known]
    for name, inside in _SELECTOR.findall(expression):
        if name in known:
            faults += [f"{name}: {fault}" for fault in _unknown_in(inside, known[name])]
    return faults


def _unknown_in(inside: str, labels: Mapping[str, set[str]]) -> list[str]:
    faults = []
    for label, operator, value in _MATCHER.findall(inside):
        if label in SCRAPED:
            continue
        if label not in labels:
            faults.append(f"no label {label}")
        elif not VARIABLE.search(value) and label not in ("le", *_OF_BUILD):
            wanted = value.split("|") if operator.endswith("~") else [value]
            faults += [f"{label} is never {one}" for one in wanted if not _among(one, labels[label])]
    return faults


def _among(pattern: str, values: set[str]) -> bool:
    return any(re.fullmatch(pattern, value) for value in values)


_OF_BUILD = ("version", "git_sha", "built_at", "python")
