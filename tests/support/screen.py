"""A program on a real pseudo-terminal, and what a person would see there.

Of ECMA-48 it knows what full-screen programs of ours use: cursor home, erasing, styles, the other screen.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from support.wait import wait_until

_SEQUENCE = re.compile(r"\x1b\[([?0-9;]*)([@-~])")


class Screen:
    """What is on the terminal, and what was written to it. alternate, cursor: the other screen, a cursor."""

    def __init__(self, pid: int, terminal: int, columns: int, lines: int) -> None:
        self.pid = pid
        self.raw = b""
        self.alternate = False
        self.cursor = True
        self._terminal = terminal
        self._before = termios.tcgetattr(terminal)
        self._pending = ""
        self._status: int | None = None
        self.resize(columns, lines)

    def resize(self, columns: int, lines: int) -> None:
        """Give it another size, and tell the program, which may be drawing for the old one just now."""
        self._frames_till_sure = 2
        self.columns, self.lines = columns, lines
        self._cells = [[" "] * columns for _ in range(lines)]
        self._x = self._y = 0
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._terminal, keys.encode())

    @property
    def text(self) -> str:
        """The lines, without what is empty at their ends; reads what has come."""
        self.read()
        return "\n".join("".join(line).rstrip() for line in self._cells)

    def read(self) -> None:
        """Take what has come by now."""
        while select.select([self._terminal], [], [], 0)[0]:
            try:
                data = os.read(self._terminal, 65536)
            except OSError:  # EIO: nobody holds the other side any more
                return
            if not data:
                return
            self.raw += data
            self._show(self._pending + data.decode("utf-8", "replace"))

    def wait_for(self, text: str, timeout_s: float = 20) -> str:
        """The screen once it has this text."""
        wait_until(lambda: text in self.text, f"{text!r} on the screen:\n{self.text}", timeout_s)
        return self.text

    def wait(self, timeout_s: float = 20) -> int:
        """The exit status once it has ended; 128 + n for a signal."""

        def ended() -> bool:
            self.read()
            if self._status is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self._status = os.waitstatus_to_exitcode(status)
            return self._status is not None

        wait_until(ended, "it ends", timeout_s)
        self.read()
        assert self._status is not None
        return self._status if self._status >= 0 else 128 - self._status

    @property
    def is_restored(self) -> bool:
        """Whether the terminal is as it was found: its settings, the first screen, a cursor."""
        self.read()
        now = termios.tcgetattr(self._terminal)
        return now == self._before and not self.alternate and self.cursor

    def close(self) -> None:
        """End what runs still."""
        if self._status is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._terminal)

    def _show(self, text: str) -> None:
        self._pending = ""
        while text:
            if text[0] == "\x1b":
                found = _SEQUENCE.match(text)
                if found is None:
                    assert len(text) < 20, f"an unknown sequence: {text[:20]!r}"
                    self._pending = text
                    return
                self._do(found[1], found[2])
                text = text[found.end() :]
            else:
                self._put(text[0])
                text = text[1:]

    def _put(self, character: str) -> None:
        if character == "\r":
            self._x = 0
        elif character == "\n":
            may_scroll = not self.alternate or self._frames_till_sure > 0
            assert self._y < self.lines - 1 or may_scroll, "the screen scrolls"
            self._y = min(self._y + 1, self.lines - 1)
        else:
            assert character.isprintable(), f"{character!r} on the terminal"
            if self._x < self.columns:
                self._cells[self._y][self._x] = character
            self._x += 1

    def _do(self, parameters: str, final: str) -> None:
        match final, parameters:
            case "H", "":
                self._x = self._y = 0
                self._frames_till_sure -= 1
            case "K", "":
                self._cells[self._y][self._x :] = [" "] * max(0, self.columns - self._x)
            case "J", "" | "2":
                start = self._y + 1 if parameters == "" else 0
                for line in self._cells[start:]:
                    line[:] = [" "] * self.columns
                if parameters == "":
                    self._do("", "K")
            case "h" | "l", "?1049":
                self.alternate = final == "h"
            case "h" | "l", "?25":
                self.cursor = final == "h"
            case "m", _:
                pass
            case _:
                raise AssertionError(f"an unexpected sequence: ESC [ {parameters} {final}")


@contextmanager
def on_terminal(
    command: Sequence[str], env: Mapping[str, str], columns: int = 100, lines: int = 24
) -> Iterator[Screen]:
    """Run a command on a terminal of its own."""
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            os.execvpe(command[0], list(command), dict(env))
        finally:
            os._exit(127)
    screen = Screen(pid, terminal, columns, lines)
    try:
        yield screen
    finally:
        screen.close()
