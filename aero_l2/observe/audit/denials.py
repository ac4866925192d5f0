"""What policy refused: where the first packets were to go, and how many there were. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from aero_l2.observe.audit.tally import Rate
from aero_l2.quota.bucket import TokenBucket

RATE: Final = Rate(50, 1.0)
"""Lines of one session that name a destination."""
MAX_DESTINATIONS: Final = 1024
"""That one session's log remembers to have named."""
DOMAIN: Final = "domain"
"""The rule that refuses names; the others are named after the firewall's counters."""

Verdict = Literal["denied", "limited"]
_VERDICTS: Final[dict[str, Verdict]] = {"denied": "denied", "limit": "limited"}


class Count(NamedTuple):
    """Of one rule: packets since the last line about it, and all of the session."""

    rule: str
    verdict: Verdict
    packets: int
    total: int


class Denials:
    """Of one session. The packets of all its lines are together what the rules' counters say."""

    def __init__(self, now: float) -> None:
        self._bucket = TokenBucket(RATE.per_second, RATE.burst, now)
        self._named: OrderedDict[Hashable, None] = OrderedDict()
        self._totals: dict[str, int] = {}
        self._told: dict[str, int] = {}

    def is_first(self, rule: str, destination: Hashable, now: float) -> bool:
        """Whether this packet gets a line: its rule has refused none to there before, and lines are left."""
        key = (rule, destination)
        if key in self._named or self._bucket.take(1, now) == 0:
            return False
        self._named[key] = None
        if len(self._named) > MAX_DESTINATIONS:
            self._named.popitem(last=False)
        counter = f"denied_{rule}"
        self._told[counter] = self._told.get(counter, 0) + 1
        return True

    def name_denied(self) -> None:
        """DNS has refused a name."""
        counter = f"denied_{DOMAIN}"
        self._totals[counter] = self._totals.get(counter, 0) + 1

    def counted(self, counters: Mapping[str, int]) -> None:
        """What the firewall has counted by now."""
        for name, packets in counters.items():
            if name.partition("_")[0] in _VERDICTS:
                self._totals[name] = max(packets, self._totals.get(name, 0))

    @property
    def is_due(self) -> bool:
        """Whether there is something to tell."""
        return any(total > self._told.get(name, 0) for name, total in self._totals.items())

    @property
    def denied(self) -> int:
        """All packets and names that were denied."""
        return sum(total for name, total in self._totals.items() if name.startswith("denied_"))

    def due(self) -> Iterator[Count]:
        """What no line has told of yet; from now on these do."""
        for name, total in self._totals.items():
            packets = total - self._told.get(name, 0)
            if packets > 0:
                self._told[name] = total
                kind, _, rule = name.partition("_")
                yield Count(rule, _VERDICTS[kind], packets, total)
