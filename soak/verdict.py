"""What a soak comes to: its table, and what is wrong. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from bench.figures import quantile
from soak.clients import Result
from soak.held import ROLES, Held

GROWTH = 0.02
"""Of the memory that the processes have to themselves, all together."""
GROWTH_ALIVE = 0.01
"""Of the blocks that Python objects are in. What is free in Python's heap hides no leak from these."""
LONG_S, YOUNG_MIB = 600.0, 4.0
"""A heap takes minutes of all kinds of clients until it is as large as it gets; a run that is shorter sees it
grow by so much. What leaks 10 KiB a tunnel grows by more."""
SLOWEST_MS = 5000.0
"""For one thing that a steady guest does."""
STEADY = "interactive"
_EXPECTED = ("segment lost",)


@dataclass(frozen=True)
class Sample:
    """A look while it goes on: seconds since the start, open tunnels, and what was held."""

    at_s: float
    tunnels: int
    held: Held


@dataclass(frozen=True)
class Soaked:
    """Everything that was seen. blocks: `live_blocks` before and after; log: the lines of the run between."""

    seconds: float
    before: Held
    samples: list[Sample]
    after: Held
    blocks: tuple[int, int]
    good: Result
    bad: Result
    mbit_s: dict[str, list[float]]
    log: list[str] = field(repr=False)

    @property
    def growth(self) -> float:
        """Of the memory that the processes have to themselves, as a share."""
        before = sum(self.before.own.values())
        return sum(self.after.own.values()) / before - 1 if before else 0.0

    @property
    def more_alive(self) -> float:
        """Python objects of the server, by the blocks they are in, as a share."""
        return self.blocks[1] / self.blocks[0] - 1


def faults(seen: Soaked) -> list[str]:
    """What is wrong, in words for people; nothing where all is well."""
    return [*of_clients(seen.good, seen.bad, seen.mbit_s), *_left(seen), *_logged(seen.log)]


def of_clients(good: Result, bad: Result, mbit_s: dict[str, list[float]]) -> Iterator[str]:
    """What clients saw that must not be."""
    for who, result in (("a client", good), ("a client that behaves badly", bad)):
        yield from (f"{who}: {text}" for text in result.faults)
        if (more := result.did["faults"] - len(result.faults)) > 0:
            yield f"and {more} more"
    steady = {name: max(times) for name, times in good.times.items() if name.startswith(STEADY)}
    if not steady:
        yield f"{STEADY}: nothing was done"
    yield from (f"{name} took {ms:,.0f} ms" for name, ms in steady.items() if ms > SLOWEST_MS)
    for way, rates in mbit_s.items():
        if min(rates, default=0.0) <= 0.1:
            yield f"{way}: a bulk flow starved: {', '.join(f'{rate:.2f}' for rate in rates)} Mbit/s"


def _left(seen: Soaked) -> Iterator[str]:
    for name, count in seen.after.counts.items():
        if (before := seen.before.counts[name]) != count:
            yield f"{name}: {before} before, {count} after"
    grown = sum(seen.after.own.values()) - sum(seen.before.own.values())
    allowed, why = GROWTH * sum(seen.before.own.values()), f"{GROWTH:.0%}"
    if seen.seconds < LONG_S:
        allowed, why = YOUNG_MIB, f"runs under {LONG_S / 60:.0f} minutes"
    if grown > allowed:
        yield f"memory grew by {grown:.1f} MiB, {seen.growth:.1%}; allowed are {allowed:.1f} MiB ({why})"
    if seen.more_alive > GROWTH_ALIVE:
        before, after = seen.blocks
        yield f"Python objects: {before:,} blocks before, {after:,} after, {seen.more_alive:.1%} more"


def _logged(lines: Iterable[str]) -> Iterator[str]:
    opened, closed = Counter[int](), Counter[int]()
    for line in lines:
        event = _event(line)
        if event is None:
            yield f"the log: {line.strip()[:200]}"
            continue
        match event.get("event"):
            case "tunnel opened":
                opened[event["session"]] += 1
            case "tunnel closed":
                closed[event["session"]] += 1
        if event.get("level") in ("error", "critical") and event.get("event") not in _EXPECTED:
            yield f"the log: {line.strip()[:300]}"
    if opened != closed or (opened and max(opened.values()) > 1):
        yield f"the log: {opened.total()} tunnels opened, {closed.total()} closed"


def _event(line: str) -> dict[str, object] | None:
    """A line of the log; None for what is none: a traceback, or what a library prints."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def markdown(seen: Soaked) -> str:
    """The tables."""
    return "\n\n".join(["\n".join(_held_rows(seen)), "\n".join(_client_rows(seen)), _done(seen)])


def _held_rows(seen: Soaked) -> Iterator[str]:
    looks = [sample.held for sample in seen.samples] or [seen.before]
    yield f"| held, in {seen.seconds / 60:.1f} minutes | before | at most | after |"
    yield "|---|---|---|---|"
    tunnels = max((sample.tunnels for sample in seen.samples), default=0)
    yield f"| tunnels | 0 | {tunnels} | 0 |"
    for name, before in seen.before.counts.items():
        most = max(look.counts[name] for look in looks)
        yield f"| {name} | {before} | {most} | {seen.after.counts[name]} |"
    for role in ROLES:
        for title, of in (("PSS", "pss"), ("own memory", "own")):
            before, after = getattr(seen.before, of)[role], getattr(seen.after, of)[role]
            most = max(getattr(look, of)[role] for look in looks)
            yield f"| {role}: {title}, MiB | {before:.1f} | {most:.1f} | {after:.1f} |"
    before, after = sum(seen.before.own.values()), sum(seen.after.own.values())
    yield f"| own memory of all three, MiB | {before:.1f} | | {after:.1f} ({seen.growth:+.1%}) |"
    alive, now = seen.blocks
    yield f"| server: blocks of Python objects | {alive:,} | | {now:,} ({seen.more_alive:+.1%}) |"


def _client_rows(seen: Soaked) -> Iterator[str]:
    yield "| clients | times | p50 ms | p99 | longest |"
    yield "|---|---|---|---|---|"
    for kind, times in sorted(seen.good.times.items()):
        p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
        yield f"| {kind} | {len(times):,} | {p50:.1f} | {p99:.1f} | {max(times):.0f} |"
    for way, rates in seen.mbit_s.items():
        yield f"| {way}, Mbit/s of each | {', '.join(f'{rate:.1f}' for rate in rates)} | | | |"


def _done(seen: Soaked) -> str:
    """How often what was done, and how tunnels ended."""
    did = sorted((seen.good.did + seen.bad.did).items())
    ends = Counter(
        str(event.get("reason"))
        for line in seen.log
        if (event := _event(line)) is not None and event.get("event") == "tunnel closed"
    )
    acts = ", ".join(f"{name} {count:,}" for name, count in did)
    return f"Done: {acts}.\n\nTunnels ended: " + ", ".join(f"{why} {n:,}" for why, n in ends.most_common())
