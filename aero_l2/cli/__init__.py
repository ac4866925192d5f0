"""The command line: `aero-l2 serve`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from aero_l2 import __version__
from aero_l2.config.load import load
from aero_l2.config.values import BadValue, listen_address
from aero_l2.errors import ConfigError

EXIT_USAGE = 2
DRIVER = "slirp.slirp4netns:Slirp4netns"
_SYSTEM_PATHS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")

app = typer.Typer(
    name="aero-l2",
    help="A LAN with DHCP, DNS and NAT for virtual machines in browser tabs, over a WebSocket.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"aero-l2 {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    bind: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Where to listen, instead of AERO_L2_PROXY_LISTEN_ADDR."),
    ] = None,
    ready_stdout: Annotated[
        bool,
        typer.Option(
            "--ready-stdout",
            help="Print AERO_L2_PROXY_READY and the URL on stdout once tunnels are accepted.",
        ),
    ] = False,
) -> None:
    """Run the proxy. All settings come from environment variables; docs/SPECIFICATION.md lists them.

    Exit status 2: it cannot start, and one line per fault on stderr says why.
    """
    _open_standard_streams()
    environment = dict(os.environ)
    faults: list[str] = []
    if bind is not None:
        faults += _faults_of_bind(bind)
        environment["AERO_L2_PROXY_LISTEN_ADDR"] = "" if faults else bind
    try:
        loaded = load(environment)
    except ConfigError as error:
        faults += error.faults
    for fault in faults:
        typer.echo(f"aero-l2: {fault}", err=True)
    if faults:
        raise typer.Exit(EXIT_USAGE)
    _become_supervisor(loaded.settings.user, environment, ready_stdout=ready_stdout)


def _faults_of_bind(bind: str) -> list[str]:
    """A blank --bind is a fault too: falling back to the default would listen where nobody asked to."""
    try:
        listen_address(bind.strip())
    except BadValue as fault:
        return [f"--bind={bind!r} {fault}: {fault.fix}"]
    return []


def _open_standard_streams() -> None:
    """Open /dev/null for standard streams that are closed, else the next socket would become one of them."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: this one
            os.set_inheritable(descriptor, True)


def _become_supervisor(user: str | None, environment: dict[str, str], *, ready_stdout: bool) -> NoReturn:
    """Replace this process by the supervisor, which needs none of what was imported here."""
    server = [sys.executable, "-I", "-m", "aero_l2.app", *(["--ready-stdout"] if ready_stdout else [])]
    launch = [sys.executable, "-I", "-m", "netns.launch"]
    launch += ["--driver", DRIVER, "--search-path", _search_path(environment)]
    launch += ["--user", user] if user else []
    if sys.stdout is not None:  # closed by whoever started us
        sys.stdout.flush()
    # The supervisor unblocks them once it can pass them on, so that none is lost in between.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    os.execve(sys.executable, [*launch, "--", *server], environment)


def _search_path(environment: dict[str, str]) -> str:
    """PATH, then where Debian keeps nft and slirp4netns, which an ordinary user's PATH leaves out."""
    given = environment.get("PATH", "").split(":")
    absolute = [folder for folder in given if folder.startswith("/")]
    return ":".join(dict.fromkeys([*absolute, *_SYSTEM_PATHS]))


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C before the start is an end, not a traceback
    app()
