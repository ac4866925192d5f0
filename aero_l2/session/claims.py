"""Kept tunnels that are promised to a new one, and give way once its segment stands (docs/adr/0020)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from aero_l2.errors import AtCapacity
from aero_l2.session.registry import Permit, Permits
from aero_l2.session.tunnel import Tunnel


@dataclass(frozen=True, slots=True)
class Hold:
    """What a live tunnel has of us. released: set when nothing of it is left."""

    tunnel: Tunnel
    permit: Permit
    released: asyncio.Event


class Claim(list[Hold]):
    """What is promised to one new tunnel; a hold whose client has come back is promised to nobody."""

    def spare(self, permits: Permits) -> None:
        """Keep what need not give way, for something else has ended; that which was kept longest last."""
        for hold in reversed(self):
            if hold.permit.promised_to is self:
                with suppress(AtCapacity):
                    permits.check(hold.tunnel.holder)
                    hold.permit.keep()


@contextmanager
def claiming() -> Iterator[Claim]:
    """A claim; whatever is promised still when it ends is kept."""
    claim = Claim()
    try:
        yield claim
    finally:
        for hold in claim:
            if hold.permit.promised_to is claim:
                hold.permit.keep()
