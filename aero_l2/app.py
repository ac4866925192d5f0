"""The wiring: settings in, a running server out. The only place that knows every part.

Run by the supervisor (`netns.launch`) as ``python -m aero_l2.app``, without any capability.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import Final, NoReturn

import structlog

from aero_l2.config import Settings
from aero_l2.config.handover import read as read_settings
from aero_l2.config.load import Loaded, load
from aero_l2.config.sources import Sources
from aero_l2.door.listening import describe_origins, listen_advice, shown_address
from aero_l2.door.reload import Reloader
from aero_l2.door.server import DoorServer, serve
from aero_l2.errors import ConfigError
from aero_l2.observe import log
from aero_l2.observe.metrics import Metrics
from aero_l2.policy.domains import DomainLists
from aero_l2.policy.egress import EgressPolicy
from aero_l2.quota.files import LEAST_FILES, FileBudget, file_budget
from aero_l2.services.dns.resolver import Resolver, ResolverSettings
from aero_l2.session.readiness import Readiness
from aero_l2.session.segment import SegmentMaker
from aero_l2.session.spec import segment_spec
from aero_l2.tasks import spawn
from netns import seccomp
from netns.client import NetdClient
from netns.errors import LaunchError, NetnsError
from netns.launch import CONTROL_FD_VARIABLE, SETTINGS_FD_VARIABLE, STOP_SIGNALS
from netns.syscalls import Prctl, prctl, set_process_name

EXIT_CANNOT_START: Final = 2
_log = structlog.get_logger("aero_l2.app")


@dataclass(frozen=True, slots=True)
class Environment:
    """What the server gets from its surroundings.

    settings: as they were given; file descriptors may allow fewer tunnels (`budget`).
    listen_setting: what decided where to listen, in words for people.
    """

    sources: Sources
    settings: Settings
    warnings: tuple[str, ...]
    listen_setting: str
    budget: FileBudget
    control: socket.socket
    ready_stdout: bool


async def run(environment: Environment) -> int:
    """Serve until SIGTERM, SIGINT or the supervisor's end; SIGHUP reloads. Returns the exit status."""
    settings = within(environment.budget, environment.settings)
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stopping.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    metrics = Metrics()
    netd = NetdClient(lambda text: _log.error("netd", message=text))
    try:
        readiness = Readiness(segment_maker(settings, netd, metrics).open)
    except NetnsError as error:
        return cannot_start(str(error))
    follow_supervisor(environment.control, netd, stopping.set)
    try:
        waiting = environment.budget.waiting
        door = await serve(settings, readiness.open, readiness, metrics, max_waiting=waiting)
    except OSError as error:
        return cannot_start(
            f"{environment.listen_setting}: cannot listen on {shown_address(settings)}: "
            f"{listen_advice(error)}"
        )
    _log.info(
        "listening",
        address=shown_address(settings),
        port=door.port,
        auth=settings.auth_mode.value,
        origins=describe_origins(settings),
        max_tunnels=settings.max_connections,
    )
    for warning in environment.warnings:  # not earlier: what fails to start says why in one line
        _log.warning(warning)
    reloader = reload_on_hang_up(environment, door)
    announcing = spawn(announce(readiness, door, to_stdout=environment.ready_stdout), name="announce")
    gc.freeze()
    await stopping.wait()
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
    reloader.stop()
    _log.info("shutting down", tunnels=door.active)
    announcing.cancel()
    await door.shutdown()
    await readiness.close()
    netd.detach()
    return 0


def reload_on_hang_up(environment: Environment, door: DoorServer) -> Reloader:
    """From now on SIGHUP reads the settings again; one that came during the start is not lost."""

    def apply(settings: Settings) -> None:
        log.configure(settings.log_level, settings.log_format)
        door.apply(within(raise_file_limit(settings), settings))

    reloader = Reloader(environment.sources, environment.settings, apply)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.request)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))
    return reloader


def within(budget: FileBudget, settings: Settings) -> Settings:
    """The settings with no more tunnels than there are file descriptors for."""
    return replace(settings, max_connections=budget.tunnels)


