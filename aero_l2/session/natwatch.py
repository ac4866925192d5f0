"""The watch over a tunnel's NAT process."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from netns.handles import SegmentHandles

_STDERR_KEPT: Final = 2000
_CHATTER: Final = ("sent tapfd=", "received tapfd=", "Starting slirp", "* ", "WARNING: ")


class NatWatch:
    """Tells when a NAT process ends, with the last thing it said.

    `failed` resolves within the same turn of the loop in which the kernel reports the end.
    """

    def __init__(self, handles: SegmentHandles) -> None:
        self._handles = handles
        self._loop = asyncio.get_running_loop()
        self._said = b""
        self.failed: asyncio.Future[str] = self._loop.create_future()

    def start(self) -> None:
        """Begin to watch."""
        self._loop.add_reader(self._handles.process, self._ended)
        self._loop.add_reader(self._handles.stderr, self._spoke)
        self._handles.nat_sick.add_done_callback(self._sick)

    def close(self) -> None:
        """Watch no more; the descriptors stay open."""
        self._loop.remove_reader(self._handles.process)
        self._loop.remove_reader(self._handles.stderr)
        self._handles.nat_sick.remove_done_callback(self._sick)

    def _sick(self, about: asyncio.Future[str]) -> None:
        self._failed(f"the NAT process (slirp4netns) is given up: {about.result()}")

    def _spoke(self) -> None:
        """Keep the end of what it says; one read a turn, so that chatter costs others nothing."""
        try:
            said = os.read(self._handles.stderr, 65536)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said:
            self._said = (self._said + said)[-_STDERR_KEPT:]
        else:
            self._loop.remove_reader(self._handles.stderr)

    def _ended(self) -> None:
        self._spoke()
        self._failed(f"the NAT process (slirp4netns) ended{_last_words(self._said)}")

    def _failed(self, why: str) -> None:
        self.close()
        if not self.failed.done():
            self.failed.set_result(why)


def _last_words(said: bytes) -> str:
    """The last line that is not its ordinary chatter, printable, as ``: …``."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines()]
    spoken = [line for line in lines if line and not line.startswith(_CHATTER)]
    if not spoken:
        return ""
    return ": " + "".join(c for c in spoken[-1][:200] if c.isprintable())
