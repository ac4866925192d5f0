"""Which of the signals that ask for the end count. Pure."""

from typing import Final

ECHO_S: Final = 0.2
"""A signal to a process group comes again where sudo, of the same group, passes it on."""


class StopSignals:
    """The first one that counts asks for the end in good order, the second one insists."""

    def __init__(self) -> None:
        self._last = (0, 0.0)

    def counts(self, number: int, now: float) -> bool:
        """Whether this one, at ``now`` (monotonic seconds), is no echo of the same one before it."""
        (last, at), self._last = self._last, (number, now)
        return number != last or now - at >= ECHO_S
