"""Settings of the network that are accepted and do nothing, because of themselves or of another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from aero_l2.auth.modes import AuthMode
from aero_l2.config.given import Given
from aero_l2.config.show import shown

_LISTS: Final = ("allowed_domains", "blocked_domains", "denied_cidrs", "allowed_cidrs")
_BURSTS: Final = {"max_bytes_burst": "max_bytes_per_second", "max_packets_burst": "max_packets_per_second"}
_NAMES: Final = {
    "max_bytes_per_second": "AERO_L2_MAX_BYTES_PER_SECOND",
    "max_packets_per_second": "AERO_L2_MAX_PACKETS_PER_SECOND",
}


def about(fields: Mapping[str, Any], given: Mapping[str, Given]) -> Iterator[str]:
    """A line for each; a field that is missing had a fault of its own, and nothing follows from it."""
    for field in _LISTS:
        if field in given and fields.get(field) == ():
            yield f"{given[field].assignment()} lists nothing, so it counts as unset"
    for burst, rate in _BURSTS.items():
        if fields.get(burst) and fields.get(rate) == 0:
            yield f"{given[burst].subject} has no effect: {given[burst].called(_NAMES[rate])} is not set"
    yield from _blocked_wholly(fields, given)
    yield from _never_idle(fields, given)
    yield from _nobodys_hour(fields, given)
    yield from _closed_forwards(fields, given)


def _blocked_wholly(fields: Mapping[str, Any], given: Mapping[str, Given]) -> Iterator[str]:
    blocked = frozenset(fields.get("blocked_domains", ()))
    for domain in fields.get("allowed_domains", ()):
        labels = domain.split(".")
        above = (".".join(labels[first:]) for first in range(len(labels)))
        if holder := next((name for name in above if name in blocked), None):
            yield (
                f"{given['allowed_domains'].subject}: {domain} has no effect: "
                f"{given['blocked_domains'].subject} blocks {holder}"
            )


def _never_idle(fields: Mapping[str, Any], given: Mapping[str, Given]) -> Iterator[str]:
    idle, interval = fields.get("idle_timeout_ms"), fields.get("ping_interval_ms")
    if idle and interval and interval < idle:
        yield (
            f"{given['idle_timeout_ms'].subject} closes only tunnels whose client is gone: the others answer "
            f"the PINGs of {given['ping_interval_ms'].subject}, and answers are messages"
        )


def _nobodys_hour(fields: Mapping[str, Any], given: Mapping[str, Given]) -> Iterator[str]:
    mode = fields.get("auth_mode")
    if fields.get("max_bytes_per_principal_hour") and mode in (AuthMode.NONE, AuthMode.TOKEN):
        yield (
            f"{given['max_bytes_per_principal_hour'].subject} has no effect: with authentication by "
            f"{mode.value} no tunnel has a session id"
        )


def _closed_forwards(fields: Mapping[str, Any], given: Mapping[str, Given]) -> Iterator[str]:
    """The port that the guest dials is judged by the port lists."""
    for protocol in ("tcp", "udp"):
        name = f"AERO_L2_{{}}_{protocol.upper()}_PORTS"
        denied, allowed = fields.get(f"denied_{protocol}_ports"), fields.get(f"allowed_{protocol}_ports")
        if denied is None or allowed is None:
            continue
        for rule in fields.get(f"{protocol}_forward", ()):
            is_denied = _holds(denied, rule.port)
            if is_denied or not _holds(allowed, rule.port):
                refusing = name.format("DENIED" if is_denied else "ALLOWED")
                yield (
                    f"{given[f'{protocol}_forward'].subject}: {shown(rule)} has no effect: {refusing} "
                    f"refuses port {rule.port}"
                )


def _holds(ranges: tuple[tuple[int, int], ...], port: int) -> bool:
    return any(first <= port <= last for first, last in ranges)
