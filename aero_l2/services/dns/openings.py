"""With a list of allowed names: which addresses an answer brings within reach, and for how long."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

import dns.name
import dns.rdatatype
import dns.rrset
from dns.message import Message

from aero_l2.services.dns.hints import SERVICE_TYPES, hinted

# A guest may dial an address some time after it was told that it holds.
GRACE_S: Final = 5
# What is asked for beyond that: so an answer that is repeated within a second opens nothing again.
_AHEAD_S: Final = 1
# Of one tunnel at a time. The kernel's set has room for as many again that are just running out.
MAX_OPEN: Final = 2048
# Of one answer: more would cost as much to read as an answer may at most (`cost`).
MAX_PER_ANSWER: Final = 128

Open = Callable[[Sequence[tuple[IPv4Address, int]]], Awaitable[bool]]
"""Has each address within reach for so many seconds from now on; False where that fails."""


def openings(answer: Message, name: dns.name.Name) -> dict[IPv4Address, int]:
    """The addresses that `answer` gives for `name`, with the seconds each has to stay within reach.

    Aliases are followed wherever they lead: whoever may have the name may have what it stands for.
    """
    found: dict[IPv4Address, int] = {}
    chain = _chain(answer, name)
    for rrset in answer.answer:
        if rrset.name in chain:
            for address in _addresses(rrset):
                found[address] = max(found.get(address, 0), rrset.ttl + GRACE_S)
    return found


def _chain(answer: Message, name: dns.name.Name) -> set[dns.name.Name]:
    """The name, and every one that its aliases lead to; at most as many as there are record sets."""
    aliases: dict[dns.name.Name, Any] = {
        rrset.name: rrset[0].target
        for rrset in answer.answer
        if rrset.rdtype == dns.rdatatype.CNAME and rrset
    }
    chain = {name}
    while (following := aliases.pop(name, None)) is not None:
        chain.add(following)
        name = following
    return chain


def _addresses(rrset: dns.rrset.RRset) -> Iterator[IPv4Address]:
    for rdata in rrset:
        if rrset.rdtype == dns.rdatatype.A:
            yield IPv4Address(rdata.address)
        elif rrset.rdtype in SERVICE_TYPES:
            yield from hinted(rdata)


@dataclass(slots=True)
class _Promise:
    """Until when an address was asked to be open, and until when that was confirmed."""

    asked: float
    kept: float = 0.0


class OpenedAddresses:
    """What one tunnel's DNS has brought within reach. A promise is never cut short by a later one.

    One request is under way at a time: all tunnels share who opens, and what waits there of one keeps the
    others' waiting. Use on one event loop.
    """

    def __init__(self, open_addresses: Open, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` stops while the machine sleeps, as the kernel's time-outs do."""
        self._open = open_addresses
        self._clock = clock
        self._promises: dict[IPv4Address, _Promise] = {}
        self._turn = asyncio.Lock()

    def __len__(self) -> int:
        """How many addresses are remembered, outlived ones included."""
        return len(self._promises)

    def holds(self, wanted: Mapping[IPv4Address, int]) -> bool:
        """Whether every address stays within reach for its seconds anyway."""
        now = self._clock()
        return all(
            (promise := self._promises.get(address)) is not None and promise.kept >= now + seconds
            for address, seconds in wanted.items()
        )

    async def open(self, wanted: Mapping[IPv4Address, int]) -> bool:
        """Bring the addresses within reach, in turn; False if that fails or there are too many."""
        async with self._turn:
            return self.holds(wanted) or await self._open_now(wanted)

    async def _open_now(self, wanted: Mapping[IPv4Address, int]) -> bool:
        now = self._clock()
        if len(wanted) > MAX_PER_ANSWER or not self._has_room(wanted, now):
            return False
        for address, seconds in wanted.items():
            until = now + seconds + _AHEAD_S
            promise = self._promises.setdefault(address, _Promise(until))
            promise.asked = max(promise.asked, until)
        asked = {address: self._promises[address].asked for address in wanted}
        done = await self._open([(address, -int(-(until - now) // 1)) for address, until in asked.items()])
        if done:
            for address, until in asked.items():
                promise = self._promises.setdefault(address, _Promise(until))
                promise.kept = max(promise.kept, until)
        return done

    def _has_room(self, wanted: Mapping[IPv4Address, int], now: float) -> bool:
        """Whether there is room for the addresses; what has run out makes room."""
        if len(self._promises.keys() | wanted.keys()) <= MAX_OPEN:
            return True
        self._promises = {address: one for address, one in self._promises.items() if one.asked > now}
        return len(self._promises.keys() | wanted.keys()) <= MAX_OPEN
