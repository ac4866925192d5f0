"""Gives the kernel back what ended tunnels leave unused in the C library's heap.

The library gives back what is free at the heap's end; below any byte in use it keeps every page that ever was
(malloc_trim(3)). With tunnels that come and go that was 2.8 MiB of 40 after ten minutes, and grew on.

Python keeps some of its own aside, too: up to 2,000 ended tuples of each size, for one (0.4 MB after half an
hour). A full collection frees these, in 1 ms where there are no tunnels (gc.collect).
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 10.0


def trimmer() -> Callable[[], object] | None:
    """What gives free pages back, in 0.2 to 0.5 ms; None where the C library (musl) has no such thing."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return None if trim is None else lambda: trim(0)


async def give_back(tunnels: Callable[[], int], trim: Callable[[], object], every_s: float = EVERY_S) -> None:
    """Do so while there are tunnels, and once after the last, when nobody has to wait for Python's own; until
    cancelled."""
    had = 0
    while True:
        await asyncio.sleep(every_s)
        has = tunnels()
        if had and not has:
            gc.collect()
        if has or had:
            trim()
        had = has
