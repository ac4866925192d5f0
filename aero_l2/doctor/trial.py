"""One session by the real way: the supervisor of `serve`, with `aero_l2.doctor.inside` as its server."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Final

from aero_l2.app import launching
from aero_l2.doctor.finding import Finding, problem
from aero_l2.doctor.inside import DEADLINE_S, SESSION
from aero_l2.doctor.subject import Subject

TIMEOUT_S: Final = DEADLINE_S + 6
"""A program that hangs has ended itself by then, and netd after it."""
_END_S: Final = 3.0
_OF_SUPERVISOR: Final = "aero-l2: "
_SAID: Final = 400


def session(subject: Subject) -> Iterator[Finding]:
    """Start it, and hand on what it found; what the supervisor and netd said of a failure is told with it."""
    command, settings = launching.command(
        subject.sources, subject.settings, subject.search_path, server="aero_l2.doctor.inside"
    )
    environment = launching.environment_of(os.environ)
    for name in launching.OF_SYSTEMD:  # a service manager's words are for the service
        environment.pop(name, None)
    process = subprocess.Popen(
        command,
        env=environment,
        pass_fds=(settings,),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    os.close(settings)
    try:
        found, said = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        found, said = _end(process)
        said = said or f"the supervisor did not end within {TIMEOUT_S:g} s"
    yield from _findings(found, said, process.returncode)


def _findings(found: str, said: str, status: int) -> Iterator[Finding]:
    findings = [Finding.from_json(line) for line in found.splitlines() if line.startswith("{")]
    yield from findings
    if not findings:
        lines = [line.removeprefix(_OF_SUPERVISOR) for line in said.splitlines() if line.strip()]
        reason = lines[-1][:_SAID] if lines else f"the supervisor ended with status {status}"
        yield problem(SESSION, reason, status=status)


def _end(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Politely, then not: without the supervisor, server and netd end by themselves."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.communicate(timeout=_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
    try:
        return process.communicate(timeout=_END_S)
    except subprocess.TimeoutExpired:  # a grandchild keeps the pipes
        return "", ""
