"""The smallest datagrams, as fast as they get through: 64-byte Ethernet frames, 60 of them on a tunnel."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from bench.figures import Column, Table
from bench.guests import Guest, on_each_path
from bench.lab import Lab, Work
from bench.transfers import WAYS, costs, since, used

UNIT = "CPU s per million arrived"
COLUMNS = (
    Column("received_per_s", "arrived, packets/s"),
    Column("sent_per_s", "sent"),
    Column("server_s_per_million", "server", 1, unit=UNIT),
    Column("server_user_s_per_million", "of it user", 1),
    Column("server_system_s_per_million", "system", 1),
    Column("netd_s_per_million", "netd", 1, unit=UNIT),
    Column("nat_s_per_million", "slirp4netns", 1, unit=UNIT),
    Column("nat_user_s_per_million", "of it user", 1),
    Column("nat_system_s_per_million", "system", 1),
    Column("card_s_per_million", "client", 1, unit=UNIT),
)


def table() -> Table:
    """Nothing measured yet."""
    return Table("packets", "64-byte UDP packets", ("path", "direction"), COLUMNS)


def measuring(lab: Lab) -> AbstractContextManager[Callable[[Table], None]]:
    """A guest on each path; each call takes all of them in turn, both ways."""
    assert lab.peer is not None
    peer = lab.peer
    return on_each_path(lab, WAYS, lambda direction, guest: flooded(guest, direction, peer, lab.work))


def flooded(guest: Guest, direction: str, peer: str, work: Work) -> dict[str, float]:
    """One flood: what was sent, what came."""
    running = guest.traffic(f"udp-{direction}", peer, work.seconds)
    try:
        before = used([guest])
        running.start()
        result = running.result()
        spent = since(before, [guest])
    finally:
        running.close()
    rates = {f"{name}_per_s": result[name] / result["seconds"] for name in ("sent", "received")}
    return {**rates, **costs(spent, max(1, result["received"]) / 1e6, "s_per_million", split=work.split)}
