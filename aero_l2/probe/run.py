"""One run of the probe: the steps in order, each timed; the first failure ends it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final, TypeVar
from urllib.parse import quote, unquote, urlsplit

from aero_l2.client import ClientError, InvalidTarget, Options, Target, Tunnel, connect
from aero_l2.client.errors import printable
from aero_l2.probe import steps, traffic
from aero_l2.probe.guest import Guest, attach
from aero_l2.probe.names import DEFAULT_NAME
from aero_l2.probe.outcome import Facts, Kind, StepFailed, of_client_error
from aero_l2.probe.report import Report, Step, without
from aero_l2.probe.steps import Done, Progress
from aero_l2.probe.targets import CARRIES, ProbeTarget

T = TypeVar("T")

DEFAULT_TIMEOUT_S: Final = 10.0
_MIN_SECRET: Final = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do. name: for the DNS step, None for the default one.

    seconds: of throughput for each target, 0 none. timeout_s: for each step but the opening, whose limit is
    in ``options``.
    """

    server: Target
    options: Options
    name: str | None = None
    targets: tuple[ProbeTarget, ...] = ()
    seconds: float = 0.0
    timeout_s: float = DEFAULT_TIMEOUT_S

    def redact(self, text: str) -> str:
        """A text without the credential, which a server or what stands in front of it may repeat.

        What the address itself has in its query is taken for one, too.
        """
        given = [part.partition("=")[2] for part in urlsplit(self.server.url).query.split("&")]
        secrets = [value for value in given if len(value) >= _MIN_SECRET]
        secrets += [self.options.credential.value] if self.options.credential is not None else []
        for secret in secrets:
            for written in (secret, quote(secret, safe=""), unquote(secret)):
                text = without(text, written)
        return text


@dataclass(slots=True)
class Watch:
    """What a run tells while it goes on: each step when it has ended, and the name of the one under way."""

    on_step: Callable[[Step], None] = lambda step: None
    doing: str | None = None


@dataclass(slots=True)
class _Run:
    plan: Plan
    report: Report
    watch: Watch
    clock: Callable[[], float] = time.monotonic
    began: float = field(default_factory=time.monotonic)

    async def step(
        self,
        name: str,
        work: Awaitable[tuple[T, Done]],
        late: Callable[[], StepFailed],
        target: str | None = None,
        timeout_s: float | None = None,
    ) -> T:
        """Do a step and note it. Raises StepFailed once it is noted."""
        began = self.clock()
        self.watch.doing = name
        try:
            async with asyncio.timeout(self.plan.timeout_s if timeout_s is None else timeout_s):
                value, done = await work
        except TimeoutError:
            failed = late()
        except StepFailed as failure:
            failed = failure
        except InvalidTarget:
            raise
        except ClientError as error:
            failed = of_client_error(error)
        else:
            self._note(name, target, began, done.text, done.facts, None)
            return value
        self._note(name, target, began, failed.reason, failed.facts, failed.kind)
        raise failed

    def _note(
        self, name: str, target: str | None, began: float, text: str, facts: Facts, kind: Kind | None
    ) -> None:
        hide = self.plan.redact
        shown = {fact: hide(value) if isinstance(value, str) else value for fact, value in facts.items()}
        ended = Step(name, target, self.clock() - began, hide(text), shown, kind)
        self.report.steps.append(ended)
        self.report.duration_s = self.clock() - self.began
        self.watch.on_step(ended)

    def late(self, kind: Kind, text: str) -> Callable[[], StepFailed]:
        """The failure of a step whose time is up."""
        return lambda: StepFailed(kind, f"{text} within {self.plan.timeout_s:g} s")


def server_shown(plan: Plan) -> str:
    """The server as reports name it."""
    return printable(plan.server.display)


