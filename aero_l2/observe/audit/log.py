"""The audit log of the process: lines in, sessions, refused upgrades, and summaries when they are due."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import structlog

from aero_l2.observe.audit.files import STDOUT, LogFile, Output, Stdout, Unusable
from aero_l2.observe.audit.lines import Kind, encode
from aero_l2.observe.audit.session import SessionAudit
from aero_l2.observe.audit.tally import Rate, Tally
from aero_l2.observe.audit.writer import Writer
from aero_l2.observe.metrics import Metrics
from aero_l2.web.echo import echo

SUMMARY_S: Final = 30.0
"""From the first thing that gets no line of its own to the line that sums all up."""
REFUSALS: Final = Rate(100, 5.0)
"""Lines about refused upgrades, of the whole process."""

_log = structlog.get_logger(component="audit")


class Summed(Protocol):
    """Who has something to sum up now and then."""

    def sum_up(self) -> None:
        """Write the lines that are due."""


class AuditLog:
    """Use on one event loop. Lines are written on a thread; `close` waits for it.

    has_queries: whether DNS queries have lines. doubts: what an operator may not have meant, a line each.
    """

    def __init__(self, output: Output, metrics: Metrics, *, has_queries: bool, version: str) -> None:
        self.has_queries = has_queries
        self.doubts = tuple(output.doubts())
        self._metrics = metrics
        self._version = version
        self._sessions: dict[int, SessionAudit] = {}
        self._due: dict[Summed, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._refusals: Tally[tuple[int, str]] = Tally(
            REFUSALS, lambda key: (key[0], "other"), time.monotonic()
        )
        self._writer = Writer(
            output, lost=metrics.audit_lines_lost.inc, lost_line=self._lost_line, failed=self._failed
        )
        self.write("log_open", version=version, pid=os.getpid())

    def write(self, kind: Kind, **fields: object) -> None:
        """One line; it is on disk a moment later."""
        if self._writer.put(encode(kind, time.time(), fields)):
            self._metrics.audit_lines[kind].inc()

    @contextmanager
    def session(self, session_id: int, client: str, principal: str | None) -> Iterator[SessionAudit]:
        """What is said of one session, while the block runs; its last line comes at the end."""
        said = self._sessions[session_id] = SessionAudit(self, session_id, client, principal)
        try:
            yield said
        finally:
            del self._sessions[session_id]
            self._due.pop(said, None)
            said.end()

    def of(self, session_id: int) -> SessionAudit | None:
        """The session's, None for a tunnel that is only made for trial."""
        return self._sessions.get(session_id)

    def refused(self, client: str, status: int, reason: str, kind: str, principal: str | None) -> None:
        """An upgrade is refused. kind: the reason without what the client chose."""
        if self._refusals.admits(time.monotonic()):
            named = None if principal is None else echo(principal)
            self.write("refused", client=client, principal=named, status=status, reason=echo(reason))
        else:
            self._refusals.add((status, echo(kind)))
            self.is_due(self)

    def sum_up(self) -> None:
        """Refused upgrades that got no line."""
        for (status, reason), (upgrades,) in self._refusals.taken():
            self.write("refusals", status=status, reason=reason, upgrades=upgrades)

    def is_due(self, part: Summed) -> None:
        """Have it sum up soon."""
        self._due[part] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SUMMARY_S, self._sum_all_up)

    def reopen(self) -> None:
        """The file was moved away: go on in a new one of its name."""
        self._writer.reopen()

    async def close(self) -> None:
        """Write what is left; says so where that fails or takes too long."""
        self._sum_all_up()
        self.write("log_close", version=self._version, pid=os.getpid())
        left = await asyncio.get_running_loop().run_in_executor(None, self._writer.close)
        if left:
            self._metrics.audit_lines_lost.inc(left)
            _log.error("the end of the audit log is not written", lines=left)

    def _sum_all_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due, self._due = self._due, {}
        for part in due:
            part.sum_up()

    def _lost_line(self, lines: int) -> bytes:
        self._metrics.audit_lines["lost"].inc()
        return encode("lost", time.time(), {"lines": lines})

    def _failed(self, error: OSError | None) -> None:
        """On the writing thread."""
        if error is None:
            _log.info("the audit log is written again")
        else:
            self._metrics.audit_errors.inc()
            _log.error("the audit log cannot be written", text=error.strerror or str(error))


def open_log(
    path: str, max_bytes: int, max_files: int, metrics: Metrics, *, has_queries: bool, version: str
) -> AuditLog | None:
    """The audit log that the settings ask for; None for none. Raises Unusable."""
    if not path:
        return None
    output = Stdout() if path == STDOUT else LogFile(path, max_bytes, max_files)
    return AuditLog(output, metrics, has_queries=has_queries, version=version)


__all__ = ["AuditLog", "SessionAudit", "Unusable", "open_log"]
