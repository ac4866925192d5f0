"""One server from its first socket to its last: parts are made, joined, and ended in order."""

from __future__ import annotations

import asyncio
import functools
import gc
import signal
import socket
import sys
from dataclasses import dataclass

import structlog

from aero_l2.app import helper, memory
from aero_l2.app.admin import AdminFiles, start_admin
from aero_l2.app.ending import Ending, finish, remind
from aero_l2.app.process import cannot_start, raise_file_limit
from aero_l2.app.segments import open_audit_log, segment_maker
from aero_l2.app.status import describe, keep_telling
from aero_l2.app.supervised import Supervised
from aero_l2.config import Settings
from aero_l2.config.sources import Sources
from aero_l2.doctor.short import ShortForm
from aero_l2.door.listening import describe_origins, listen_advice, shown, shown_address
from aero_l2.door.reload import Reloader
from aero_l2.door.server import DoorServer, serve
from aero_l2.observe import log
from aero_l2.observe.audit.log import AuditLog, Unusable
from aero_l2.observe.capture.captures import Captures
from aero_l2.observe.capture.rules import CaptureRules
from aero_l2.observe.limit import LimitedLog
from aero_l2.observe.metrics import Metrics
from aero_l2.quota.files import FileBudget
from aero_l2.quota.host import Host
from aero_l2.session.readiness import Readiness
from aero_l2.tasks import spawn
from netns.client import NetdClient
from netns.control import Word
from netns.errors import NetnsError
from netns.supervisor import STOP_SIGNALS

_log = structlog.get_logger(component="server")
_helper_log = LimitedLog(_log)


@dataclass(frozen=True, slots=True)
class Environment:
    """What the server gets from its surroundings.

    settings: as they were given; file descriptors may allow fewer tunnels (`budget`).
    listen_setting, metrics_setting: what decided where to listen, for people. sockets: to listen on instead.
    admin: the admin socket, if there is to be one.
    """

    sources: Sources
    settings: Settings
    warnings: tuple[str, ...]
    listen_setting: str
    metrics_setting: str
    budget: FileBudget
    control: socket.socket
    sockets: tuple[socket.socket, ...]
    admin: AdminFiles | None
    ready_stdout: bool


async def run(environment: Environment) -> int:
    """Serve until SIGTERM, SIGINT or the supervisor's end; SIGHUP reloads. Returns the exit status."""
    settings, budget = environment.settings, environment.budget
    loop = asyncio.get_running_loop()
    log.report_failures(loop)
    ending = Ending()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, ending.ask)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    metrics = Metrics(is_on=settings.metrics == "on")
    metrics.python_blocks.set_function(sys.getallocatedblocks)
    try:
        audit = open_audit_log(settings, metrics)
    except Unusable as error:
        return cannot_start(f"AERO_L2_AUDIT_LOG: {error}")
    netd = NetdClient(
        functools.partial(_helper_log.write, "error"), back=_helper_is_back, account=metrics.netd_request
    )
    try:
        maker = segment_maker(settings, netd, metrics, budget.dns_connections, audit)
    except NetnsError as error:
        return cannot_start(str(error))
    short = ShortForm(settings, environment.sources)
    readiness = Readiness(maker.open, short.verdict, short.fix)
    supervisor = Supervised(environment.control, netd, ending)
    sockets = environment.sockets
    rules = CaptureRules.of(settings)
    captures = Captures(rules, metrics) if rules is not None else None
    try:
        door = await serve(
            settings,
            readiness.open,
            readiness,
            metrics,
            budget=budget,
            room=Host().room,
            sockets=sockets,
            captures=captures,
            audit=audit,
        )
    except OSError as error:
        return cannot_start(
            f"{environment.listen_setting}: cannot listen on {shown_address(settings)}: "
            f"{listen_advice(error)}"
        )
    door.endpoints.scrapes.looks.append(maker.processes.look)
    if settings.metrics_listen is not None and (failure := await watch_from(door, environment)):
        await door.close()
        return cannot_start(failure)
    _log.info(
        "listening",
        address=" ".join(map(shown, door.addresses)) if sockets else shown_address(settings),
        port=door.port,
        auth=settings.auth_mode.value,
        origins=describe_origins(settings),
        capacity=door.pressure.capacity.text,
    )
    for warning in (
        *environment.warnings,
        *(audit.doubts if audit else ()),
    ):  # not earlier: what fails to start says why in one line
        _log.warning("settings need a look", text=warning)
    if metrics.is_on:
        await maker.processes.look()  # the thread that it needs is there from the start
    reloader = reload_on_hang_up(environment, door, supervisor, audit)
    announcing = spawn(
        announce(readiness, door, supervisor, to_stdout=environment.ready_stdout), name="announce"
    )
    reporting = report_status(door, readiness, reloader, supervisor)
    others = [
        spawn(helper.watch(netd, readiness), name="helper"),
        spawn(short.ask_resolvers(), name="resolvers"),
    ]
    if trim := memory.trimmer():
        others.append(spawn(memory.give_back(lambda: door.active, trim), name="memory"))
    admin = environment.admin and start_admin(environment.admin, door, netd, settings, ending.ask)
    gc.freeze()
    await ending.asked.wait()
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP,))
    reloader.stop()
    announcing.cancel()
    supervisor.say(Word.STOPPING, str(round((door.drain_s + door.grace_s) * 1000)))
    begun = loop.time()
    _log.info("shutting down", tunnels=door.active, drain_s=door.drain_s, grace_s=door.grace_s)
    reminding = spawn(remind(lambda: door.active, door.drain_s), name="remind")
    closed = await door.shutdown(ending.at_once)
    if admin is not None:
        await admin.close()
    for task in (reminding, reporting, *others):
        task.cancel()
    if captures is not None:
        left_s = begun + door.drain_s + door.grace_s - loop.time()
        await finish(captures, min(door.grace_s, left_s), ending)
    await readiness.close()
    netd.detach()
    if audit is not None:
        await audit.close()
    _log.info("ended", seconds=round(loop.time() - begun, 3), closed=closed)
    return 0


