"""The server in one line, as `systemctl status` shows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

LOOK_S: Final = 1.0


def describe(tunnels: int, unready: str | None, *, draining: bool, reload_failed: bool) -> str:
    """How it is. `unready`: why no tunnel can be made, None if one can. Pure."""
    count = f"{tunnels} tunnel{'' if tunnels == 1 else 's'}"
    if draining:
        return f"Shutting down, {count} left"
    text = count if unready is None else f"{count}; no new ones: {unready}"
    return f"{text}; the last reload failed, see the log" if reload_failed else text


async def keep_telling(status: Callable[[], str], tell: Callable[[str], None]) -> None:
    """Tell the status now and whenever it has changed."""
    told = ""
    while True:
        if (text := status()) != told:
            told = text
            tell(text)
        await asyncio.sleep(LOOK_S)
