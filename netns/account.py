"""What became of requests to netd, and how long each took: for whoever counts them."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from netns import messages
from netns.errors import NetdUnavailable, SegmentError

KINDS = ("create", "counters", "flows", "open", "check", "adopt", "release")
"""``check``: whether netd answers at all. The last two are not answered."""


class Account(Protocol):
    """Takes the kind of a request, what became of it, and the seconds until its answer, None without one.

    ok, refused (netd cannot), timeout, lost (there is no netd, or it went), cancelled, or sent.
    """

    def __call__(self, kind: str, result: str, seconds: float | None) -> None:
        """One request that is over."""


def unaccounted(kind: str, result: str, seconds: float | None) -> None:
    """Nobody counts."""


@dataclass(slots=True)
class Outcome:
    """What a request came to. is_refused: netd answered that it cannot."""

    is_refused: bool = False


@contextlib.contextmanager
def accounted(account: Account, kind: str) -> Iterator[Outcome]:
    """Account for the request that the block makes, by what it raises or says."""
    begun = time.monotonic()
    outcome = Outcome()
    try:
        yield outcome
    except TimeoutError:
        account(kind, "timeout", None)
        raise
    except NetdUnavailable:
        account(kind, "lost", None)
        raise
    except asyncio.CancelledError:
        account(kind, "cancelled", None)
        raise
    except SegmentError:
        account(kind, "refused", time.monotonic() - begun)
        raise
    account(kind, "refused" if outcome.is_refused else "ok", time.monotonic() - begun)


_KINDS = {messages.ReadCounters: "counters", messages.ListFlows: "flows", messages.OpenAddresses: "open"}


def kind_of(request: messages.Request) -> str:
    """What a question to netd is called here."""
    return _KINDS[type(request)]
