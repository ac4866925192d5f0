"""What upstreams said, for as long as they said it holds (RFC 1035 section 7.4, RFC 2308).

Every tunnel has a cache of its own, so that no guest learns from the time an answer takes what another
asked; all of them share one room. What is kept is the answer as it came: the rules go over it again for every
question, since what is denied changes.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
from dns.message import Message
from dns.nameserver import Nameserver
from dns.rdatatype import RdataType

from aero_l2.services.dns.cost import of_answer
from aero_l2.services.dns.message import Query

# Of all tunnels together: ten thousand answers of usual size.
MAX_BYTES: Final = 16 * 1024 * 1024
# Bookkeeping of an entry, measured: key, times, links.
ENTRY_BYTES: Final = 512
# About a millisecond on the loop for each time it is asked for (`cost`): anyone may ask without end.
MAX_CACHED_COST: Final = 800
MAX_CACHED_BYTES: Final = 4096
# What a tunnel may keep while anything is free.
_FEW: Final = 16

_KEY_FLAGS: Final = int(dns.flags.CD | dns.flags.AD)
_now: Final = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
_Key = tuple[bytes, RdataType, int, bool]


class CacheRoom:
    """What the caches of all tunnels may hold together, in entries (0 = no limit) and in bytes.

    `entries`, `size`: what they hold now.
    """

    def __init__(self, max_entries: int, max_bytes: int = MAX_BYTES) -> None:
        """Empty."""
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self.entries = 0
        self.size = 0

    def admits(self, entries: int, size: int, more: int) -> bool:
        """Whether a cache that has `entries` of `size` bytes may keep `more` bytes in one entry more.

        It may have half of what is free, so that tunnels that ask much leave room for others.
        """
        free = self._max_bytes - self.size
        if more > free or size + more > max(_FEW * (ENTRY_BYTES + MAX_CACHED_BYTES), free // 2):
            return False
        if not self._max_entries:
            return True
        left = self._max_entries - self.entries
        return left > 0 and entries < max(_FEW, left // 2)


class Remembered(NamedTuple):
    """An upstream's answer, and how old it is in whole seconds: less than any TTL in it."""

    message: Message
    age: int


@dataclass(frozen=True, slots=True)
class _Entry:
    wire: bytes
    since: float
    until: float
    size: int


class AnswerCache:
    """One tunnel's answers, the least recently used going first. Use on one event loop."""

    def __init__(
        self,
        room: CacheRoom,
        max_ttl: int,
        clock: Callable[[], float] = _now,
    ) -> None:
        """`max_ttl`: seconds that any answer is kept at most; `clock` goes on while the machine sleeps."""
        self._room = room
        self._max_ttl = max_ttl
        self._clock = clock
        self._servers: Sequence[Nameserver] = ()
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()
        self._size = 0
        self._closed = False

    def __len__(self) -> int:
        """How many answers are kept, outlived ones included."""
        return len(self._entries)

    def get(self, query: Query, servers: Sequence[Nameserver]) -> Remembered | None:
        """What `servers` said to this question, else None; what other servers said is forgotten."""
        if servers is not self._servers:
            self._clear()
            self._servers = servers
        key = key_of(query)
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._clock()
        if now >= entry.until:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return Remembered(dns.message.from_wire(entry.wire), int(now - entry.since))

    def length(self, query: Query) -> int:
        """Bytes of the answer that is kept for this question, outlived or not; 0 where there is none."""
        entry = self._entries.get(key_of(query))
        return 0 if entry is None else len(entry.wire)

    def put(self, query: Query, answer: Message, servers: Sequence[Nameserver]) -> None:
        """Keep what `servers` said, if it may be and there is room."""
        wire = answer.wire
        seconds = min(lifetime(answer, query.rdtype), self._max_ttl)
        if self._closed or servers is not self._servers or seconds < 1 or wire is None:
            return
        if len(wire) > MAX_CACHED_BYTES or of_answer(wire) > MAX_CACHED_COST:
            return
        key = key_of(query)
        if key in self._entries:
            self._drop(key)
        size = len(wire) + len(key[0]) + ENTRY_BYTES
        while not self._room.admits(len(self._entries), self._size, size):
            if not self._entries:
                return
            self._drop(next(iter(self._entries)))
        now = self._clock()
        self._entries[key] = _Entry(bytes(wire), now, now + seconds, size)
        self._size += size
        self._room.entries += 1
        self._room.size += size

    def close(self) -> None:
        """Forget everything and keep nothing more."""
        self._closed = True
        self._clear()

    def _drop(self, key: _Key) -> None:
        size = self._entries.pop(key).size
        self._size -= size
        self._room.entries -= 1
        self._room.size -= size

    def _clear(self) -> None:
        while self._entries:
            self._drop(next(iter(self._entries)))


def lifetime(answer: Message, rdtype: RdataType) -> int:
    """How many seconds an upstream's answer holds: its smallest TTL; 0 = it is not to be kept.

    An answer that there is nothing holds as its SOA says, and not without one (RFC 2308 sections 4 and 5).
    """
    if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) or answer.flags & dns.flags.TC:
        return 0
    sections = (answer.answer, answer.authority, answer.additional)
    ttls = [rrset.ttl for section in sections for rrset in section]
    found = answer.rcode() == dns.rcode.NOERROR and any(rrset.rdtype == rdtype for rrset in answer.answer)
    if not found:
        denials = (rrset for rrset in answer.authority if rrset.rdtype == dns.rdatatype.SOA)
        minima = [rdata.minimum for rrset in denials for rdata in rrset]
        if not minima:
            return 0
        ttls += minima
    return min(ttls)


def key_of(query: Query) -> _Key:
    """What makes two questions the same: name in any case, type, and the flags that change an answer."""
    return query.name.to_digestable(), query.rdtype, query.flags & _KEY_FLAGS, query.dnssec_ok
