"""What systemd is told of what the server says, and when the server is asked whether all is well. Pure."""

from netns import control
from netns.control import Word

QUESTIONS_PER_INTERVAL = 3
RELEASE_MS = 10_000
"""What an end may take beyond what the server said: tunnels' release and netd's end, which have bounds."""


class Report:
    """The state of the service, as systemd knows it: READY once, and well as long as somebody says so.

    The server is asked one question at a time: a process that does not answer is not flooded, and the answer
    comes once all is well again. watchdog_s: how often systemd wants to hear of it, None = never.
    """

    def __init__(self, watchdog_s: float | None) -> None:
        self._pause_s = None if watchdog_s is None else watchdog_s / QUESTIONS_PER_INTERVAL
        self._ready = False
        self.question_due: float | None = None
        """When to ask (monotonic seconds); None: not now."""

    def asked(self) -> None:
        """The question is on its way."""
        self.question_due = None

    def said(self, saying: bytes, now: float) -> tuple[str, ...]:
        """The assignments (sd_notify(3)) that follow from a saying of the server; `now` in seconds."""
        word, text = control.decode(saying) or (None, "")
        if word is Word.READY and not self._ready:
            self._ready = True
            self.question_due = now if self._pause_s is not None else None
            return ("READY=1",)
        if word is Word.RELOADING and self._ready:
            return ("RELOADING=1", f"MONOTONIC_USEC={round(now * 1e6)}")
        if word is Word.RELOADED and self._ready:
            return ("READY=1",)
        if word is Word.STOPPING and (left_ms := control.milliseconds(text)) is not None:
            return ("STOPPING=1", f"EXTEND_TIMEOUT_USEC={(left_ms + RELEASE_MS) * 1000}")
        if word is Word.STATUS:
            return (f"STATUS={text}",)
        if word is Word.WELL and self._pause_s is not None:
            self.question_due = now + self._pause_s
            return ("WATCHDOG=1",)
        return ()
