"""Sees to it that tunnels together hold no more of the host's TCP memory than they may (docs/adr/0023).

A NAT process's TCP sockets are the host's, and what a guest does not take stays in them. The decision is
`netns.hoarding`'s.
"""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from netns import sockets
from netns.children import Child
from netns.hoarding import Holding, by_tunnel, surplus
from netns.lines import log
from netns.messages import Relieved
from netns.segments import Segment

LOOK_S: Final = 1.0
_REST: Final = 20
"""After a look that took long netd does something else for so many times as long."""
_BLIND_S: Final = 5.0
"""Until the next look where the kernel would not tell, which may be for want of memory."""
_MIB: Final = 1 << 20


class TcpMemoryWatch:
    """Looks once a second, closer only while the whole machine's TCP memory is over ``limit`` bytes.

    Args:
        limit: 0 = never look.
        segments: the tunnels' at present, by id.
        relieved: told of each tunnel that lost connections.
        give_up: told the tunnel that holds the most where single connections cannot be ended.
    """

    def __init__(
        self,
        limit: int,
        segments: Mapping[int, Segment],
        relieved: Callable[[Relieved], None],
        give_up: Callable[[int, Child, str], None],
    ) -> None:
        self._limit = limit
        self._segments = segments
        self._relieved = relieved
        self._give_up = give_up
        self._due = 0.0
        self._blinded = ""

    def next_timeout(self, now: float) -> float | None:
        """Seconds until the next look, None where there is none."""
        return max(0.0, self._due - now) if self._limit and self._segments else None

    def look(self, now: float) -> None:
        """Look, if it is time to."""
        if not self._limit or not self._segments or now < self._due:
            return
        began, rest = time.monotonic(), LOOK_S
        try:
            if sockets.tcp_memory() > self._limit:
                self._relieve()
            self._blinded = ""
        except OSError as error:
            if self._blinded != str(error):
                log("warning", "memory of TCP unknown", text=str(error))
            rest, self._blinded = _BLIND_S, str(error)
        self._due = now + max(rest, _REST * (time.monotonic() - began))

    def _relieve(self) -> None:
        places = self._places(sockets.held(os.getuid()))
        before = by_tunnel(places)
        lost: Counter[int] = Counter()
        for one in surplus(places, self._limit):  # the first is of the tunnel that holds the most
            child, fd = places[one]
            try:
                lost[one.tunnel] += sockets.end_connection(child.pidfd, fd, one.inode)
            except OSError as error:
                words = f"{self._words(before, one.tunnel)}; single ones cannot be reset: {error.strerror}"
                self._give_up(one.tunnel, child, words)
                break
        for tunnel, connections in lost.items():
            if connections:
                self._relieved(Relieved(tunnel, connections, self._words(before, tunnel)))

    def _places(self, held: Mapping[int, int]) -> dict[Holding, tuple[Child, int]]:
        """The tunnels' sockets that hold something: whose each is, and its descriptor there."""
        places: dict[Holding, tuple[Child, int]] = {}
        for tunnel, segment in self._segments.items():
            if segment.nat is None or segment.nat.pidfd < 0:
                continue
            with contextlib.suppress(OSError):  # it has just ended, or proc(5) is mounted with hidepid
                for fd, inode in sockets.sockets_of(segment.nat.pid):
                    size = held[inode] if inode in held else _unseen(segment.nat, fd, inode)
                    if size:
                        places[Holding(tunnel, inode, size)] = segment.nat, fd
        return places

    def _words(self, before: Mapping[int, int], tunnel: int) -> str:
        mib = [f"{held / _MIB:.1f}" for held in (before[tunnel], sum(before.values()), self._limit)]
        return (
            f"its TCP connections held {mib[0]} MiB of the host's memory, "
            f"those of all tunnels {mib[1]} instead of at most {mib[2]}"
        )


def _unseen(child: Child, fd: int, inode: int) -> int:
    """A peer's reset takes a connection out of the kernel's tables, and leaves what was not read."""
    with contextlib.suppress(OSError):  # descriptors cannot be taken here
        return sockets.held_unseen(child.pidfd, fd, inode)
    return 0
