"""`aero-l2 policy`: what a guest may reach with these settings, for one destination or as packet rules."""

from __future__ import annotations

import os
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address
from typing import Annotated, Final, NoReturn

import typer

from aero_l2.cli.errors import EXIT_USAGE, complain
from aero_l2.config import ForwardRule, Settings, gather, load
from aero_l2.config.values import BadValue, port_number
from aero_l2.errors import ConfigError
from aero_l2.policy.egress import EgressPolicy
from aero_l2.policy.explain import Destination, Protocol, Verdict, explain
from aero_l2.policy.ipv6 import why_denied
from aero_l2.session.spec import segment_spec
from netns import hosts, link, ruleset
from netns.spec import Forward

EXIT_DENIED: Final = 1
app = typer.Typer(help="What a guest may reach with these settings.", no_args_is_help=True)
Config = Annotated[
    str | None,
    typer.Option(metavar="PATH", help="A TOML file of settings; variables of the environment win over it."),
]


@app.command("explain")
def explain_(
    destination: Annotated[str, typer.Argument(metavar="DEST[:PORT]", help="What a guest would dial.")],
    udp: Annotated[bool, typer.Option("--udp", help="A UDP port instead of a TCP port.")] = False,
    ping: Annotated[bool, typer.Option("--ping", help="An echo request, which has no port.")] = False,
    config: Config = None,
) -> None:
    """Say whether a guest may reach an address, and which rule and setting decide.

    Addresses of this machine, as it is now, are judged as the host's. Without a port, the address alone is
    judged. Exit status 0: allowed, 1: denied, 2: cannot say.
    """
    protocol: Protocol = "ping" if ping else "udp" if udp else "tcp"
    if (address := _ipv6(destination)) is not None:
        typer.echo(str(Verdict(False, why_denied(address))))
        raise typer.Exit(EXIT_DENIED)
    dialled = _destination(destination, protocol)
    settings = _settings(config)
    verdict = explain(EgressPolicy.of(settings), settings.forwards, _host_networks(), dialled)
    typer.echo(str(verdict))
    if not verdict.allowed:
        raise typer.Exit(EXIT_DENIED)


@app.command()
def show(config: Config = None) -> None:
    """Print the nftables rules that a tunnel gets on this machine, as it is now."""
    settings = _settings(config)
    known = [forward for rule in settings.forwards if (forward := _forward(rule))]
    for rule in settings.forwards:
        if isinstance(rule.host, str):
            typer.echo(
                f"# {rule.protocol} {rule.address}:{rule.port} goes to {rule.host}:{rule.target_port}, "
                "which is looked up for each tunnel"
            )
    spec = segment_spec(settings, tuple(known))
    typer.echo(ruleset.render(spec, _host_networks(), hosts.ping_permitted()), nl=False)


def _forward(rule: ForwardRule) -> Forward | None:
    if isinstance(rule.host, str):
        return None
    return Forward(rule.protocol, rule.address, rule.port, rule.host, rule.target_port)


def _ipv6(text: str) -> IPv6Address | None:
    """The IPv6 address that `ADDRESS` or `[ADDRESS]:PORT` begins with, None where there is none."""
    try:
        return IPv6Address(text[1:].partition("]")[0] if text.startswith("[") else text)
    except AddressValueError:
        return None


def _destination(text: str, protocol: Protocol) -> Destination:
    host, colon, port = text.partition(":")
    try:
        address = IPv4Address(host)
        number = port_number(port) if colon else None
    except AddressValueError:
        _refuse(
            f"{text!r} does not start with an IPv4 address: look names up first, their addresses are judged"
        )
    except BadValue as fault:
        _refuse(f"{text!r} {fault}: {fault.fix}")
    if protocol == "ping" and number is not None:
        _refuse(f"{text!r} has a port: ping has none")
    return Destination(address, protocol, number)


def _host_networks() -> frozenset[IPv4Network]:
    try:
        return link.host_networks()
    except OSError as error:
        _refuse(f"cannot read the addresses of this machine: {error.strerror}")


def _settings(config: str | None) -> Settings:
    try:
        return load(gather(os.environ, config)).settings
    except ConfigError as error:
        _refuse(*error.faults)


def _refuse(*lines: str) -> NoReturn:
    complain(*lines)
    raise typer.Exit(EXIT_USAGE)
