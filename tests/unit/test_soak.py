"""What a soak's verdict finds wrong, and what its table says."""

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from soak.clients import Result
from soak.held import Held
from soak.verdict import Sample, Soaked, faults, markdown

HELD = Held(3, 9, 29, 2, {"launch": 7, "netd": 24, "server": 40}, {"launch": 6, "netd": 22, "server": 36})


def logged(event: str, session: int = 1, level: str = "info") -> str:
    return json.dumps({"event": event, "session": session, "level": level, "reason": "peer closed"})


OPENED, CLOSED = logged("tunnel opened"), logged("tunnel closed")


def seen(**changes: Any) -> Soaked:
    good = Result({"interactive: ping": [1.0, 2.0], "set-up": [30.0]})
    whole = Soaked(
        seconds=90.0,
        before=HELD,
        samples=[Sample(5.0, 44, replace(HELD, processes=47))],
        after=HELD,
        blocks=(200_000, 200_400),
        good=good,
        bad=Result(did=Counter({"abuse: flood": 7})),
        mbit_s={"bulk-up": [20.0, 21.0]},
        log=[OPENED, CLOSED],
    )
    return replace(whole, **changes)


def grown(mib: float) -> Held:
    return replace(HELD, own={**HELD.own, "server": 36 + mib})


def test_nothing_is_wrong_where_all_is_as_before() -> None:
    assert faults(seen()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"after": replace(HELD, descriptors=30)}, "descriptors: 29 before, 30 after"),
        ({"after": replace(HELD, namespaces=3)}, "namespaces: 2 before, 3 after"),
        ({"after": grown(1.5), "seconds": 1800.0}, "memory grew by 1.5 MiB, 2.3%; allowed are 1.3 MiB (2%)"),
        ({"after": grown(4.5)}, "memory grew by 4.5 MiB, 7.0%; allowed are 4.0 MiB (runs under 10 minutes)"),
        ({"blocks": (200_000, 202_500)}, "Python objects: 200,000 blocks before, 202,500 after, 1.2% more"),
        ({"log": [OPENED]}, "the log: 1 tunnels opened, 0 closed"),
        ({"log": [OPENED, CLOSED, OPENED, CLOSED]}, "the log: 2 tunnels opened, 2 closed"),
        ({"log": ["Traceback (most recent call last):"]}, "the log: Traceback (most recent call last):"),
        ({"log": [logged("odd", level="error")]}, f"the log: {logged('odd', level='error')}"),
        ({"mbit_s": {"bulk-down": [20.0, 0.01]}}, "bulk-down: a bulk flow starved: 20.00, 0.01 Mbit/s"),
        ({"good": Result({"set-up": [1.0]})}, "interactive: nothing was done"),
        ({"good": Result({"interactive: ping": [6000.0]})}, "interactive: ping took 6,000 ms"),
        ({"bad": Result(did=Counter(faults=1), faults=["x"])}, "a client that behaves badly: x"),
    ],
)
def test_what_is_not_as_it_should_be_is_said(changes: dict[str, Any], said: str) -> None:
    assert faults(seen(**changes)) == [said]


def test_faults_beyond_those_in_words_are_counted() -> None:
    assert faults(seen(good=replace(seen().good, did=Counter(faults=3), faults=["x"]))) == [
        "a client: x",
        "and 2 more",
    ]


def test_heap_of_a_short_run_may_still_grow() -> None:
    assert faults(seen(after=grown(3.5))) == []
    assert faults(seen(after=grown(1.2), seconds=1800.0)) == []


def test_table_has_what_was_held_and_what_was_done() -> None:
    text = markdown(seen())
    assert "| processes | 3 | 47 | 3 |" in text
    assert "| own memory of all three, MiB | 64.0 | | 64.0 (+0.0%) |" in text
    assert "| server: blocks of Python objects | 200,000 | | 200,400 (+0.2%) |" in text
    assert "| interactive: ping | 2 | 1.0 | 2.0 | 2 |" in text
    assert "| bulk-up, Mbit/s of each | 20.0, 21.0 |" in text
    assert "abuse: flood 7" in text
    assert "peer closed 1" in text
