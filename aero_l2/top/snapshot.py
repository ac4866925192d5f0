"""What two looks at a server, one after the other, say of it. Pure; docs/admin.md has the fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from aero_l2.top.source import Reading, Samples
from aero_l2.web.echo import echo

SERVER_FIELDS: Final = (
    "version",
    "pid",
    "uptime_s",
    "ready",
    "unready_reason",
    "draining",
    "network_helper",
    "listening",
)
_COUNTERS: Final = {
    "bytes_rx": "l2_bytes_rx_total",
    "bytes_tx": "l2_bytes_tx_total",
    "frames_rx": "l2_frames_rx_total",
    "frames_tx": "l2_frames_tx_total",
    "dropped": "l2_frames_dropped_total",
    "denied": "l2_policy_denied_total",
    "dns_queries": "l2_dns_queries_total",
    "sessions_opened": "l2_sessions_total",
}
_OF_SESSIONS: Final = {
    "bytes_rx": ("bytes_rx",),
    "bytes_tx": ("bytes_tx",),
    "frames_rx": ("frames_rx",),
    "frames_tx": ("frames_tx",),
    "dropped": ("frames_dropped", "packets_dropped"),
    "denied": ("denied", "dns_denied"),
    "dns_queries": ("dns_queries",),
}
_RATED: Final = ("bytes_rx", "bytes_tx", "frames_rx", "frames_tx")
_LAG: Final = "aero_l2_loop_lag_seconds"

Document = dict[str, Any]


def document(before: Reading | None, now: Reading) -> Document:
    """All there is to say, ready for JSON. Rates are those between the two, None without telling."""
    earlier = before if before is not None and _same_server(before, now) else None
    return {
        "at": round(now.wall, 3),
        "interval_s": None if earlier is None else round(now.at - earlier.at, 3),
        "missing": dict(now.missing),
        "server": None if now.status is None else _safe(now.status, SERVER_FIELDS),
        "totals": _totals(earlier, now),
        "loop_lag": _lag(earlier, now),
        "capacity": _capacity(now),
        "sessions": None if now.sessions is None else _sessions(earlier, now),
    }


def _same_server(before: Reading, now: Reading) -> bool:
    """Whether what was counted goes on: the server was not started anew in between."""
    if before.status is not None and now.status is not None:
        return bool(before.status.get("pid") == now.status.get("pid"))
    started = "l2_sessions_total"
    then, today = _value(before.metrics, started), _value(now.metrics, started)
    return then is None or today is None or today >= then


def _sessions(before: Reading | None, now: Reading) -> list[Document]:
    known = {one["id"]: one for one in (before.sessions or ())} if before is not None else {}
    seconds = now.at - before.at if before is not None else 0.0
    return [_session(one, known.get(one["id"]), seconds) for one in now.sessions or ()]


def _session(one: Mapping[str, Any], earlier: Mapping[str, Any] | None, seconds: float) -> Document:
    """A session's facts, with rates between the looks where both have it; texts are safe to print."""
    facts = _safe(one, one)
    if earlier is not None and seconds > 0:
        facts["rate_window_s"] = round(seconds, 3)
        for name in _RATED:
            facts[f"{name}_per_s"] = _rate(number(earlier, name), number(one, name), seconds)
    return facts


def _safe(facts: Mapping[str, Any], names: Iterable[str]) -> Document:
    """Some of what a server says, with texts that no terminal acts on."""
    given = {echo(str(name)): facts.get(name) for name in names}
    return {name: echo(value) if isinstance(value, str) else value for name, value in given.items()}


