"""The command line of a run, and what is wrong with it: judged before anything is measured."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from aero_l2.client.address import InvalidTarget, Target
from bench import outputs, page, settings, wire
from bench.run import BY_NAME_ONLY, INSIDE_ONLY, NEED_PEER, PARTS, Order

EPILOG = """
./dev bench compare A.json B.json [--within PERCENT]   by how much the CPU medians of two runs differ
./dev bench peer ADDRESS                               the far end for --peer: where guests reach it

AERO_L2_CLIENT_TOKEN, AERO_L2_BENCH_ORIGIN: credential and Origin for --url.
Exit status: 1 where runs differ by more than --within, or every one of many tunnels failed; 2 where
something could not be done. A GB is 10^9 bytes of payload.
"""


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises SystemExit."""
        raise SystemExit(f"bench: {message} ({self.prog} --help says more)")


def _setting(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError("expected NAME=VALUE, as in AERO_L2_RECEIVE_PATH=library")
    return name, value


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return value


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage from 0 on")
    return value


def parser() -> Parser:
    """Of a run."""
    made = Parser(
        prog="./dev bench",
        description="Measures a whole server, in namespaces that nothing leaves, and prints medians.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("--rounds", type=_positive, metavar="N", help="values of each figure (5; with --quick 1)")
    add("--quick", action="store_true", help="little of everything, in about a minute: to see that it works")
    add("--only", action="append", choices=PARTS, default=[], help="this, and no other; repeatable")
    json_help = "the run as JSON; the n-th of --repeat goes to FILE's name-n"
    add("--json", type=outputs.place, metavar="FILE", help=json_help)
    add("--write", action="store_true", help="put tables and plots into docs/")
    plot_help = "a plot of each table (matplotlib is installed for it)"
    add("--plot", type=outputs.place, metavar="FOLDER", help=plot_help)
    add("--repeat", type=_positive, default=1, metavar="N", help="so many runs, each compared with the first")
    _add_within(made, "for --repeat and compare (15)")
    several: dict[str, Any] = {"type": _setting, "action": "append", "default": [], "metavar": "NAME=VALUE"}
    add("--set", **several, help="a setting of the server")
    add("--also", **several, help="a second server with it")
    add("--tunnels", type=_positive, metavar="N", help="of `many` (1000)")
    add("--url", help="measure this server from outside; nothing else is contacted")
    add("--peer", metavar="ADDRESS", help="with --url: where `./dev bench peer` runs, as its guests reach it")
    add("--judge", action="store_true", help=argparse.SUPPRESS)  # ./dev asks before it installs anything
    return made


def comparing() -> Parser:
    """Of `compare`."""
    made = Parser(prog="./dev bench compare", description="By how much the CPU medians of two runs differ.")
    made.add_argument("first", type=outputs.place)
    made.add_argument("second", type=outputs.place)
    _add_within(made, "what may differ (15)")
    return made


def _add_within(to: Parser, text: str) -> None:
    to.add_argument("--within", type=_percent, default=15, metavar="PERCENT", help=text)


def order_of(given: argparse.Namespace) -> Order:
    """What the options come to. Raises SystemExit with what is wrong."""
    fault = next(_faults(given), None)
    if fault is not None:
        raise SystemExit(f"bench: {fault}")
    order = Order(
        rounds=given.rounds or (1 if given.quick else 5),
        quick=given.quick,
        only=tuple(given.only),
        settings=dict(given.set),
        also=dict(given.also),
        tunnels=given.tunnels,
        target=_target(given.url) if given.url is not None else None,
        peer=given.peer,
    )
    if not order.parts():
        named = ", ".join(given.only)
        why = "with --url only those of a server's outside are measured"
        if set(given.only) <= {*NEED_PEER}:
            why = "with --url these need --peer"
        raise SystemExit(f"bench: nothing of that can be measured: {named}: {why}")
    return order


def left_out(order: Order) -> str | None:
    """What of a server elsewhere is not measured although it was meant, and why."""
    if order.target is None:
        return None
    missing = [part for part in order.only or PARTS if part not in (*order.parts(), *BY_NAME_ONLY)]
    said = [
        (", ".join(part for part in missing if part in NEED_PEER), "without --peer"),
        (", ".join(part for part in missing if part in INSIDE_ONLY and order.only), "of a server elsewhere"),
    ]
    return "; ".join(f"{why} there is no {parts}" for parts, why in said if parts) or None


def _target(url: str) -> Target:
    if "://" not in url:
        raise SystemExit(
            "bench: --url takes an address with ws:// or wss:// in front, like ws://127.0.0.1:8090/l2"
        )
    try:
        return wire.target_of(url)
    except InvalidTarget as error:
        raise SystemExit(f"bench: {error}") from None


def _faults(given: argparse.Namespace) -> Iterator[str]:
    """What cannot be, in the order in which one would want to hear it."""
    if given.url is not None and (given.set or given.also or given.write):
        yield "--set, --also and --write are for a server of its own, not for --url"
    if given.url is None and given.peer:
        yield "--peer goes with --url"
    for option, entries in (("--set", given.set), ("--also", [*given.set, *given.also])):
        if entries and (fault := settings.fault(dict(entries))):
            yield f"{option}: {fault}"
    for number in range(1, given.repeat + 1 if given.json else 1):
        if fault := outputs.fault_of_file(numbered(given.json, number)):
            yield f"--json: {fault}"
    if given.plot and (fault := outputs.fault_of_folder(given.plot)):
        yield f"--plot: {fault}"
    if given.write and (fault := page.fault()):
        yield f"--write: {fault}"


def numbered(path: Path, number: int) -> Path:
    """Where the n-th of repeated runs goes."""
    return path if number == 1 else path.with_stem(f"{path.stem}-{number}")
