"""What can go wrong on this side of a tunnel. The text of each is one line for people.

AttachError
├── SocketUnusable     the path cannot be listened on, or connected to
├── TapUnusable        the TAP device cannot be made or used, or is gone
├── GarbledStream      a machine sends what is no stream of frames
└── CommandNotStarted  there is no network to start a command in, or no such command
"""

from __future__ import annotations

from typing import Final

EXIT_OWN_FAULT: Final = 125
"""A command was not run, or has lost its network for good; env(1) and timeout(1) have the same."""
EXIT_NOT_EXECUTABLE: Final = 126
EXIT_NOT_FOUND: Final = 127


class AttachError(Exception):
    """A machine, a device or a command cannot be attached."""


class SocketUnusable(AttachError):
    """A unix socket's path cannot be used."""


class TapUnusable(AttachError):
    """A TAP device cannot be used."""


class GarbledStream(AttachError):
    """The bytes of a machine are no stream of frames."""


class CommandNotStarted(AttachError):
    """A command was not started; ``status`` is what its caller gets to see."""

    def __init__(self, text: str, status: int = EXIT_OWN_FAULT) -> None:
        super().__init__(text)
        self.status = status
