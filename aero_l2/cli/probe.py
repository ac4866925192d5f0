"""`aero-l2 probe`: check a server from a guest's seat."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import math
import signal
import time
from collections import deque
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from aero_l2.cli import reach
from aero_l2.cli.errors import complain, unwritten
from aero_l2.client import Delivery, InvalidTarget
from aero_l2.client.errors import printable
from aero_l2.config.values import BadValue, host_name
from aero_l2.probe import monitoring
from aero_l2.probe.report import Report
from aero_l2.probe.run import DEFAULT_TIMEOUT_S, Plan, Watch, probe, server_shown
from aero_l2.probe.targets import CARRIES, BadTarget, ProbeTarget, parse_target

EXIT_UNREAD: Final = 1
"""Standard output cannot be written."""
EXIT_INTERRUPTED: Final = 130

Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="TARGET",
        help="tcp://HOST:PORT, tcp-echo://…, tcp-discard://…, udp-echo://… or http://HOST[:PORT]/PATH, "
        "through the tunnel; can be given several times. Default: DNS over TCP of the gateway, which "
        "every server has.",
    ),
]
Name = Annotated[
    str | None, typer.Option(metavar="NAME", help="To look up; default: example.com, in any way.")
]
Seconds = Annotated[
    float, typer.Option(metavar="N", min=0, max=3600, help="Measure throughput with each target, so long.")
]
Timeout = Annotated[float, typer.Option(metavar="SECONDS", min=0.1, max=3600, help="For each step.")]
Count = Annotated[int, typer.Option(metavar="N", min=0, help="Runs; 0: without end.")]
Interval = Annotated[
    float, typer.Option(metavar="SECONDS", min=0, max=86_400, help="From one run's begin to the next.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a run instead of lines.")]
Nagios = Annotated[
    bool, typer.Option("--nagios", help="Print one status line at the end; exit status 0, 1, 2 or 3.")
]
WarnMs = Annotated[
    float | None, typer.Option(metavar="MS", min=0, help="With --nagios: WARNING if a run takes longer.")
]
Textfile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Write each run there for Prometheus' textfile collector (….prom)."),
]


def probe_(
    url: reach.Url,
    target: Targets = None,
    name: Name = None,
    seconds: Seconds = 0,
    timeout: Timeout = DEFAULT_TIMEOUT_S,
    count: Count = 1,
    interval: Interval = 10,
    json: Json = False,
    nagios: Nagios = False,
    warn_ms: WarnMs = None,
    textfile: Textfile = None,
    token: reach.Token = None,
    token_file: reach.TokenFile = None,
    deliver: reach.Deliver = Delivery.SUBPROTOCOL,
    origin: reach.Origin = None,
    ca_file: reach.CaFile = None,
    open_timeout: reach.OpenTimeout = 10,
) -> None:
    """Check a server from a guest's seat: tunnel, PING, DHCP, ARP, ping, DNS, UDP and TCP to targets.

    Stops at the first failure, says why, and ends with a status of its own for each kind of failure:
    docs/probe.md lists them. Needs no privilege.
    """
    fault = io.StringIO()
    try:
        with contextlib.redirect_stderr(fault) if nagios else contextlib.nullcontext():
            _finite(("--seconds", seconds), ("--timeout", timeout), ("--interval", interval))
            _finite(("--warn-ms", warn_ms or 0), ("--open-timeout", open_timeout))
            reached = reach.reach(url, token, token_file, deliver, origin, ca_file, open_timeout)
            plan = Plan(
                reached.target, reached.options, _name(name), _targets(target, seconds), seconds, timeout
            )
            if warn_ms is not None and not nagios:
                reach.fail("--warn-ms is for --nagios: give that too, or leave it out")
            if json and nagios:
                reach.fail("--json and --nagios are both given: leave one out")
            if nagios and not count:
                reach.fail("--nagios says one thing at the end, and --count 0 has none: leave one out")
            reports = _runs(plan, count, interval, _Output(json, nagios, _textfile(textfile)))
    except typer.Exit:
        if not nagios:
            raise
        said = " ".join(fault.getvalue().split()).removeprefix("aero-l2: ").replace("|", "/")
        _print(f"AERO-L2 {monitoring.NAGIOS[monitoring.NAGIOS_UNKNOWN]} - {said}", monitoring.NAGIOS_UNKNOWN)
        raise typer.Exit(monitoring.NAGIOS_UNKNOWN) from None
    if nagios:
        status, line = monitoring.nagios(reports, warn_ms)
        _print(line, monitoring.NAGIOS_UNKNOWN)
    else:
        status = next((report.status for report in reversed(reports) if report.failed), 0)
    raise typer.Exit(status)


@dataclass(frozen=True, slots=True)
class _Output:
    """Where a run's report goes."""

    json: bool
    nagios: bool
    textfile: Path | None

    def write(self, report: Report) -> None:
        if self.textfile is not None:
            try:
                monitoring.write_textfile(self.textfile, monitoring.textfile(report))
            except OSError as error:
                _unwritable(self.textfile, error)
        if self.json:
            _print(report.as_json())
        elif not self.nagios:
            _print(report.last_line)

    def watch(self, plan: Plan) -> Watch:
        """For a run that begins: in words, each step is printed when it has ended."""
        if self.json or self.nagios:
            return Watch()
        _print(server_shown(plan))
        return Watch(lambda step: _print(step.line))


