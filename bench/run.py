"""A whole run: every round takes every measurement in turn, so that a slower hour slows all of them."""

from __future__ import annotations

import datetime
import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from aero_l2.client.address import Target
from aero_l2.client.errors import printable
from bench import clocks, machine
from bench.document import Document
from bench.figures import Table
from bench.lab import QUICK, Failed, Lab, Work, local, outside
from bench.settings import public
from bench.wire import TunnelRefused

PARTS = ("transfers", "latency", "packets", "opening", "memory", "many")
NEED_PEER = ("transfers", "latency", "packets")
INSIDE_ONLY = ("memory",)
BY_NAME_ONLY = ("many",)
"""Of a server elsewhere: a thousand tunnels are only opened where somebody asks for it."""

EVERY = {"many": 2}
"""What takes long is measured in the first and then in every so many-th round only."""


@dataclass(frozen=True)
class Order:
    """What to measure. target: a server elsewhere; peer: where bench.peer runs, as its guests reach it."""

    rounds: int = 5
    quick: bool = False
    only: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    also: dict[str, str] = field(default_factory=dict)
    tunnels: int | None = None
    target: Target | None = None
    peer: str | None = None

    def work(self) -> Work:
        """How much in a round."""
        work = QUICK if self.quick else Work()
        return work if self.tunnels is None else Work(**{**vars(work), "many": self.tunnels})

    def parts(self) -> tuple[str, ...]:
        """What is measured, in order."""
        if self.target is None:
            return tuple(part for part in PARTS if not self.only or part in self.only)
        hidden = {*INSIDE_ONLY, *(() if self.peer else NEED_PEER)}
        wanted = self.only or tuple(part for part in PARTS if part not in BY_NAME_ONLY)
        return tuple(part for part in PARTS if part in wanted and part not in hidden)


def take(order: Order, say: Callable[[str], None]) -> Document:
    """Measure all that is ordered. Says what a server elsewhere did wrong, and raises SystemExit."""
    try:
        return _taken(order, say)
    except (Failed, TunnelRefused, OSError, AssertionError, subprocess.SubprocessError) as error:
        if order.target is None:
            raise
        why = order.target.redact(str(error) or type(error).__name__)
        say(printable(why))
        raise SystemExit(1) from None


def _taken(order: Order, say: Callable[[str], None]) -> Document:
    began, stolen = time.monotonic(), clocks.stolen()
    tables = {part: _module(part).table() for part in order.parts()}
    taken = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with ExitStack() as stack:
        lab = stack.enter_context(_place(order))
        measuring = {part: stack.enter_context(_module(part).measuring(lab)) for part in tables}
        for number in range(1, order.rounds + 1):
            for part, once in measuring.items():
                if (number - 1) % EVERY.get(part, 1):
                    continue
                at = time.monotonic()
                lab.note_speed()
                once(tables[part])
                say(f"round {number} of {order.rounds}: {part}, {time.monotonic() - at:.0f} s")
        lab.note_speed()
    stolen_after = clocks.stolen()
    return Document(
        taken=taken,
        revision=machine.revision(),
        server=order.target.display if order.target else "local",
        settings=public(order.settings),
        also=public(order.also),
        rounds=order.rounds,
        quick=order.quick,
        seconds=round(time.monotonic() - began, 1),
        machine=machine.describe(),
        yardstick=[round(value, 6) for value in lab.speeds],
        steal=round((stolen_after[0] - stolen[0]) / max(1.0, stolen_after[1] - stolen[1]), 4),
        tables=tables,
    )


@contextmanager
def _place(order: Order) -> Iterator[Lab]:
    work = order.work()
    place = (
        local(work, order.settings, order.also)
        if order.target is None
        else outside(work, order.target, order.peer)
    )
    with place as lab:
        yield lab


def _module(part: str) -> Any:
    return importlib.import_module(f"bench.{part}")


def table_of(part: str) -> Table:
    """The empty table of a part."""
    made: Table = _module(part).table()
    return made


def to_stderr(text: str) -> None:
    """A line of progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
