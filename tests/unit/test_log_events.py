"""docs/logs.md has every event that the source logs, as the source logs it, and no other."""

from __future__ import annotations

import pytest
from support.logevents import Call, documented, logged

EVENTS = documented()
CALLS = list(logged())
MADE_OTHERWISE = {"lines left out", "library says", "Python warns"}
"""Assembled as fields in `aero_l2.observe.log`, or by the limit itself."""


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.place)
def test_event_is_documented_as_it_is_logged(call: Call) -> None:
    event = EVENTS.get(call.event)
    assert event is not None, f"{call.place}: docs/logs.md has no row for `{call.event}`"
    assert call.levels <= event.levels
    assert call.fields <= event.required | event.optional


def test_no_row_is_left_over() -> None:
    assert set(EVENTS) == {call.event for call in CALLS} | MADE_OTHERWISE


def test_events_are_few_words_without_values() -> None:
    for name in EVENTS:
        assert name.isascii()
        assert name.isprintable()
        assert len(name) <= 50
        assert not any(sign in name for sign in '"{}%='), name


def test_fields_have_one_name_everywhere() -> None:
    """What docs/logs.md says of names: units at their ends, and no second word for why or who."""
    fields = {name for event in EVENTS.values() for name in event.required | event.optional}
    assert not fields & {"why", "msg", "message", "error", "err", "sid", "user", "ip", "duration", "time"}
    assert all(name.islower() and name.isidentifier() for name in fields)
