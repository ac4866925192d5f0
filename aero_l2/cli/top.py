"""`aero-l2 top`: what the tunnels of a running server do, live or once."""

from __future__ import annotations

import enum
import json as json_module
import os
import sys
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from aero_l2.cli.admin import USUAL_PATH, Config, SocketPath, setting, socket_path
from aero_l2.cli.errors import complain
from aero_l2.cli.reach import fail
from aero_l2.config.values import BadValue, ListenAddress, listen_address
from aero_l2.top.columns import SORTS
from aero_l2.top.live import Live
from aero_l2.top.once import WIDE, look, table
from aero_l2.top.source import Source
from aero_l2.top.state import State
from aero_l2.top.terminal import Terminal

EXIT_NOTHING: Final = 1
_TIMEOUT_S: Final = 5.0
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}

Sort = enum.Enum("Sort", {name: name for name in SORTS}, type=str)  # type: ignore[misc]


def top(
    socket: SocketPath = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Of /metrics. Default: by AERO_L2_METRICS_ADDR or AERO_L2_PROXY_LISTEN_ADDR, else where the "
            "admin socket says it is.",
        ),
    ] = None,
    config: Config = None,
    interval: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            max=3600,
            help="From one look to the next; default: 2, with --once 1.",
        ),
    ] = None,
    sort: Annotated[Sort, typer.Option(help="What the sessions are sorted by.")] = Sort.rate,  # type: ignore[attr-defined]
    once: Annotated[bool, typer.Option("--once", help="Print one table and end.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --once: print one JSON document.")] = False,
) -> None:
    """Watch the tunnels of a running server: rates, drops, denials, flows.

    It reads the admin socket and /metrics; either alone will do, and what is missing is said.
    Exit status 0; 1: with --once, neither could be read. 2: wrong command line, or no terminal.
    """
    if json and not once:
        fail("--json is for --once: give that too")
    source = Source(_socket(socket, config), _url(url, config), _TIMEOUT_S)
    try:
        if once:
            _print_once(source, interval or 1.0, sort.value, as_json=json)
        else:
            _live(source, interval or 2.0, sort.value)
    finally:
        source.close()


def _live(source: Source, interval_s: float, sort: str) -> None:
    if not (_is_terminal(0) and _is_terminal(1)) or os.environ.get("TERM", "dumb") == "dumb":
        fail("this is no terminal: use --once, or --once --json")
    try:
        status = Live(source, interval_s, Terminal(0, 1), State(sort=sort)).run()
    except OSError as error:
        complain(f"the terminal: {error.strerror or error}")
        status = EXIT_NOTHING
    raise typer.Exit(status)


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def _print_once(source: Source, interval_s: float, sort: str, *, as_json: bool) -> None:
    shown, last = look(source, interval_s)
    if last.is_empty:
        complain(*(f"without {what}: {why}" for what, why in last.missing.items()))
        raise typer.Exit(EXIT_NOTHING)
    if as_json:
        typer.echo(json_module.dumps(shown))
        return
    width = os.get_terminal_size(1).columns if sys.stdout is not None and sys.stdout.isatty() else WIDE
    for line in table(shown, sort, width):
        typer.echo(line)


def _socket(given: str | None, config: str | None) -> str | None:
    """The usual place counts only if something is there: without one there is nothing to miss."""
    path = socket_path(given, config)
    return path or (USUAL_PATH if os.path.exists(USUAL_PATH) else None)


def _url(given: str | None, config: str | None) -> str | None:
    if given is not None:
        return _completed(given)
    for name in ("AERO_L2_METRICS_ADDR", "AERO_L2_PROXY_LISTEN_ADDR", "AERO_L2_PROXY_BIND_ADDR"):
        text = setting(name, config)
        if text is not None:
            address = _address(name, text)
            if address.port:
                host = _ANY.get(address.host, address.host)
                return f"http://{f'[{host}]' if ':' in host else host}:{address.port}/metrics"
    return None


def _address(name: str, text: str) -> ListenAddress:
    try:
        return listen_address(text)
    except BadValue as fault:
        fail(f"{name}={text!r} {fault}: {fault.fix}")


def _completed(url: str) -> str:
    """With the path of /metrics, if it has none."""
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        fail("--url is no address of the web: write one like http://127.0.0.1:8090/metrics")
    return url if parts.path.strip("/") else parts._replace(path="/metrics").geturl()
