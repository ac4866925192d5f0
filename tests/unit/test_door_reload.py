"""Requests to reload: none is lost, and one that has to wait says so."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.door import PAIR
from support.wait import until

from aero_l2.config import Settings, gather, load
from aero_l2.door import reload
from aero_l2.door.reload import Reloader


def reloader(key: Path, applied: list[Settings], busy: list[bool] | None = None) -> Reloader:
    sources = gather({**PAIR, "AERO_L2_AUTH_MODE": "token", "AERO_L2_API_KEY_FILE": str(key)})
    told = [] if busy is None else busy
    return Reloader(sources, load(sources).settings, applied.append, told.append)


async def until_applied(applied: list[Settings], key: bytes) -> None:
    await until(lambda: bool(applied) and applied[-1].api_keys.current == key, "the new key is in force")


async def test_request_at_the_moment_one_ends_is_not_lost(tmp_path: Path) -> None:
    """The task has looked for requests for the last time, and its end is not noted yet."""
    key, applied = tmp_path / "key", list[Settings]()
    key.write_text("k" * 20)
    asked = reloader(key, applied)
    asked.request()
    task = asked._task
    assert task is not None

    def at_its_end(_: asyncio.Task[None]) -> None:
        key.write_text("n" * 20)
        asked.request()

    # In front of the reloader's own callback, as a signal could be.
    callback, context = task._callbacks[-1]  # type: ignore[attr-defined]
    task.remove_done_callback(callback)
    task.add_done_callback(at_its_end)
    task.add_done_callback(callback, context=context)
    await until_applied(applied, b"n" * 20)


async def test_request_behind_one_that_hangs_says_so_and_is_done_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, applied, busy = tmp_path / "key", list[Settings](), list[bool]()
    key.write_text("k" * 20)
    asked = reloader(key, applied, busy)
    read, write = os.pipe()
    real = reload.reread

    def hanging(sources: reload.Sources) -> tuple[reload.Sources, tuple[str, ...]]:
        os.read(read, 1)
        return real(sources)

    monkeypatch.setattr(reload, "reread", hanging)
    monkeypatch.setattr(reload, "MAX_READ_S", 0.1)
    with capture_logs() as lines:
        asked.request()
        await until(lambda: busy == [True, False], "nobody waits for a file that hangs")
        assert asked.failed
        key.write_text("n" * 20)
        asked.request()
        assert busy == [True, False] * 2
        os.write(write, b"..")
        await until_applied(applied, b"n" * 20)
    events = [line["event"] for line in lines]
    assert events[:2] == ["reload failed, settings stay", "reload waits for an earlier one"]
    assert not asked.failed
    os.close(read)
    os.close(write)


async def test_a_reload_is_over_when_it_is_done_and_when_it_failed(tmp_path: Path) -> None:
    key, applied, busy = tmp_path / "key", list[Settings](), list[bool]()
    key.write_text("k" * 20)
    asked = reloader(key, applied, busy)
    asked.request()
    await until(lambda: busy == [True, False], "it is over")
    assert not asked.failed
    key.write_text("")  # no key at all
    asked.request()
    await until(lambda: busy == [True, False] * 2, "it is over again")
    assert asked.failed
    assert len(applied) == 1


async def test_warning_is_said_again_only_where_it_changed(tmp_path: Path) -> None:
    key, applied = tmp_path / "key", list[Settings]()
    key.write_text("k" * 20)
    sources = gather({"AERO_L2_IDLE_TIMEOUT_MS": "30", "AERO_L2_API_KEY_FILE": str(key)})
    loaded = load(sources)
    assert len(loaded.warnings) == 1
    known = Reloader(sources, loaded.settings, applied.append, warnings=loaded.warnings)
    unknown = Reloader(sources, loaded.settings, applied.append)
    with capture_logs() as lines:
        for asked in (known, unknown, unknown):
            before = len(applied)
            asked.request()
            await until(lambda before=before: len(applied) > before, "it is done")  # type: ignore[misc]
            await until(lambda asked=asked: asked._task is None, "and over")  # type: ignore[misc]
    assert [line["text"] for line in lines if line["log_level"] == "warning"] == [*loaded.warnings]
