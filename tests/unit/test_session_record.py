"""The lines of a tunnel: whose it is in each, and few of them however often its client comes and goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from aero_l2.observe.limit import BURST, LimitedLog
from aero_l2.observe.metrics import Metrics
from aero_l2.quota.traffic import Allowance
from aero_l2.session.lifecycle import Lifecycle, Times
from aero_l2.session.pump import Traffic
from aero_l2.session.record import Record
from aero_l2.session.registry import Holder
from aero_l2.session.spending import Spending
from aero_l2.tasks import subject
from aero_l2.wire.framing import framing
from aero_l2.wire.tunnel import Limits

WHO = {"session": 5, "client": "192.0.2.1", "peer": "127.0.0.1:5", "principal": "a?b"}
HOLDER = Holder("192.0.2.1", "a\nb")


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with capture_logs() as captured:
        yield captured


def record(number: int = 5) -> Record:
    return Record(number, "127.0.0.1:5", HOLDER, Metrics(), LimitedLog(structlog.get_logger()))


def closed(one: Record) -> None:
    life = Lifecycle(Times())
    life.preparing()
    life.opened(0.0, nat_ready=True, pinged=False)
    one.closed(life, Traffic(), Spending(Allowance(), framing("raw", Limits())), 1.0)


async def test_each_line_says_whose_it_is_and_so_does_the_task(lines: list[Any]) -> None:
    one = record()
    assert subject() == WHO
    one.opened("aero-l2-tunnel-v1")
    one.kept(30.0)
    one.fails("it is gone")
    closed(one)
    assert len(lines) == 4
    assert lines[-1]["seconds"] == 1.0
    assert [{name: line[name] for name in WHO} for line in lines] == [WHO] * 4


async def test_client_that_comes_and_goes_has_few_lines_and_all_are_counted(lines: list[Any]) -> None:
    one = record()
    for _ in range(1000):
        one.kept(30.0)
        one.resumed("127.0.0.1:6", Holder("192.0.2.2", "a\nb"), 0.1, is_taken_over=False)
    closed(one)
    names = [line["event"] for line in lines]
    assert (names.count("tunnel kept"), names.count("tunnel resumed")) == (BURST, BURST)
    assert (lines[-1]["event"], lines[-1]["resumes"]) == ("tunnel closed", 1000)
    assert (lines[-1]["client"], lines[-1]["peer"]) == ("192.0.2.2", "127.0.0.1:6")


async def test_clients_that_leave_before_their_tunnel_stands_have_few_lines(lines: list[Any]) -> None:
    limited = LimitedLog(structlog.get_logger())
    for number in range(1000):
        one = Record(number, "127.0.0.1:5", HOLDER, Metrics(), limited)
        one.left_early(None, is_ending=False)
    limited.close()
    names = [line["event"] for line in lines]
    assert names == ["tunnel not opened"] * BURST + ["lines left out"]
    assert lines[-1]["lines"] == 1000 - BURST
