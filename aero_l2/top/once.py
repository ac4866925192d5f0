"""`top --once`: two looks, and what they say as one table or one JSON document."""

from __future__ import annotations

import time
from collections.abc import Iterator

from aero_l2.top.columns import fitting, heading, row
from aero_l2.top.snapshot import Document, document
from aero_l2.top.source import Reading, Source
from aero_l2.top.state import State
from aero_l2.top.view import header

WIDE = 200
"""Columns where there is no terminal to fit."""


def look(source: Source, interval_s: float) -> tuple[Document, Reading]:
    """Measure for so long. Never fails: `Reading.is_empty` where nothing could be read at the end."""
    before = source.read()
    if before.is_empty:
        return document(None, before), before
    time.sleep(max(0.0, before.at + interval_s - time.monotonic()))
    now = source.read()
    return document(before, now), now


def table(shown: Document, sort: str, width: int) -> Iterator[str]:
    """The lines: how the server is, then all sessions."""
    state = State(sort=sort, shown=shown)
    yield from (line.plain for line in header(state, time.monotonic()))
    if shown["sessions"] is not None:
        columns, spare = fitting(width)
        longest = max((len(str(one.get("principal") or "")) for one in shown["sessions"]), default=0)
        spare = min(spare, max(0, longest - columns[1].width)) if len(columns) > 1 else 0
        yield heading(columns, spare, sort)
        yield from (row(columns, spare, facts) for facts in state.sessions)
