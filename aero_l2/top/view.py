"""What is on the screen: lines of text with styles. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rich.text import Text

from aero_l2.top.columns import amount, duration, fitting, heading, row
from aero_l2.top.snapshot import Document
from aero_l2.top.state import State

_KEYS: Final = "q quit  s sort  i invert  p pause  space now  up/down select  K close  ? help"
_HELP: Final = (
    "r b d f a   sort by rate, bytes, denials, flows, age; s: the next of them; i: the other way round",
    "up down     select a session (k j, page up, page down, home, end)",
    "K           close the selected session, once you have confirmed it",
    "p           stand still; space: look now",
    "q, Ctrl-C   quit",
    "",
    "UP is from the guests, DOWN to them, in bytes. DENIED: packets and names that policy refused. DROPS:",
    "frames and packets lost. BUFFER: bytes that wait for the client, with ! where it does not keep up.",
    "",
    "Any key: back.",
)


def screen(state: State, width: int, height: int, now: float) -> list[Text]:
    """As many lines as there are, none wider. now: monotonic seconds."""
    head = header(state, now)
    if state.help:
        body = [Text(line) for line in _HELP]
    else:
        body = _table(state, width, max(0, height - len(head) - 2))
    lines = [*head, *body][: max(0, height - 1)]
    lines += [Text("")] * (height - 1 - len(lines))
    lines.append(_foot(state))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines[:height]


def header(state: State, now: float) -> list[Text]:
    """How the server is, and what is missing; without the sessions."""
    shown = state.shown
    lines = [_server(state, now)]
    if shown is None:
        return [*lines, *_missing({})]
    return [*lines, Text(_counts(shown)), Text(_traffic(shown["totals"])), *_missing(shown["missing"])]


def _server(state: State, now: float) -> Text:
    server: Mapping[str, Any] = (state.shown or {}).get("server") or {}
    line = Text.assemble(("aero-l2", "bold"), f" {server.get('version') or ''}".rstrip())
    if server.get("pid"):
        line.append(f"  pid {server['pid']}  up {duration(server.get('uptime_s'))}")
    for text, style in _conditions(state, server, now):
        line.append("  ")
        line.append(text, style)
    return line


def _conditions(state: State, server: Mapping[str, Any], now: float) -> list[tuple[str, str]]:
    """How it is: words and their styles."""
    found: list[tuple[str, str]] = []
    if state.failing_since is not None:
        found.append((f"GONE for {duration(now - state.failing_since)}, trying again", "bold red"))
    elif state.shown is None:
        found.append(("looking", "dim"))
    elif server.get("draining"):
        found.append(("DRAINING", "bold yellow"))
    elif server.get("ready") is False:
        found.append((f"NOT READY: {server.get('unready_reason')}", "bold red"))
    elif server.get("ready"):
        found.append(("ready", "green"))
    if server.get("network_helper") is False:
        found.append(("NETWORK HELPER GONE", "bold red"))
    if state.paused:
        found.append(("paused", "bold"))
    return found


def _counts(shown: Document) -> str:
    totals, capacity, lag = shown["totals"], shown["capacity"], shown["loop_lag"]
    parts = [
        f"sessions {amount(totals['sessions'])} ({amount(totals['sessions_kept'])} kept)",
        f"set-ups {amount(totals['setups_active'])} ({amount(totals['setups_waiting'])} waiting)",
    ]
    if capacity is not None:
        limit = capacity["tunnels"]
        parts.append(f"capacity {limit} by {capacity['binding']}" if limit is not None else "no limit")
    if lag is not None:
        below = lag["p99_below_ms"]
        parts.append(f"lag {lag['mean_ms']:.1f} ms, 99% {f'< {below:g} ms' if below is not None else 'more'}")
    return "  ".join(parts)


def _traffic(totals: Document) -> str:
    parts = [
        f"up {amount(totals['bytes_rx_per_s'])}B/s {amount(totals['frames_rx_per_s'])}f/s",
        f"down {amount(totals['bytes_tx_per_s'])}B/s {amount(totals['frames_tx_per_s'])}f/s",
        f"flows {amount(totals['tcp_flows'])} tcp {amount(totals['udp_flows'])} udp",
        f"denied {amount(totals['denied_per_s'])}/s ({amount(totals['denied'])})",
        f"drops {amount(totals['dropped_per_s'])}/s ({amount(totals['dropped'])})",
        f"dns {amount(totals['dns_queries_per_s'])}/s",
    ]
    return "  ".join(parts)


def _missing(missing: Mapping[str, str]) -> list[Text]:
    return [Text(f"without {what}: {why}", style="yellow") for what, why in missing.items()]


def _table(state: State, width: int, rows: int) -> list[Text]:
    """The sessions around the selected one."""
    if state.shown is None or state.shown["sessions"] is None:
        return []
    columns, spare = fitting(width)
    sessions = state.sessions
    state.page = max(1, rows)
    at = state.index(sessions)
    first = max(0, min(at - rows + 1, len(sessions) - rows)) if at >= rows else 0
    style = "dim" if state.failing_since is not None else ""
    lines = [Text(heading(columns, spare, state.sort).ljust(width), style="reverse")]
    for number, facts in enumerate(sessions[first : first + rows], first):
        text = row(columns, spare, facts)
        lines.append(
            Text(text.ljust(width), style="bold reverse") if number == at else Text(text, style=style)
        )
    return lines


def _foot(state: State) -> Text:
    if state.kicking is not None:
        return Text(
            f"close session {state.kicking}? its client is told so (1008). y: yes", style="bold yellow"
        )
    return Text(state.message, style="bold") if state.message else Text(_KEYS, style="dim")
