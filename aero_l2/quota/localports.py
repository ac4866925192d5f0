"""The ports that the kernel gives to sockets that ask for none (ip(7))."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from aero_l2.quota.cgroups import number

NAME: Final = "net.ipv4.ip_local_port_range"
"""Of IPv6 too, and of each network namespace."""
PATH: Final = "proc/sys/net/ipv4/ip_local_port_range"
_FIRST, _LAST = 1024, 65535
"""Of those that need no privilege."""


def local_ports(text: str) -> range | None:
    """The range, from the text of its file; None where that says nothing."""
    bounds = [number(word) for word in text.split()]
    match bounds:
        case [int(first), int(last)] if first <= last:
            return range(first, last + 1)
    return None


def other_port(chance: random.Random, root: Path = Path("/")) -> int | None:
    """One by chance of those that the kernel gives to nobody by itself and anybody may ask for."""
    try:
        given = local_ports((root / PATH).read_text())
    except OSError:
        given = None
    if given is None:
        return chance.randint(_FIRST, _LAST)
    below = range(_FIRST, given[0])
    above = range(max(_FIRST, given[-1] + 1), _LAST + 1)
    number_of = len(below) + len(above)
    if not number_of:
        return None
    place = chance.randrange(number_of)
    return below[place] if place < len(below) else above[place - len(below)]
