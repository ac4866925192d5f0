"""The one way to start an asyncio task here: named, referenced until it ends, its exception logged."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import structlog

T = TypeVar("T")

_log = structlog.get_logger(component="server")
_running: set[asyncio.Task[Any]] = set()
_subject: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar("subject")


def concerns(**fields: object) -> None:
    """Say what the current task, and those it starts from now on, are about; nothing: about nobody.

    fields: as the log has them (docs/logs.md): session, peer, client, principal.
    """
    _subject.set({name: value for name, value in fields.items() if value is not None})


def subject() -> Mapping[str, Any]:
    """What the current task is about; empty where nobody has said."""
    return _subject.get({})


def spawn(coroutine: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
    """Run `coroutine` as a task called `name`.

    The event loop keeps weak references only, so a task that nobody holds may vanish half-way
    (asyncio documentation, `create_task`); this keeps a strong one. A failure that nobody awaits is logged,
    with what the task was about.
    """
    context = contextvars.copy_context()
    task = asyncio.get_running_loop().create_task(coroutine, name=name, context=context)
    _running.add(task)
    task.add_done_callback(_finished, context=context)
    return task


async def unless(hurry: asyncio.Event, waiting: Coroutine[Any, Any, object]) -> None:
    """Wait until `waiting` is done or `hurry` is set; it is cancelled then."""
    tasks = [spawn(waiting, name="waiting"), spawn(hurry.wait(), name="hurry")]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def running() -> frozenset[asyncio.Task[Any]]:
    """Tasks that were started by `spawn` and have not ended."""
    return frozenset(task for task in _running if not task.done())


def _finished(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if task.cancelled():
        return
    failure = task.exception()
    if failure is not None:
        _log.error("task failed", **subject(), task=task.get_name(), exc_info=failure)
