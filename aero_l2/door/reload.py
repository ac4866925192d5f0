"""SIGHUP: settings, secrets among them, are read again while tunnels stay open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from aero_l2.config import Settings
from aero_l2.config.load import load
from aero_l2.config.reload import changes, merge
from aero_l2.config.sources import Sources, reread
from aero_l2.errors import ConfigError
from aero_l2.tasks import spawn

MAX_READ_S: Final = 10.0

_log = structlog.get_logger("aero_l2.reload")


class Reloader:
    """Reads the sources again on request, one reading at a time, and hands over what may change.

    Args:
        settings: those in force.
        apply: puts new settings into force.
    """

    def __init__(self, sources: Sources, settings: Settings, apply: Callable[[Settings], None]) -> None:
        self._sources = sources
        self._settings = settings
        self._apply = apply
        self._asked = False
        self._task: asyncio.Task[None] | None = None

    def request(self) -> None:
        """Read again now, or once more when the reading that is under way is done."""
        self._asked = True
        if self._task is None:
            self._task = spawn(self._run(), name="reload")
            self._task.add_done_callback(lambda _: self._done())

    def _done(self) -> None:
        self._task = None

    async def _run(self) -> None:
        while self._asked:
            self._asked = False
            try:
                # On a thread: a file on a mount that does not answer must not hold up the tunnels.
                reading = asyncio.to_thread(reread, self._sources)
                sources, warnings = await asyncio.wait_for(reading, MAX_READ_S)
            except TimeoutError:
                _log.error("reload failed, settings stay", reason=f"files not read within {MAX_READ_S:g} s")
                continue
            self._take(sources, warnings)

    def _take(self, sources: Sources, warnings: tuple[str, ...]) -> None:
        """Judge all of it before anything changes: half of a new configuration may be no configuration."""
        try:
            loaded = load(sources)
        except ConfigError as error:
            for fault in error.faults:
                _log.error("reload failed, settings stay", reason=fault)
            return
        for warning in (*warnings, *loaded.warnings):
            _log.warning(warning)
        found = changes(self._settings, loaded.settings)
        self._sources = sources
        self._settings = merge(self._settings, loaded.settings)
        self._apply(self._settings)
        _log.info("settings reloaded", changed=list(found.applied), need_restart=list(found.needs_restart))
