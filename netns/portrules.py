"""The part of a tunnel's firewall that judges ports; see `netns.ruleset`. Pure."""

from collections.abc import Iterable

from netns.spec import ALL_PORTS, PortRange


def refused_ports(protocol: str, denied: Iterable[PortRange], allowed: Iterable[PortRange]) -> Iterable[str]:
    """Rules that refuse ports, by the one the guest dialled, which dnat may have changed by now."""
    refuse = "counter name denied_port goto refuse"
    dialled = f"meta l4proto {protocol} ct original proto-dst"
    if listed := _port_set(denied):
        yield f"{dialled} {listed} {refuse}"
    if not (listed := _port_set(allowed)):
        yield f"meta l4proto {protocol} {refuse}"
    elif not has_all(allowed):
        yield f"{dialled} != {listed} {refuse}"


def refused_udp_sources(denied: Iterable[PortRange], allowed: Iterable[PortRange]) -> Iterable[str]:
    """Rules that drop datagrams which come from such a port."""
    if listed := _port_set(denied):
        yield f"udp sport {listed} drop"
    if not (listed := _port_set(allowed)):
        yield "drop"
    elif not has_all(allowed):
        yield f"udp sport != {listed} drop"


def has_all(ranges: Iterable[PortRange]) -> bool:
    """Whether no port is missing."""
    return _merged(ranges) == list(ALL_PORTS)


def _port_set(ranges: Iterable[PortRange]) -> str:
    listed = ", ".join(f"{first}-{last}" for first, last in _merged(ranges))
    return f"{{ {listed} }}" if listed else ""


def _merged(ranges: Iterable[PortRange]) -> list[PortRange]:
    """Sorted and without overlap, as nft wants the elements of a set."""
    merged: list[PortRange] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged
