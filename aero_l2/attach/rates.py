"""What passes between a machine and its tunnel in numbers: totals, rates, and a line of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from aero_l2.attach.relay import Counters

_MEGA: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class View:
    """One look at a connection. since_s: how long the present tunnel has been open, None without one."""

    counters: Counters
    rtt_s: float | None
    since_s: float | None
    has_machine: bool
    state: str


@dataclass(frozen=True, slots=True)
class Rates:
    """Of one direction each: frames and megabits a second."""

    sent_fps: float = 0.0
    sent_mbit_s: float = 0.0
    received_fps: float = 0.0
    received_mbit_s: float = 0.0


def copied(counters: Counters) -> Counters:
    """The counters as they are now."""
    return Counters(**{field.name: getattr(counters, field.name) for field in fields(counters)})


def rates(before: Counters, after: Counters, seconds: float) -> Rates:
    """What happened between two looks; nothing if no time has passed."""
    if seconds <= 0:
        return Rates()
    return Rates(
        (after.frames_sent - before.frames_sent) / seconds,
        (after.bytes_sent - before.bytes_sent) * 8 / _MEGA / seconds,
        (after.frames_received - before.frames_received) / seconds,
        (after.bytes_received - before.bytes_received) * 8 / _MEGA / seconds,
    )


def status_line(view: View, now: Rates) -> str:
    """What a terminal of 80 columns shows of it: what may be wrong first. ↑: from the machine."""
    age = f" {duration(view.since_s)}" if view.since_s is not None else ""
    machine = "" if view.has_machine else " · no machine"
    rtt = f" · RTT {_short(view.rtt_s * 1000)} ms" if view.rtt_s is not None else ""
    megabits = f"↑{_short(now.sent_mbit_s)} ↓{_short(now.received_mbit_s)} Mbit/s"
    frames = f"↑{_count(now.sent_fps)} ↓{_count(now.received_fps)}/s"
    flow = f" · {megabits} · {frames}" if view.has_machine else ""
    return f"{view.state}{age}{machine} · dropped {_count(view.counters.dropped)}{rtt}{flow}"


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 99.95 else f"{number:.0f}"


def _count(number: float) -> str:
    if number < 10_000:
        return f"{number:.0f}"
    return f"{number / 1000:.0f}k" if number < 10_000_000 else f"{number / _MEGA:.0f}M"


def summary(view: View, average: Rates) -> dict[str, object]:
    """What a log line says of it: totals since the start, rates since the line before."""
    counters = view.counters
    drops = {
        field.name: getattr(counters, field.name)
        for field in fields(counters)
        if field.name.startswith("dropped_") and getattr(counters, field.name)
    }
    return {
        "state": view.state,
        "machine": view.has_machine,
        "rtt_ms": None if view.rtt_s is None else round(view.rtt_s * 1000, 1),
        "frames_sent": counters.frames_sent,
        "bytes_sent": counters.bytes_sent,
        "sent_mbit_s": round(average.sent_mbit_s, 3),
        "frames_received": counters.frames_received,
        "bytes_received": counters.bytes_received,
        "received_mbit_s": round(average.received_mbit_s, 3),
        "dropped": counters.dropped,
        **drops,
    }


def duration(seconds: float) -> str:
    """A span of time, short: 9s, 4m05s, 3h07m."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"