def segment_maker(settings: Settings, netd: NetdClient, metrics: Metrics) -> SegmentMaker:
    """Everything a tunnel's segment is made of, from the settings."""
    policy = EgressPolicy.of(settings)
    names: dict[str, tuple[IPv4Address, ...]] = {}
    for name, address in settings.dns_a:
        names[name] = (*names.get(name, ()), address)
    resolver = Resolver(
        ResolverSettings(
            lookup_timeout_s=settings.dns_lookup_timeout_ms / 1000,
            default_ttl=settings.dns_default_ttl_secs,
            max_ttl=settings.dns_max_ttl_secs,
            max_pending=settings.max_pending_dns,
            static_names=names,
            servers=settings.dns_servers,
            private_names=settings.allow_private_ips,
            max_cache_entries=settings.max_dns_cache_entries,
            domains=DomainLists.of(settings),
        )
    )
    return SegmentMaker(netd, segment_spec(settings), settings.forwards, policy, resolver, metrics)


def follow_supervisor(control: socket.socket, netd: NetdClient, gone: Callable[[], None]) -> None:
    """Attach each netd whose socket comes over ``control``; call ``gone`` when the supervisor ended."""
    loop = asyncio.get_running_loop()
    control.setblocking(False)

    def readable() -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(control, 64, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            netd.attach(socket.socket(fileno=descriptor))
        if not data:
            loop.remove_reader(control.fileno())
            _log.error("the supervisor is gone")
            gone()

    loop.add_reader(control.fileno(), readable)


async def announce(readiness: Readiness, door: DoorServer, *, to_stdout: bool) -> None:
    """Say so once tunnels are accepted: the line a starting program waits for (docs/SPECIFICATION.md)."""
    await readiness.wait()
    host = door.addresses[0][0]
    url = f"ws://{f'[{host}]' if ':' in host else host}:{door.port}/l2"
    _log.info("ready", url=url)
    if to_stdout:
        try:
            print(f"AERO_L2_PROXY_READY {url}", flush=True)
        except OSError as error:
            _log.warning("cannot say so on stdout", reason=error.strerror)


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
    budget = file_budget(
        hard,
        settings.max_connections,
        settings.max_pending_dns,
        redirects_dns=DomainLists.of(settings).own_dns,
    )
    if budget.tunnels != settings.max_connections:
        _log.warning(
            "file descriptors limit the tunnels, raise LimitNOFILE (ulimit -n) for more",
            nofile=hard,
            max_tunnels=budget.tunnels,
            wanted=settings.max_connections or "no limit",
        )
    return budget


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


def _inherited(variable: str) -> int:
    """The file descriptor that the supervisor names in a variable."""
    value = os.environ.pop(variable, None)
    if value is None:
        sys.exit(cannot_start("this is started by 'aero-l2 serve', not directly"))
    os.set_inheritable(int(value), False)
    return int(value)


def _settings() -> tuple[Sources, Loaded]:
    """What `aero-l2 serve` read, and what it means."""
    try:
        sources = read_settings(_inherited(SETTINGS_FD_VARIABLE))
        return sources, load(sources)
    except ConfigError as error:
        sys.exit(cannot_start("; ".join(error.faults)))


def _new_event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's where the extra `fast` is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the server process."""
    parser = argparse.ArgumentParser(prog="aero_l2.app")
    parser.add_argument("--ready-stdout", action="store_true")
    options = parser.parse_args(arguments)
    control = socket.socket(fileno=_inherited(CONTROL_FD_VARIABLE))
    sources, loaded = _settings()
    set_process_name("aero-l2-server")
    prctl(Prctl.SET_DUMPABLE, 0)
    log.configure(loaded.settings.log_level, loaded.settings.log_format)
    try:
        budget = raise_file_limit(loaded.settings)
        seccomp.install()
    except LaunchError as error:
        sys.exit(cannot_start(str(error)))
    with asyncio.Runner(loop_factory=_new_event_loop()) as runner:
        environment = Environment(
            sources=sources,
            settings=loaded.settings,
            warnings=loaded.warnings,
            listen_setting=loaded.name_of("listen"),
            budget=budget,
            control=control,
            ready_stdout=options.ready_stdout,
        )
        status = runner.run(run(environment))
        end(status)


if __name__ == "__main__":
    main()
