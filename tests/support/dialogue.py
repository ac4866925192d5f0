"""A talk with a machine over its serial console: send when a prompt was seen, each wait with a deadline."""

import os
import re
import selectors
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from support.wait import DeadlineError

_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][0-9A-B]|[=>78cDM])|[\r\0]")


def plain(text: str) -> str:
    """Console output without carriage returns and the sequences that move a terminal's cursor (ECMA-48)."""
    return _ESCAPE.sub("", text)


class Dialogue:
    """A running machine whose console is stdin and stdout."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._started = time.monotonic()
        self._raw = b""
        self._read = 0  # how much of the console was waited for already

    @property
    def console(self) -> str:
        """Everything it wrote so far."""
        return plain(self._raw.decode(errors="replace"))

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._started

    def expect(self, pattern: str, timeout_s: float) -> str:
        """Wait for ``pattern`` in what came after the last match; returns what came up to the end of it.

        Raises DeadlineError, also when the machine ends instead; the console is behind the message.
        """
        end = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            assert self._process.stdout is not None
            output = self._process.stdout.fileno()
            selector.register(output, selectors.EVENT_READ)
            while (found := re.compile(pattern, re.MULTILINE).search(self.console, self._read)) is None:
                left = end - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise DeadlineError(f"after {timeout_s} s still not on the console: {pattern}")
                if not (chunk := os.read(output, 65536)):
                    raise DeadlineError(f"the machine ended before its console showed: {pattern}")
                self._raw += chunk
        before, self._read = self._read, found.end()
        return self.console[before : self._read]

    def send(self, text: str) -> None:
        """Type ``text``."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def run(self, command: str, prompt: str, timeout_s: float) -> str:
        """Type a command and Enter, and wait for the next prompt; returns what it wrote, without its echo and
        the prompt."""
        self.send(f"{command}\r")
        self.expect(rf"{re.escape(command)}\n", timeout_s)
        return re.sub(rf"(?:{prompt})\Z", "", self.expect(prompt, timeout_s), flags=re.MULTILINE).strip()


@contextmanager
def dialogue(command: Sequence[str]) -> Iterator[Dialogue]:
    """Run a machine in a network namespace without anything; it is gone when the block ends."""
    process = subprocess.Popen(
        ["unshare", "--net", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        process_group=0,
    )
    talk = Dialogue(process)
    try:
        yield talk
    except AssertionError as failure:
        failure.add_note(f"--- console ---\n{talk.console}")
        raise
    finally:
        os.killpg(process.pid, 9)
        process.wait(10)
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()
