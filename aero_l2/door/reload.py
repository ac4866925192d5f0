"""SIGHUP: settings, secrets among them, are read again while tunnels stay open."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar, cast

import structlog

from aero_l2.config import Settings
from aero_l2.config.load import load
from aero_l2.config.reload import changes, merge
from aero_l2.config.sources import Sources, reread
from aero_l2.errors import ConfigError
from aero_l2.tasks import spawn

MAX_READ_S: Final = 10.0

_log = structlog.get_logger(component="reload")


_Result = TypeVar("_Result")


def _on_a_thread(work: Callable[[], _Result]) -> asyncio.Future[_Result]:
    """Run `work` on a thread that nobody waits for at the end: a mount may not answer, ever."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[_Result] = loop.create_future()

    def tell(value: _Result | None, failure: Exception | None) -> None:
        if result.done():
            return
        if failure is not None:
            result.set_exception(failure)
        else:
            result.set_result(cast(_Result, value))

    def run() -> None:
        value, failure = None, None
        try:
            value = work()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell, value, failure)

    threading.Thread(target=run, name="reload", daemon=True).start()
    return result


class Reloader:
    """Reads the sources again on request, one reading at a time, and hands over what may change.

    Args:
        settings: those in force.
        apply: puts new settings into force.
        busy: told True at each request, False when there is nothing more to wait for.
        warnings: what the log says of those settings already; it says so again only where it changed.

    Attributes:
        failed: the last reading changed nothing, for a fault that the log names.
    """

    def __init__(
        self,
        sources: Sources,
        settings: Settings,
        apply: Callable[[Settings], None],
        busy: Callable[[bool], None] = lambda _: None,
        warnings: Sequence[str] = (),
    ) -> None:
        self.failed = False
        self._sources = sources
        self._settings = settings
        self._apply = apply
        self._busy = busy
        self._warnings = frozenset(warnings)
        self._asked = False
        self._hangs = False
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    def request(self) -> None:
        """Read again now, or once more when the reading that is under way is done."""
        self._asked = True
        self._busy(True)
        if self._hangs:
            _log.error("reload waits for an earlier one", text="a file still does not answer")
            self._busy(False)
        if self._task is None:
            self._task = spawn(self._run(), name="reload")
            self._task.add_done_callback(lambda _: self._done())

    def _done(self) -> None:
        self._task = None
        if self._asked and not self._stopped:  # asked for after the last look at `_asked`
            self.request()
        elif not self._stopped:
            self._busy(False)

    async def _run(self) -> None:
        while self._asked:
            self._asked = False
            reading = _on_a_thread(lambda: reread(self._sources))
            done, _ = await asyncio.wait((reading,), timeout=MAX_READ_S)
            if not done:
                _log.error("reload failed, settings stay", text=f"files not read within {MAX_READ_S:g} s")
                self._hangs = self.failed = True
                self._busy(False)
                await asyncio.wait((reading,))  # one that hangs is enough
                self._hangs = False
                continue
            self._take(*reading.result())

    def stop(self) -> None:
        """Read and apply no more."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()

    def _take(self, sources: Sources, warnings: tuple[str, ...]) -> None:
        """Judge all of it before anything changes: half of a new configuration may be no configuration."""
        try:
            loaded = load(sources)
        except ConfigError as error:
            for fault in error.faults:
                _log.error("reload failed, settings stay", text=fault)
            self.failed = True
            return
        said = (*warnings, *loaded.warnings)
        for warning in said:
            if warning not in self._warnings:
                _log.warning("settings need a look", text=warning)
        self._warnings = frozenset(said)
        found = changes(self._settings, loaded.settings)
        self.failed = False
        self._sources = sources
        self._settings = merge(self._settings, loaded.settings)
        self._apply(self._settings)
        _log.info("settings reloaded", changed=list(found.applied), need_restart=list(found.needs_restart))
