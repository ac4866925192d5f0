"""What to type where a session could not be made, from the reason that netd or the supervisor gave. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from aero_l2.doctor.surroundings import Surroundings

_Fix = Callable[[Surroundings, "re.Match[str]"], tuple[str, ...]]
_KNOWN: Final[tuple[tuple[str, _Fix], ...]] = (
    (r"^nft is not installed", lambda place, _: place.install("nft")),
    (
        r"slirp4netns 1\.0 or later|^slirp4netns is not installed",
        lambda place, _: place.install("slirp4netns"),
    ),
    (r"^/dev/net/tun is missing|^cannot make the TAP", lambda place, _: place.device()),
    (r"^no permission on /dev/net/tun", lambda place, _: place.device_mode()),
    (r"modprobe (?:-a )?([\w ]+)", lambda place, found: place.module(*found[1].split())),
    (r"no rule at all can be loaded", lambda place, _: place.module("nf_tables")),
    (r"nf_conntrack_netlink", lambda place, _: place.module("nf_conntrack_netlink")),
    (
        r"user\.max_net_namespaces",
        lambda place, _: place.sysctl("user.max_net_namespaces", "15000"),
    ),
    (r"LimitNOFILE", lambda place, _: place.limit("LimitNOFILE=65536", "ulimit -n 65536")),
    (r"TasksMax", lambda place, _: place.limit("TasksMax=infinity", "ulimit -u unlimited")),
    (r"^cannot make a user namespace", lambda place, _: place.namespaces() or ("aero-l2 doctor",)),
)


def advice(reason: str, place: Surroundings) -> tuple[str, ...]:
    """What to type, empty where nothing is known to help."""
    for pattern, fix in _KNOWN:
        if found := re.search(pattern, reason):
            return fix(place, found)
    return ()