def _totals(before: Reading | None, now: Reading) -> Document:
    """Sums over all tunnels since the server's start by /metrics, else over those that stand."""
    totals: Document = {"of": "the process" if now.metrics is not None else "sessions"}
    tunnels = (now.status or {}).get("tunnels")
    states = tunnels if isinstance(tunnels, dict) else {}
    setups = (now.status or {}).get("setups")
    turns = setups if isinstance(setups, dict) else {}
    samples = now.metrics
    totals["sessions"] = _first(
        _value(samples, "l2_sessions_active"), _sum_of(states, "open", "kept", "closing")
    )
    totals["sessions_kept"] = _first(_value(samples, "aero_l2_sessions_kept"), states.get("kept"))
    totals["setups_active"] = _first(_value(samples, "aero_l2_setups_active"), turns.get("active"))
    totals["setups_waiting"] = _first(_value(samples, "aero_l2_setups_waiting"), turns.get("waiting"))
    totals["tcp_flows"] = _first(_value(samples, "l2_tcp_conns_active"), _over(now, ("tcp_flows",)))
    totals["udp_flows"] = _first(_value(samples, "l2_udp_flows_active"), _over(now, ("udp_flows",)))
    for name, metric in _COUNTERS.items():
        value, then = _total(now, name, metric), _total(before, name, metric)
        totals[name] = value
        seconds = now.at - before.at if before is not None else 0.0
        totals[f"{name}_per_s"] = None if then is None or value is None else _rate(then, value, seconds)
    return totals


def _total(reading: Reading | None, name: str, metric: str) -> float | None:
    if reading is None:
        return None
    if reading.metrics is not None:
        return _value(reading.metrics, metric)
    return _over(reading, _OF_SESSIONS[name]) if name in _OF_SESSIONS else None


def _over(reading: Reading, names: tuple[str, ...]) -> float | None:
    if reading.sessions is None:
        return None
    return sum(number(one, name) for one in reading.sessions for name in names)


def _lag(before: Reading | None, now: Reading) -> Document | None:
    """How late the event loop was since the look before, else since the start: mean, and the bound that 99 of
    100 keep, by the buckets of the histogram (None: beyond the last)."""
    if now.metrics is None or f"{_LAG}_bucket" not in now.metrics:
        return None
    count, total, buckets = _histogram(now.metrics)
    if before is not None and before.metrics is not None:
        then_count, then_total, then_buckets = _histogram(before.metrics)
        if count > then_count:
            count, total = count - then_count, total - then_total
            buckets = {bound: value - then_buckets.get(bound, 0.0) for bound, value in buckets.items()}
    if count <= 0:
        return None
    bound = min((bound for bound, value in buckets.items() if value >= 0.99 * count), default=float("inf"))
    return {
        "mean_ms": round(total / count * 1000, 3),
        "p99_below_ms": None if bound == float("inf") else round(bound * 1000, 3),
    }


def _histogram(samples: Samples) -> tuple[float, float, dict[float, float]]:
    buckets = {float(bound): value for bound, value in samples.get(f"{_LAG}_bucket", {}).items()}
    return _value(samples, f"{_LAG}_count") or 0.0, _value(samples, f"{_LAG}_sum") or 0.0, buckets


def _capacity(now: Reading) -> Document | None:
    """Tunnels that each limit allows, None for any number; and which one binds."""
    said = (now.status or {}).get("capacity")
    limits = said.get("limits") if isinstance(said, dict) else None
    if isinstance(limits, dict):
        allowed = {echo(str(name)): value for name, value in limits.items()}
    elif now.metrics is not None and "aero_l2_capacity_tunnels" in now.metrics:
        of_metrics = now.metrics["aero_l2_capacity_tunnels"].items()
        allowed = {echo(name): None if value == float("inf") else int(value) for name, value in of_metrics}
    else:
        return None
    bounded = {name: value for name, value in allowed.items() if value is not None}
    binding = min(bounded, key=lambda name: bounded[name], default=None)
    return {"binding": binding, "tunnels": None if binding is None else bounded[binding], "limits": allowed}


def number(facts: Mapping[str, Any], name: str) -> float:
    """A number of a session's; 0 where it is none."""
    value = facts.get(name)
    return value if isinstance(value, int | float) else 0


def _value(samples: Samples | None, name: str) -> float | None:
    value = None if samples is None else samples.get(name, {}).get("")
    return int(value) if value is not None and value.is_integer() else value


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _sum_of(counts: Mapping[str, Any], *names: str) -> float | None:
    return sum(number(counts, name) for name in names) if counts else None


def _rate(then: float, value: float, seconds: float) -> float | None:
    """None where it went back: something else counts now."""
    return round((value - then) / seconds, 1) if seconds > 0 and value >= then else None
