"""The terminal as a screen of our own (no echo of keys, no cursor), and given back as it was."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import signal
import struct
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Final

from rich.console import Console
from rich.text import Text

_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[2J"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST_OF_SCREEN: Final = "\x1b[J"
_ESCAPE: Final = b"\x1b"
_REST_S: Final = 0.05
"""How long the rest of a key that begins with ESC may be under way."""
_KEYS: Final = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "pageup",
    b"\x1b[6~": "pagedown",
    b"\x1b[H": "home",
    b"\x1bOH": "home",
    b"\x1b[1~": "home",
    b"\x1b[F": "end",
    b"\x1bOF": "end",
    b"\x1b[4~": "end",
}
_ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DEFAULT_SIZE: Final = (80, 24)


class Terminal:
    """Between entering and leaving `taken`. ended_by: the signal that asks for the end, None so far."""

    def __init__(self, keys: int, out: int) -> None:
        self._keys = keys
        self._out = out
        self._wake, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.ended_by: int | None = None
        self._resized = True

    @contextlib.contextmanager
    def taken(self) -> Iterator[Terminal]:
        """Use it; it is given back whatever happens in the block."""
        before = termios.tcgetattr(self._keys)
        handlers = {number: signal.getsignal(number) for number in (*_ENDS, signal.SIGWINCH)}
        wake_before = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            for number in _ENDS:
                signal.signal(number, self._end)
            signal.signal(signal.SIGWINCH, self._resize)
            tty.setcbreak(self._keys, termios.TCSADRAIN)
            attributes = termios.tcgetattr(self._keys)
            attributes[0] &= ~termios.IXON  # nor do we stand still in the midst of a line
            attributes[6][termios.VSUSP] = b"\x00"  # stopped, it would keep the terminal as it is here
            termios.tcsetattr(self._keys, termios.TCSADRAIN, attributes)
            self._write(_ENTER)
            yield self
        finally:
            with contextlib.suppress(OSError):
                self._write(_LEAVE)
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(self._keys, termios.TCSAFLUSH, before)
            signal.set_wakeup_fd(wake_before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.close(self._wake)
            os.close(self._wake_write)

    def _end(self, number: int, _: FrameType | None) -> None:
        self.ended_by = number

    def _resize(self, _: int, __: FrameType | None) -> None:
        self._resized = True

    def wake(self) -> None:
        """Have `wait` return now; from any thread."""
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"w")

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            packed = fcntl.ioctl(self._out, termios.TIOCGWINSZ, bytes(8))
        except OSError:
            return _DEFAULT_SIZE
        lines, columns = struct.unpack("4H", packed)[:2]
        return (columns, lines) if columns and lines else _DEFAULT_SIZE

    def wait(self, seconds: float) -> list[str]:
        """The keys that were pressed, by then at the latest; earlier too, where something has happened.

        Raises OSError when the terminal is gone.
        """
        readable, _, _ = select.select([self._keys, self._wake], [], [], max(0.0, seconds))
        if self._wake in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
        return self._read_keys() if self._keys in readable else []

    def _read_keys(self) -> list[str]:
        data = os.read(self._keys, 1024)
        if not data:
            raise OSError("the terminal is gone")
        until = time.monotonic() + _REST_S
        while _is_begun(data) and select.select([self._keys], [], [], max(0, until - time.monotonic()))[0]:
            data += os.read(self._keys, 1024)
        return decode_keys(data)

    def draw(self, lines: Sequence[Text]) -> None:
        """Show these lines, from the top. Raises OSError when the terminal is gone."""
        width, _ = self.size
        begin = _HOME
        if self._resized:
            self._resized = False
            begin += _REST_OF_SCREEN
        self._write(begin + (_REST_OF_LINE + "\r\n").join(_drawn(lines, width)) + _REST_OF_SCREEN)

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._out, data) :]


def decode_keys(data: bytes) -> list[str]:
    """Names of special keys, and characters; other sequences that begin with ESC are nothing. Pure."""
    found: list[str] = []
    while data:
        known = next((key for key in _KEYS if data.startswith(key)), None)
        if known is not None:
            found.append(_KEYS[known])
            data = data[len(known) :]
        elif data.startswith(_ESCAPE):
            data = _behind_sequence(data)
        else:
            found.append(data[:1].decode("latin-1"))
            data = data[1:]
    return found


def _behind_sequence(data: bytes) -> bytes:
    """ECMA-48 §5.4: ESC [ parameters, then one byte from @ to ~; otherwise ESC and what follows it."""
    if data[1:2] != b"[":
        return data[2:]
    at = 2
    while at < len(data) and not 0x40 <= data[at] <= 0x7E:
        at += 1
    return data[at + 1 :]


def _is_begun(data: bytes) -> bool:
    """Whether it ends within a key that begins with ESC."""
    tail = data[data.rfind(_ESCAPE) :] if _ESCAPE in data else b""
    return bool(tail) and any(key.startswith(tail) and key != tail for key in _KEYS)


def _drawn(lines: Sequence[Text], width: int) -> list[str]:
    """With the sequences for their styles. None in a line is a server's: `echo`."""
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, legacy_windows=False, highlight=False
    )
    drawn = []
    for line in lines:
        with console.capture() as capture:
            console.print(line, end="", no_wrap=True, overflow="crop", crop=True)
        drawn.append(capture.get())
    return drawn
