"""Whether the upstream resolvers answer anybody, for the log: pure, time passed in."""

from __future__ import annotations

from typing import Final, Literal

SILENT_S: Final = 10.0
SILENT_QUESTIONS: Final = 5


class Silence:
    """Notices that so many questions in a row got no answer for so long, and the first answer after that.

    Some names are never answered, by the best of resolvers; an answer to any other name shows that.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._questions = 0
        self._told = False

    def note(self, now: float, *, answered: bool) -> Literal["silent", "back"] | None:
        """One question at `now` (monotonic seconds) and how it ended; what is news, if anything is."""
        if answered:
            told, self._told, self._questions = self._told, False, 0
            return "back" if told else None
        if self._questions == 0:
            self._since = now
        self._questions += 1
        if self._told or self._questions < SILENT_QUESTIONS or now - self._since < SILENT_S:
            return None
        self._told = True
        return "silent"
