"""`aero-l2 connect`: a machine, an interface or a command at the other end of a tunnel."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from aero_l2.attach import hints
from aero_l2.attach.aside import Aside
from aero_l2.attach.behind import environment_for
from aero_l2.attach.errors import EXIT_OWN_FAULT, AttachError, CommandNotStarted
from aero_l2.attach.patch import Patch, Port
from aero_l2.attach.run import run_command, run_port
from aero_l2.attach.show import Display, Lines, LiveLine, Log, Silent
from aero_l2.attach.tap import Tap
from aero_l2.attach.unixsockets import Connecting, Listening, listener
from aero_l2.cli.errors import EXIT_USAGE, complain
from aero_l2.cli.reach import (
    CaFile,
    Deliver,
    OpenTimeout,
    Origin,
    Reach,
    Token,
    TokenFile,
    Url,
    fail,
    reach,
)
from aero_l2.client import ClientError, Delivery, Options, ReconnectPolicy
from aero_l2.observe import log

EXIT_NO_TUNNEL: Final = 1
_SCHEME: Final = "unix:"


@dataclass(frozen=True, slots=True)
class _Machine:
    """What is to be attached: one of these."""

    qemu: str | None
    qemu_connect: str | None
    uml: str | None
    tap: str | None
    command: Sequence[str]

    def check(self) -> None:
        options = {
            "--qemu": self.qemu,
            "--qemu-connect": self.qemu_connect,
            "--uml": self.uml,
            "--tap": self.tap,
            "a command after --": self.command or None,
        }
        given = [name for name, value in options.items() if value is not None]
        if self.command and not self.command[0]:
            fail("the command after -- is empty: name a program there")
        if len(given) > 1:
            fail(f"{' and '.join(given)} are given: one tunnel has one machine, leave all but one out")
        if not given:
            fail("say what to attach: one of --qemu, --qemu-connect, --uml, --tap, or a command after --")


def connect(
    url: Url,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- COMMAND …", help="Run it with its network behind the tunnel; needs no privilege."
        ),
    ] = None,
    qemu: Annotated[
        str | None, typer.Option(metavar="unix:PATH", help="Listen on PATH for QEMU's -netdev stream.")
    ] = None,
    qemu_connect: Annotated[
        str | None, typer.Option(metavar="unix:PATH", help="The same with a QEMU that listens (server=on).")
    ] = None,
    uml: Annotated[
        str | None, typer.Option(metavar="PATH", help="Listen on PATH for User Mode Linux (transport=bess).")
    ] = None,
    tap: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Make or use the TAP interface NAME; needs CAP_NET_ADMIN, or its owner."
        ),
    ] = None,
    token: Token = None,
    token_file: TokenFile = None,
    deliver: Deliver = Delivery.SUBPROTOCOL,
    origin: Origin = None,
    ca_file: CaFile = None,
    open_timeout: OpenTimeout = 10.0,
    reconnect: Annotated[
        bool, typer.Option("--reconnect/--no-reconnect", help="Open the next tunnel when one is lost.")
    ] = True,
    attempts: Annotated[
        int, typer.Option(metavar="COUNT", min=0, help="Failures in a row after which it gives up; 0: never.")
    ] = 0,
    keepalive: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="A server that says nothing for so long is lost; 0: never.",
        ),
    ] = Options().keepalive_s,
    report: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="Between two summaries in the log; 0: none.")
    ] = 60.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but what ends it.")] = False,
) -> None:
    """Attach a machine, an interface or a command to a tunnel, and open the next tunnel when one is lost.

    Exit status 0: ended by a signal; 1: there is no tunnel, and trying again is of no use; 2: something is
    wrong with an option or this machine. With a command: the command's, or 125 instead of these, 126 and 127
    if there is no such command.

    Instead of --token and --token-file, the environment may have the credential or the name of its file:
    AERO_L2_CLIENT_TOKEN, AERO_L2_CLIENT_TOKEN_FILE.
    """
    machine = _Machine(qemu, qemu_connect, uml, tap, command or ())
    machine.check()
    for option, seconds in (("--keepalive", keepalive), ("--report", report)):
        if not math.isfinite(seconds):
            fail(f"{option} is a number of seconds")
    where = reach(url, token, token_file, deliver, origin, ca_file, open_timeout)
    where = replace(where, options=replace(where.options, keepalive_s=keepalive))
    policy = ReconnectPolicy(attempts=attempts if reconnect else 1)
    log.configure()
    display = Aside(_display(machine, report, quiet=quiet))
    try:
        status = asyncio.run(_run(machine, where, policy, display, quiet=quiet))
    except CommandNotStarted as fault:
        _end(fault, fault.status)
    except AttachError as fault:
        _end(fault, EXIT_USAGE)
    except ClientError as fault:
        _end(fault, EXIT_OWN_FAULT if command else EXIT_NO_TUNNEL)
    if display.is_stuck:
        os._exit(status)
    raise typer.Exit(status)


def _display(machine: _Machine, report_s: float, *, quiet: bool) -> Display:
    if quiet:
        return Silent()
    if machine.command:
        return Lines()
    return LiveLine() if sys.stderr is not None and sys.stderr.isatty() else Log(report_s)


async def _run(
    machine: _Machine, where: Reach, policy: ReconnectPolicy, display: Display, *, quiet: bool
) -> int:
    if machine.command:
        patch = Patch(where.target, where.options, policy, display)
        return await run_command(machine.command, environment_for(os.environ), patch, display)
    with ExitStack() as stack:
        port, hint = _port(machine, display, stack)
        carrier = port.carrier if isinstance(port, Tap) else lambda is_on: None
        patch = Patch(where.target, where.options, policy, display, carrier)
        if not quiet:
            with suppress(OSError):  # whoever read it is gone
                typer.echo(hint)
        await run_port(port, patch, display)
    return 0


def _port(machine: _Machine, display: Display, stack: ExitStack) -> tuple[Port, str]:
    """The port, and what to do at the machine to use it. Raises AttachError."""
    if machine.qemu is not None:
        path = _path(machine.qemu, "--qemu")
        waiting = stack.enter_context(listener(path, socket.SOCK_STREAM))
        return Listening(waiting, display), f"qemu-system-x86_64 … {hints.qemu(path, listens=False)}"
    if machine.qemu_connect is not None:
        path = _path(machine.qemu_connect, "--qemu-connect")
        return Connecting(path, display), f"qemu-system-x86_64 … {hints.qemu(path, listens=True)}"
    if machine.uml is not None:
        path = Path(machine.uml.removeprefix(_SCHEME)).absolute()
        hint = hints.uml(path)
        waiting = stack.enter_context(listener(path, socket.SOCK_SEQPACKET))
        return Listening(waiting, display), f"linux.uml … {hint}"
    name = machine.tap or ""
    return Tap(name), hints.tap(name)


def _path(text: str, option: str) -> Path:
    if not text.startswith(_SCHEME) or text == _SCHEME:
        fail(f"{option}={text}: write unix:PATH")
    return Path(text.removeprefix(_SCHEME)).absolute()


def _end(fault: Exception, status: int) -> NoReturn:
    complain(str(fault))
    raise typer.Exit(status) from None
