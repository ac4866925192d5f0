"""In the server's place, under the real supervisor and beside the real netd: makes and unmakes a session.

It prints findings on stdout, a JSON object a line, and takes no connection. `aero_l2.doctor.trial` starts it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NoReturn

import dns.exception
import dns.message

from aero_l2.app.ending import Ending
from aero_l2.app.process import new_event_loop, raise_file_limit
from aero_l2.app.segments import segment_maker
from aero_l2.app.supervised import Supervised
from aero_l2.config import Settings, handover, load
from aero_l2.doctor import surroundings
from aero_l2.doctor.advice import advice
from aero_l2.doctor.finding import Finding, ok, problem
from aero_l2.errors import SegmentUnavailable
from aero_l2.observe import log
from aero_l2.observe.metrics import Metrics
from aero_l2.probe import dhcp
from aero_l2.probe.packets import BROADCAST
from aero_l2.probe.stack import Stack
from aero_l2.services.dhcp.codec import ACK, OFFER
from aero_l2.session.ports import Segment
from aero_l2.session.readiness import TRIAL_SESSION
from aero_l2.tasks import spawn
from netns import seccomp
from netns.client import NetdClient
from netns.errors import LaunchError
from netns.supervisor import CONTROL_FD_VARIABLE, SETTINGS_FD_VARIABLE
from netns.syscalls import Prctl, prctl, set_process_name

SESSION: Final = "session"
DEADLINE_S: Final = 12.0
_STEP_S: Final = 5.0
_AGAIN_S: Final = 0.2
_DNS_PORT: Final = 53
_FRAME: Final = 2048


def main() -> NoReturn:
    """Entry point of ``python -m aero_l2.doctor.inside``."""
    signal.alarm(int(DEADLINE_S) + 2)  # whatever hangs, nothing of it stays
    control = socket.socket(fileno=_inherited(CONTROL_FD_VARIABLE))
    settings = load(handover.read(_inherited(SETTINGS_FD_VARIABLE))).settings
    set_process_name("aero-l2-doctor")
    prctl(Prctl.SET_DUMPABLE, 0)
    log.configure("error", "console")
    try:
        budget = raise_file_limit(settings)
        seccomp.install()
    except LaunchError as error:
        _tell(problem(SESSION, str(error)))
        os._exit(0)
    with asyncio.Runner(loop_factory=new_event_loop()) as runner:
        _tell(runner.run(_bounded(settings, control, budget.dns_connections)))
    sys.stdout.flush()
    os._exit(0)


def _inherited(variable: str) -> int:
    descriptor = int(os.environ.pop(variable))
    os.set_inheritable(descriptor, False)
    return descriptor


def _tell(finding: Finding) -> None:
    print(finding.to_json(), flush=True)


def _pass_over(event: str, text: str) -> None:
    """What the session finds says it all."""


async def _bounded(settings: Settings, control: socket.socket, dns_connections: int) -> Finding:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
    netd, ending = NetdClient(_pass_over), Ending()
    supervised = Supervised(control, netd, ending)
    trying = spawn(_session(settings, netd, dns_connections), name="session")
    asked = spawn(ending.asked.wait(), name="ending")  # the supervisor is gone, or wants us to go
    await asyncio.wait((trying, asked), timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
    in_time = trying.done()
    for task in (trying, asked):
        task.cancel()
    await asyncio.wait((trying, asked))
    netd.detach()
    del supervised
    if not in_time:
        return problem(SESSION, f"no session could be made within {DEADLINE_S:g} s")
    try:
        return trying.result()
    except SegmentUnavailable as error:
        return problem(SESSION, error.reason, *advice(error.reason, surroundings.look()))


async def _session(settings: Settings, netd: NetdClient, dns_connections: int) -> Finding:
    """Make it, be its guest, unmake it."""
    opener = segment_maker(settings, netd, Metrics(), dns_connections).open
    began = time.monotonic()
    async with opener(TRIAL_SESSION) as segment:
        made = time.monotonic()
        await _until_nat_is_ready(segment)
        ready = time.monotonic()
        async with _guest(segment) as guest:
            address = await guest.lease()
            await guest.ping()
            await guest.ask()
        used = time.monotonic()
    spent = {
        "made_ms": made - began,
        "nat_ready_ms": ready - made,
        "guest_ms": used - ready,
        "undone_ms": time.monotonic() - used,
    }
    facts = {name: round(seconds * 1000, 1) for name, seconds in spent.items()}
    text = (
        f"made in {facts['made_ms']:.0f} ms, a guest got {address} by DHCP and answers of ping and DNS, "
        "and all of it is undone"
    )
    return ok(SESSION, text, **facts)


async def _until_nat_is_ready(segment: Segment) -> None:
    """Raises SegmentUnavailable where it ends, or is silent."""
    done, _ = await asyncio.wait(
        (segment.nat_ready, segment.failed), timeout=_STEP_S, return_when=asyncio.FIRST_COMPLETED
    )
    if segment.failed in done:
        raise SegmentUnavailable(segment.failed.result())
    if not done:
        raise SegmentUnavailable(f"the NAT process (slirp4netns) is not ready within {_STEP_S:g} s")


class _Guest:
    """A guest's stack on the TAP."""

    def __init__(self, tap: int) -> None:
        self._tap = tap
        self._stack = Stack(b"\x02" + secrets.token_bytes(5))
        self._heard = asyncio.Event()

    def readable(self) -> None:
        """Take the frames that are there."""
        try:
            while True:
                self._stack.receive(os.read(self._tap, _FRAME), time.monotonic())
                self._heard.set()
        except BlockingIOError:
            return

    def _send(self) -> None:
        for frame in self._stack.take_frames():
            os.write(self._tap, frame)

    async def _turn(self) -> None:
        """Send what there is, and wait for an answer, not for long."""
        self._heard.clear()
        self._send()
        try:
            async with asyncio.timeout(_AGAIN_S):
                await self._heard.wait()
        except TimeoutError:
            return

    async def lease(self) -> str:
        """An address by DHCP. Raises SegmentUnavailable."""
        stack, number = self._stack, secrets.randbits(32)
        sock = stack.open_socket(dhcp.CLIENT_PORT)
        asked = dhcp.discover(stack.mac, number)
        until = time.monotonic() + _STEP_S
        while time.monotonic() < until:
            if not sock.received:
                stack.send_datagram(sock, BROADCAST, dhcp.SERVER_PORT, asked)
            await self._turn()
            while sock.received:
                answer = dhcp.read(sock.received.popleft().data, stack.mac, number)
                if answer is None:
                    continue
                if answer.kind == OFFER:
                    asked = dhcp.request(stack.mac, number, answer)
                elif answer.kind == ACK:
                    lease = dhcp.lease_of(answer)
                    stack.configure(lease.interface, lease.router, lease.mtu)
                    return str(lease.interface)
        raise SegmentUnavailable(f"the tunnel's DHCP server gives no lease within {_STEP_S:g} s")

    async def ping(self) -> None:
        """Ask for the gateway, and ping it. Raises SegmentUnavailable."""
        stack = self._stack
        assert stack.gateway is not None
        until = time.monotonic() + _STEP_S
        while stack.neighbour(stack.gateway) is None and time.monotonic() < until:
            stack.ask_arp(stack.gateway)
            await self._turn()
        if stack.neighbour(stack.gateway) is None:
            raise SegmentUnavailable(f"the gateway {stack.gateway} answers no ARP within {_STEP_S:g} s")
        ping = stack.ping(stack.gateway, 1, b"aero-l2 doctor")
        while ping.reply is None and time.monotonic() < until:
            await self._turn()
        if ping.reply is None:
            raise SegmentUnavailable(f"the gateway {stack.gateway} answers no ping within {_STEP_S:g} s")

    async def ask(self) -> None:
        """A question that the tunnel's DNS answers by itself: AAAA, of which guests get none. As `ping`."""
        stack = self._stack
        assert stack.gateway is not None
        sock = stack.open_socket(1024 + secrets.randbelow(60_000))
        question = dns.message.make_query("example.com.", "AAAA").to_wire()
        until = time.monotonic() + _STEP_S
        while time.monotonic() < until:
            stack.send_datagram(sock, stack.gateway, _DNS_PORT, question)
            await self._turn()
            if sock.received:
                return
        raise SegmentUnavailable(f"the tunnel's DNS server gives no answer within {_STEP_S:g} s")


@asynccontextmanager
async def _guest(segment: Segment) -> AsyncIterator[_Guest]:
    loop, guest = asyncio.get_running_loop(), _Guest(segment.tap)
    loop.add_reader(segment.tap, guest.readable)
    try:
        yield guest
    finally:
        loop.remove_reader(segment.tap)


if __name__ == "__main__":
    main()
