"""Requests of the admin socket: one line of words each, and the commands there are. Pure (docs/admin.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MAX_LINE: Final = 256
"""Bytes of a request, its end of line included."""
MAX_ID: Final = 10**15
_MAX_SHOWN: Final = 40


class BadRequest(ValueError):
    """A request that is none, or asks for what there is not; its text is for people."""


@dataclass(frozen=True, slots=True)
class Command:
    """One of the commands. arguments: what follows its name, as `help` shows it. changes: whether it changes
    anything, and so is logged."""

    name: str
    arguments: tuple[str, ...]
    text: str
    changes: bool = False

    @property
    def usage(self) -> str:
        """How it is written."""
        return " ".join((self.name, *self.arguments))


@dataclass(frozen=True, slots=True)
class Request:
    """A request that can be done. session: the number in it, 0 where there is none."""

    command: Command
    session: int = 0


COMMANDS: Final = (
    Command("status", (), "the server: version, addresses, readiness, tunnels, set-ups, capacity"),
    Command("sessions", (), "all tunnels, oldest first"),
    Command("session", ("ID",), "one tunnel, its counters read now"),
    Command("kick", ("ID",), "close a tunnel with 1008; its client does not come back by itself", True),
    Command("capture start", ("ID",), "write a tunnel's frames to a file in AERO_L2_CAPTURE_DIR", True),
    Command("capture stop", ("ID",), "end that, and have the file complete", True),
    Command("drain", (), "end the server as SIGTERM does", True),
    Command("help", (), "these commands"),
    Command("version", (), "version, commit and build time"),
)


def parse(line: bytes) -> Request:
    """One line, with or without its end. Raises BadRequest."""
    words = line.decode("ascii", "replace").split()
    if not words:
        raise BadRequest("an empty request: try help")
    for command in COMMANDS:
        named = len(command.name.split())
        if words[:named] == command.name.split():
            return Request(command, _session(command, words[named:]))
    usages = [command.usage for command in COMMANDS if command.name.split()[0] == words[0]]
    if usages:
        raise BadRequest(f"usage: {' or '.join(usages)}")
    raise BadRequest(f"unknown command {shown(words[0])}: try help")


def _session(command: Command, given: list[str]) -> int:
    if len(given) != len(command.arguments):
        raise BadRequest(f"usage: {command.usage}")
    return _number(given[0]) if given else 0


def _number(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= len(str(MAX_ID))):
        raise BadRequest(f"{shown(word)} is no session: give the id of one, a whole number")
    return int(word)


def shown(word: str) -> str:
    """A word of a request, quoted, cut, and with nothing in it that a terminal would act on."""
    return ascii(word if len(word) <= _MAX_SHOWN else word[:_MAX_SHOWN] + "...")