def _helper_is_back() -> None:
    _helper_log.write("info", "the network helper is back")


async def watch_from(door: DoorServer, environment: Environment) -> str | None:
    """Serve monitoring at its own address; why that cannot be done, if so."""
    address = environment.settings.metrics_listen
    assert address is not None
    try:
        await door.monitor.listen(address)
    except OSError as error:
        return f"{environment.metrics_setting}: cannot listen on {shown(address)}: {listen_advice(error)}"
    assert door.monitor.address is not None
    _log.info("metrics are served", address=shown(address), port=door.monitor.address[1])
    return None


def reload_on_hang_up(
    environment: Environment, door: DoorServer, supervisor: Supervised, audit: AuditLog | None
) -> Reloader:
    """From now on SIGHUP reads the settings again; one that came during the start is not lost.

    Whatever they are, the audit log goes on in a file of its name: the old one may have been moved away.
    """

    def apply(settings: Settings) -> None:
        log.configure(settings.log_level, settings.log_format)
        door.apply(settings, raise_file_limit(settings).tunnels)

    def busy(is_busy: bool) -> None:
        supervisor.say(Word.RELOADING if is_busy else Word.RELOADED)

    reloader = Reloader(environment.sources, environment.settings, apply, busy, environment.warnings)

    def hang_up() -> None:
        if audit is not None:
            audit.reopen()
        reloader.request()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGHUP,))
    return reloader


def report_status(
    door: DoorServer, readiness: Readiness, reloader: Reloader, supervisor: Supervised
) -> asyncio.Task[None]:
    """Keep the supervisor told how it goes, until the task is cancelled."""

    def status() -> str:
        return describe(
            door.active,
            readiness.unready_reason() or door.pressure.unready_reason(),
            draining=door.endpoints.draining,
            reload_failed=reloader.failed,
        )

    return spawn(keep_telling(status, functools.partial(supervisor.say, Word.STATUS)), name="status")


async def announce(
    readiness: Readiness, door: DoorServer, supervisor: Supervised, *, to_stdout: bool
) -> None:
    """Say so once tunnels are accepted: the line a starting program waits for (docs/SPECIFICATION.md)."""
    await readiness.wait()
    url = f"ws://{shown(door.addresses[0])}/l2"
    _log.info("ready", url=url)
    supervisor.say(Word.READY)
    if to_stdout:
        try:
            print(f"AERO_L2_PROXY_READY {url}", flush=True)
        except OSError as error:
            _log.warning("cannot say so on stdout", text=error.strerror)
