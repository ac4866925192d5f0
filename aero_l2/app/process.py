"""The process as such: its file descriptors, its event loop, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
from collections.abc import Callable
from typing import Final, NoReturn

import structlog

from aero_l2.config import Settings
from aero_l2.policy.domains import DomainLists
from aero_l2.quota.files import LEAST_FILES, FileBudget, file_budget
from netns.errors import LaunchError

EXIT_CANNOT_START: Final = 2
_log = structlog.get_logger(component="server")


def raise_file_limit(settings: Settings) -> FileBudget:
    """Use all file descriptors the host allows and divide them; says so where they limit the tunnels.

    Raises LaunchError if they are too few.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < LEAST_FILES:
        raise LaunchError(
            f"{hard} file descriptors are too few: at least {LEAST_FILES} are needed (LimitNOFILE, ulimit -n)"
        )
    redirects_dns = DomainLists.of(settings).own_dns
    captures = settings.capture_dir is not None
    audits = settings.audit_log is not None
    budget = file_budget(
        hard, settings.max_pending_dns, redirects_dns=redirects_dns, captures=captures, audits=audits
    )
    if not 0 < settings.max_connections <= budget.tunnels:
        _log.warning(
            "file descriptors limit the tunnels",
            text="raise LimitNOFILE (ulimit -n) for more",
            nofile=hard,
            max_tunnels=budget.tunnels,
            wanted=settings.max_connections or "no limit",
        )
    return budget


def new_event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's where the extra `fast` is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def end(status: int) -> NoReturn:
    """Leave at once: all is released, and a thread that looks a name up or reads a file may never return."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def cannot_start(reason: str) -> int:
    """One line for people; the exit status that goes with it."""
    print(f"aero-l2: {reason}", file=sys.stderr, flush=True)
    return EXIT_CANNOT_START
