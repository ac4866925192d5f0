"""What monitoring reads: a Nagios status line, and Prometheus' textfile. The line is pure."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from aero_l2.probe.report import Report

NAGIOS: Final = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
"""By exit status (Monitoring Plugins' guidelines)."""
NAGIOS_UNKNOWN: Final = 3
_FILE_MODE: Final = 0o644


def nagios(reports: Sequence[Report], warn_ms: float | None = None) -> tuple[int, str]:
    """Exit status and status line with performance data, of one run or several.

    CRITICAL: all runs failed. WARNING: some did, or the last one took more than ``warn_ms``.
    """
    failed = [report for report in reports if report.failed is not None]
    last = reports[-1]
    if failed:
        status = 2 if len(failed) == len(reports) else 1
        step = failed[-1].failed
        assert step is not None
        text = f"{step.name}: {step.text}"
        text = text if len(reports) == 1 else f"{len(failed)} of {len(reports)} runs failed, {text}"
    else:
        slow = warn_ms is not None and last.duration_s * 1000 > warn_ms
        status = 1 if slow else 0
        text = last.last_line.removeprefix("ok: ") + (f", more than {warn_ms:g} ms" if slow else "")
    text = text.replace("|", "/")
    return status, f"AERO-L2 {NAGIOS[status]} - {text} | {_performance(last, warn_ms)}"


def _performance(report: Report, warn_ms: float | None) -> str:
    limit = "" if warn_ms is None else f";{warn_ms:g}"
    figures = [f"total={report.duration_s * 1000:.1f}ms{limit}"]
    seen: dict[str, int] = {}
    for step in report.steps:
        seen[step.name] = seen.get(step.name, 0) + 1
        label = step.name if seen[step.name] == 1 else f"{step.name}{seen[step.name]}"
        figures.append(f"{label}={step.duration_s * 1000:.1f}ms")
    figures += [f"throughput_{rate.direction}={rate.bits_per_s:.0f}" for rate in report.rates]
    return " ".join(dict.fromkeys(figures))


def textfile(report: Report) -> bytes:
    """The last run in Prometheus' text format, for node_exporter's textfile collector."""
    registry = CollectorRegistry()

    def gauge(name: str, help_: str, *labels: str) -> Gauge:
        return Gauge(f"aero_l2_probe_{name}", help_, ("server", *labels), registry=registry)

    server = report.server
    kind = report.failed.kind if report.failed is not None else None
    gauge("success", "Whether the last run went well.").labels(server).set(kind is None)
    status = gauge("exit_status", "Exit status of the last run; kind is ok or the failure's.", "kind")
    status.labels(server, "ok" if kind is None else kind.word).set(report.status)
    gauge("duration_seconds", "Time the last run took.").labels(server).set(report.duration_s)
    gauge("timestamp_seconds", "Unix time when the last run began.").labels(server).set(report.started_at)
    good = gauge("step_success", "Whether a step of the last run went well.", "step", "target")
    took = gauge("step_duration_seconds", "Time a step of the last run took.", "step", "target")
    for step in report.steps:
        labels = (server, step.name, step.target or "")
        good.labels(*labels).set(step.kind is None)
        took.labels(*labels).set(step.duration_s)
    rate = gauge("throughput_bits_per_second", "Throughput that was measured.", "direction", "target")
    for one in report.rates:
        rate.labels(server, one.direction, one.target).set(one.bits_per_s)
    return generate_latest(registry)


def check_textfile(path: Path) -> None:
    """Whether `write_textfile` may replace it, or make it: a regular file, no link. Raises OSError."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")
    os.stat(path.parent)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def write_textfile(path: Path, content: bytes) -> None:
    """Replace a file whole: whoever reads it sees the old one or the new one. Raises OSError."""
    check_textfile(path)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), _FILE_MODE)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
