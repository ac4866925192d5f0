"""`aero-l2 policy`: what a guest may reach with these settings, for one destination or as packet rules."""

from __future__ import annotations

import os
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Annotated, Final, NoReturn

import dns.name
import typer
from dns.rdatatype import RdataType

from aero_l2.cli.errors import EXIT_USAGE, complain
from aero_l2.config import ForwardRule, Settings, gather, load
from aero_l2.config.values import BadValue, host_name, port_number
from aero_l2.errors import ConfigError
from aero_l2.policy.domains import DomainLists
from aero_l2.policy.egress import EgressPolicy
from aero_l2.policy.explain import Destination, Protocol, Verdict, explain, explain_name
from aero_l2.policy.ipv6 import why_denied
from aero_l2.services.dns.local_names import owner_of_denial
from aero_l2.session.spec import segment_spec
from netns import link, pings, ruleset
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
    """Say whether a guest may reach an address or look a name up, and which rule and setting decide.

    Addresses of this machine, as it is now, are judged as the host's. Without a port, the address or the name
    alone is judged; names are not looked up. Exit status 0: allowed, 1: denied, 2: cannot say, or depends.
    """
    protocol: Protocol = "ping" if ping else "udp" if udp else "tcp"
    if (address := _ipv6(destination)) is not None:
        denied = [prefix for prefix in _settings(config).denied_cidrs if isinstance(prefix, IPv6Network)]
        typer.echo(str(Verdict(False, why_denied(address, denied))))
        raise typer.Exit(EXIT_DENIED)
    host, port = _destination(destination, protocol)
    settings = _settings(config)
    policy, domains = EgressPolicy.of(settings), DomainLists.of(settings)
    if isinstance(host, str):
        verdict = _of_own_names(settings, host) or explain_name(policy, domains, host, protocol, port)
    else:
        dialled = Destination(host, protocol, port)
        verdict = explain(policy, settings.forwards, _host_networks(), dialled, domains)
    typer.echo(str(verdict))
    if verdict.depends:
        raise typer.Exit(EXIT_USAGE)
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
    typer.echo(ruleset.render(spec, _host_networks(), pings.ping_permitted()), nl=False)


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


def _of_own_names(settings: Settings, name: str) -> Verdict | None:
    """What is decided about a name ahead of the lists, or about one that means something only here."""
    given = [str(address) for known, address in settings.dns_a if known == name]
    if given:
        said = f"AERO_L2_DNS_A says {', '.join(given)}, ahead of every list"
        return Verdict(True, f"{said}; its addresses are judged one by one")
    if DomainLists.of(settings).denies(name.encode().split(b".")) or settings.allow_private_ips:
        return None
    if owner_of_denial(dns.name.from_text(name), RdataType.A) is None:
        return None
    return Verdict(
        False,
        "names of the operator's network are not asked for; AERO_L2_DNS_A gives guests one, "
        "AERO_L2_ALLOW_PRIVATE_IPS all of them",
    )


def _destination(text: str, protocol: Protocol) -> tuple[IPv4Address | str, int | None]:
    """An address or a name, and a port."""
    host, colon, port = text.partition(":")
    try:
        number = port_number(port) if colon else None
        if protocol == "ping" and number is not None:
            _refuse(f"{text!r} has a port: ping has none")
        return _address(host) or host_name(host), number
    except BadValue as fault:
        _refuse(f"{text!r} {fault}: {fault.fix}")


def _address(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


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
