"""Run by the supervisor (`netns.launch`) as ``python -m aero_l2.app``, without any capability."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from typing import NoReturn

from aero_l2.app.process import cannot_start, end, new_event_loop, raise_file_limit
from aero_l2.app.run import Environment, run
from aero_l2.app.sockets import handed_over, most_open
from aero_l2.config.handover import read as read_settings
from aero_l2.config.load import Loaded, load
from aero_l2.config.sources import Sources
from aero_l2.door.listening import shown
from aero_l2.errors import CaptureUnavailable, ConfigError
from aero_l2.observe import log
from aero_l2.observe.capture import folder
from aero_l2.observe.capture.rules import CaptureRules
from netns import seccomp
from netns.errors import LaunchError
from netns.supervisor import CONTROL_FD_VARIABLE, SETTINGS_FD_VARIABLE
from netns.syscalls import Prctl, prctl, set_process_name


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the server process."""
    parser = argparse.ArgumentParser(prog="aero_l2.app")
    parser.add_argument("--ready-stdout", action="store_true")
    options = parser.parse_args(arguments)
    control = socket.socket(fileno=_inherited(CONTROL_FD_VARIABLE))
    sockets = handed_over()
    sources, loaded, unheard = _settings(sockets)
    set_process_name("aero-l2-server")
    prctl(Prctl.SET_DUMPABLE, 0)
    log.configure(loaded.settings.log_level, loaded.settings.log_format)
    try:
        budget = raise_file_limit(loaded.settings)
        seccomp.install()
        captures = CaptureRules.of(loaded.settings)
        if captures is not None:
            folder.prepare(captures.folder)
    except LaunchError as error:
        sys.exit(cannot_start(str(error)))
    except CaptureUnavailable as error:
        sys.exit(cannot_start(f"{loaded.name_of('capture_dir')}: {error}"))
    with asyncio.Runner(loop_factory=new_event_loop()) as runner:
        environment = Environment(
            sources=sources,
            settings=loaded.settings,
            warnings=(*loaded.warnings, *unheard),
            listen_setting=loaded.name_of("listen"),
            metrics_setting=loaded.name_of("metrics_listen"),
            budget=budget,
            control=control,
            sockets=sockets,
            ready_stdout=options.ready_stdout,
        )
        status = runner.run(run(environment))
        with contextlib.suppress(OSError):  # no word comes any more, even if a disk keeps this from ending
            control.shutdown(socket.SHUT_RDWR)
        end(status)


def _inherited(variable: str) -> int:
    """The file descriptor that the supervisor names in a variable."""
    value = os.environ.pop(variable, None)
    if value is None:
        sys.exit(cannot_start("this is started by 'aero-l2 serve', not directly"))
    os.set_inheritable(int(value), False)
    return int(value)


def _settings(sockets: Sequence[socket.socket]) -> tuple[Sources, Loaded, tuple[str, ...]]:
    """What `aero-l2 serve` read, what it means, and what of it the sockets that are there already settle."""
    try:
        sources = read_settings(_inherited(SETTINGS_FD_VARIABLE))
        loaded = load(sources)
        if not sockets:
            return sources, loaded, ()
        settled = sources.listening_on(shown(most_open(sockets)))
        subject = loaded.name_of("listen") if "listen" in loaded.given else ""
        unheard = f"{subject} has no effect: the sockets to listen on were handed over (LISTEN_FDS)"
        return settled, load(settled), (unheard,) if subject else ()
    except ConfigError as error:
        sys.exit(cannot_start("; ".join(error.faults)))