async def probe(plan: Plan, watch: Watch | None = None) -> Report:
    """Run it. Raises InvalidTarget where the options cannot be used."""
    run = _Run(plan, Report(server_shown(plan), time.time()), watch or Watch())
    with contextlib.suppress(StepFailed):  # it is noted
        async with contextlib.AsyncExitStack() as stack:
            await _through(run, await _open(run, stack))
    return run.report


async def _open(run: _Run, stack: contextlib.AsyncExitStack) -> Tunnel:
    async def opened() -> tuple[Tunnel, Done]:
        tunnel = await stack.enter_async_context(connect(run.plan.server, run.plan.options))
        return tunnel, Done("the server opens a tunnel")

    limit_s = run.plan.options.open_timeout_s
    late = lambda: StepFailed(Kind.UNREACHABLE, f"no answer within {limit_s:g} s")  # noqa: E731
    return await run.step("open", opened(), late, timeout_s=limit_s + 5)


async def _through(run: _Run, tunnel: Tunnel) -> None:
    plan = run.plan
    await run.step("ping", _only(steps.ping(tunnel, plan.timeout_s)), run.late(Kind.NO_PONG, "no PONG"))
    async with attach(tunnel) as guest:
        progress = Progress("nothing")
        late = lambda: StepFailed(Kind.NO_LEASE, f"{progress.said} within {plan.timeout_s:g} s")  # noqa: E731
        lease = await run.step("dhcp", steps.lease(guest, progress), late)
        router, server = lease.router, lease.dns[0]
        await run.step(
            "arp", _only(steps.arp(guest, router)), run.late(Kind.NO_ARP, f"{router} does not answer ARP")
        )
        await run.step(
            "icmp", _only(steps.echo(guest, router)), run.late(Kind.NO_ECHO, f"{router} does not answer ping")
        )
        silent = run.late(Kind.DNS, f"the DNS server {server} does not answer")
        name = plan.name or DEFAULT_NAME
        await run.step("dns", _only(steps.dns(guest, server, name, lenient=plan.name is None)), silent, name)
        for target in plan.targets:
            await _target(run, guest, server, target)
        if not plan.targets:
            await run.step("tcp", _only(steps.dns_over_tcp(guest, server, name)), silent, f"{server}:53")


async def _target(run: _Run, guest: Guest, server: IPv4Address, target: ProbeTarget) -> None:
    address = await _address(run, guest, server, target)
    late = run.late(Kind.TIMEOUT, f"{target}: no answer")
    await run.step(target.scheme.value, _only(steps.reach(guest, target, address)), late, str(target))
    if run.plan.seconds and target.scheme in CARRIES:
        await _throughput(run, guest, target, address)


async def _address(run: _Run, guest: Guest, server: IPv4Address, target: ProbeTarget) -> IPv4Address:
    if isinstance(target.host, IPv4Address):
        return target.host
    name = target.host

    async def resolved() -> tuple[IPv4Address, Done]:
        found = (await steps.look_up(guest, server, name, lenient=False)).addresses
        return found[0], Done(f"{name} is {found[0]}", {"name": name, "addresses": [str(a) for a in found]})

    silent = run.late(Kind.DNS, f"the DNS server {server} does not answer")
    return await run.step("resolve", resolved(), silent, name)


async def _throughput(run: _Run, guest: Guest, target: ProbeTarget, address: IPv4Address) -> None:
    plan = run.plan

    async def measured() -> tuple[None, Done]:
        rate = await traffic.measure(guest, target, address, plan.seconds, plan.timeout_s)
        run.report.rates.append(rate)
        text = f"{target}: {rate.bits_per_s / 1e6:.1f} Mbit/s {rate.direction} ({rate.bytes} bytes)"
        return None, Done(text, {"direction": rate.direction, "mbit_per_s": round(rate.bits_per_s / 1e6, 3)})

    late = run.late(Kind.TIMEOUT, f"{target}: no data moved")
    await run.step("throughput", measured(), late, str(target), plan.seconds + 2 * plan.timeout_s)


async def _only(work: Awaitable[Done]) -> tuple[None, Done]:
    return None, await work
