"""Waiting for a condition with a deadline: the tests never sleep for a fixed time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

_T = TypeVar("_T")
_POLL_S = 0.02


class DeadlineError(AssertionError):
    """The condition did not come true in time; the message says which one and what was seen last."""


def wait_until(condition: Callable[[], _T], what: str, timeout_s: float = 10.0) -> _T:
    """Call ``condition`` until its value is true and return that value.

    Raises DeadlineError after ``timeout_s`` seconds with ``what`` and the last value.
    """
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise DeadlineError(f"after {timeout_s} s still not: {what} (last seen: {value!r})")
        time.sleep(_POLL_S)
    return value


async def until(condition: Callable[[], _T], what: str, timeout_s: float = 10.0) -> _T:
    """``wait_until`` for coroutines: the event loop runs between two looks."""
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise DeadlineError(f"after {timeout_s} s still not: {what} (last seen: {value!r})")
        await asyncio.sleep(_POLL_S)
    return value


async def retry(attempt: Callable[[], Awaitable[_T | None]], what: str, timeout_s: float = 10.0) -> _T:
    """Await ``attempt()`` until it gives something other than None; for datagrams, which may be lost."""
    end = time.monotonic() + timeout_s
    while (value := await attempt()) is None:
        if time.monotonic() > end:
            raise DeadlineError(f"after {timeout_s} s still not: {what}")
        await asyncio.sleep(0)
    return value