def _print(line: str, status: int = EXIT_UNREAD) -> None:
    try:
        typer.echo(line)
    except OSError as error:
        unwritten(error)
        raise typer.Exit(status) from None


def _runs(plan: Plan, count: int, interval_s: float, output: _Output) -> list[Report]:
    """Run it so often; the reports, without end only the last ones."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    reports: deque[Report] = deque(maxlen=count or 1)
    watch = Watch()
    try:
        for number in itertools.count(1):
            began = time.monotonic()
            watch = output.watch(plan)
            reports.append(asyncio.run(probe(plan, watch)))
            watch.doing = None
            output.write(reports[-1])
            if number == count:
                break
            time.sleep(max(began + interval_s - time.monotonic(), 0))
    except InvalidTarget as fault:
        reach.fail(str(fault))
    except KeyboardInterrupt:
        complain(f"interrupted at {watch.doing}" if watch.doing else "interrupted between two runs")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return list(reports)


def _targets(given: list[str] | None, seconds: float) -> tuple[ProbeTarget, ...]:
    try:
        targets = tuple(parse_target(text) for text in given or ())
    except BadTarget as fault:
        reach.fail(f"--target: {fault}")
    if seconds and not any(target.scheme in CARRIES for target in targets):
        reach.fail(
            "--seconds needs something to measure with: --target http://…, tcp-discard://… or tcp-echo://…"
        )
    return targets


def _textfile(given: str | None) -> Path | None:
    if given is None:
        return None
    if given.strip() in ("", "-"):
        reach.fail("--textfile is a file that is replaced after each run: give its name")
    path = Path(given)
    try:
        monitoring.check_textfile(path)
    except OSError as error:
        _unwritable(path, error)
    return path


def _unwritable(path: Path, error: OSError) -> NoReturn:
    reach.fail(f"--textfile={printable(str(path))}: {error.strerror}: name a file that can be written")


def _finite(*options: tuple[str, float]) -> None:
    for option, value in options:
        if not math.isfinite(value):  # nan is in every range
            reach.fail(f"{option} {value} is no number: give one")


def _name(given: str | None) -> str | None:
    if given is None:
        return None
    with contextlib.suppress(ValueError):
        reach.fail(f"--name {ip_address(given.strip().strip('[]'))} is an address, not a name: give a name")
    try:
        return host_name(given)
    except BadValue as fault:
        reach.fail(f"--name {fault}: {fault.fix}")
