"""A TAP as the machine: an interface of this host."""

from __future__ import annotations

import os

from aero_l2.attach.errors import TapUnusable
from aero_l2.attach.tapdevice import bring_up, open_tap, set_carrier
from aero_l2.attach.unixsockets import Serve
from aero_l2.attach.wires import MessageWire


class Tap:
    """A TAP of this network namespace, gone afterwards unless it was there before. Raises TapUnusable."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._fd = open_tap(name)
        try:
            bring_up(name)
        except BaseException:
            os.close(self._fd)
            raise

    async def run(self, serve: Serve) -> None:
        """Carry its frames. Raises TapUnusable when it is gone."""
        await serve(MessageWire(os.dup(self._fd), lossy=True))
        raise TapUnusable(f"the interface {self.name} is gone: somebody removed it")

    def carrier(self, is_on: bool) -> None:
        """Show the interface's users whether there is a tunnel, so that they ask for a lease again."""
        set_carrier(self._fd, on=is_on)
