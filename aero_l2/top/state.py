"""What the view is looking at, and what keys make of it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aero_l2.top.columns import SORTS, Facts, ordered
from aero_l2.top.snapshot import Document

_SORT_KEYS: Final = {sort[0]: sort for sort in SORTS}
_SORT_ORDER: Final = tuple(SORTS)
_MOVES: Final = {"up": -1, "k": -1, "down": 1, "j": 1}


class Action(enum.Enum):
    """What the program is to do after a key."""

    QUIT = enum.auto()
    KICK = enum.auto()
    NOW = enum.auto()


@dataclass(slots=True)
class State:
    """Order, selection, and what is asked or said in the last line.

    selected: id of a session, None: the first line. kicking: of the one that a confirmation is awaited for.
    failing_since: monotonic seconds since when nothing at all could be read, None while something can.
    """

    sort: str = "rate"
    reverse: bool = False
    paused: bool = False
    help: bool = False
    selected: int | None = None
    kicking: int | None = None
    message: str = ""
    failing_since: float | None = None
    shown: Document | None = None
    page: int = 1

    @property
    def sessions(self) -> list[Facts]:
        """In the order they are shown."""
        listed: list[dict[str, Any]] = (self.shown or {}).get("sessions") or []
        return ordered(listed, self.sort, reverse=self.reverse)

    def key(self, key: str) -> Action | None:
        """A key was pressed: a character, or the name of one that is none."""
        self.message = ""
        if self.kicking is not None:
            return self._confirmed(key)
        if self.help:
            self.help = False
            return None
        match key:
            case "q":
                return Action.QUIT
            case "?" | "h":
                self.help = True
            case "p":
                self.paused = not self.paused
            case " ":
                return Action.NOW
            case "s":
                following = _SORT_ORDER.index(self.sort) + 1
                self.sort = _SORT_ORDER[following % len(_SORT_ORDER)]
            case "i":
                self.reverse = not self.reverse
            case "K":
                self._ask_to_kick()
            case _ if key in _SORT_KEYS:
                self.sort = _SORT_KEYS[key]
            case _:
                self._move(key)
        return None

    def index(self, sessions: Sequence[Facts]) -> int:
        """Which line is selected; the first where that session has gone."""
        ids = [one["id"] for one in sessions]
        return ids.index(self.selected) if self.selected in ids else 0

    def _move(self, key: str) -> None:
        by = _MOVES.get(key) or {"pagedown": self.page, "pageup": -self.page}.get(key)
        sessions = self.sessions
        if not sessions:
            return
        if key in ("home", "end"):
            self.selected = sessions[0 if key == "home" else -1]["id"]
        elif by is not None:
            at = min(max(self.index(sessions) + by, 0), len(sessions) - 1)
            self.selected = sessions[at]["id"]

    def _ask_to_kick(self) -> None:
        sessions = self.sessions
        if not sessions:
            self.message = "there is no session to close"
            return
        self.kicking = self.selected = int(sessions[self.index(sessions)]["id"])

    def _confirmed(self, key: str) -> Action | None:
        if key == "y":
            return Action.KICK
        self.kicking = None
        self.message = "not closed"
        return None
