"""What happens when a part of the machinery dies or is missing: said in plain words, undone, and over once
mended."""

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import procfs
from support.proxy import Proxy, Role, RunAs, run_proxy
from support.rawguest import raw_guest
from support.stage import copy_program, make_tun
from support.tunnel import RefusedError
from support.wait import until
from support.world import World

pytestmark = pytest.mark.slow

_DEADLINE_S = 30.0
OUT_OF_ORDER = "echo out of order >&2; exit 3"


async def _refusal(proxy: Proxy) -> RefusedError | None:
    """Open a tunnel and close it; what it was refused with, if it was."""
    try:
        async with proxy.tunnel() as tunnel:
            await tunnel.ping(b"open")
    except RefusedError as error:
        return error
    return None


async def test_killed_nat_process_closes_its_tunnel_and_no_other(proxy: Proxy) -> None:
    async with raw_guest(proxy) as bystander, raw_guest(proxy) as guest:
        await guest.echo(b"works")
        await bystander.echo(b"works")
        lines = len(proxy.log.splitlines())
        proxy.kill(proxy.with_role("nat")[-1])
        assert await guest.tunnel.closed() == (1011, "tunnel failed")
        await until(lambda: "slirp4netns" in "\n".join(proxy.log.splitlines()[lines:]), "a line in the log")
        await bystander.echo(b"still works")
        assert bystander.tunnel.is_open


async def test_killed_netd_comes_back_and_tunnels_live_on(own_proxy: Proxy) -> None:
    async with raw_guest(own_proxy) as guest:
        await guest.echo(b"works")
        netd = own_proxy.one("netd")
        own_proxy.kill(netd)
        refusals = []
        while (refusal := await _refusal(own_proxy)) is not None:
            refusals.append(refusal)
            assert refusal.status == 503, refusal
            assert len(refusals) < 1000
            await guest.echo(b"lives on")
        assert own_proxy.one("netd") != netd
        assert '"event": "the network helper ended"' in own_proxy.log
        assert '"event": "the network helper is back"' in own_proxy.log
        await guest.echo(b"lives on with the new one")
        async with raw_guest(own_proxy) as late:
            await late.echo(b"the new one works")
            held = own_proxy.namespaces()
    await until(lambda: not own_proxy.with_role("nat"), "both tunnels are undone")
    await until(lambda: len(own_proxy.namespaces()) == len(held) - 2, "both namespaces are gone")


@dataclass(frozen=True)
class Fault:
    """A way to make set-up fail under a running proxy, what the refusal has to name, and the way back."""

    cause: Callable[[Proxy], Callable[[], None]]
    names: str


def _without_program(name: str) -> Callable[[Proxy], Callable[[], None]]:
    def cause(proxy: Proxy) -> Callable[[], None]:
        (proxy.programs / name).unlink()
        return lambda: copy_program(name, proxy.programs)

    return cause


def _broken_nft(script: str) -> Callable[[Proxy], Callable[[], None]]:
    def cause(proxy: Proxy) -> Callable[[], None]:
        program = proxy.programs / "nft"
        _replace_program(program, script)

        def mend() -> None:
            program.unlink()
            copy_program("nft", proxy.programs)

        return mend

    return cause


def _without_tun(proxy: Proxy) -> Callable[[], None]:
    (proxy.devices / "tun").unlink()
    return lambda: make_tun(proxy.devices, 0o666)


def _limit_descriptors(pid: int, soft: int, hard: int) -> None:
    """prlimit(2) asks for the ids of the other process, or for a capability that root lacks in some
    containers."""
    user, group = (procfs.status(pid)[name].split()[0] for name in ("Uid", "Gid"))
    same_ids = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--"]
    subprocess.run([*same_ids, "prlimit", f"--pid={pid}", f"--nofile={soft}:{hard}"], check=True, timeout=15)


def _out_of_descriptors(role: Role) -> Callable[[Proxy], Callable[[], None]]:
    def cause(proxy: Proxy) -> Callable[[], None]:
        pid = proxy.one(role)
        soft, hard = procfs.descriptor_limits(pid)
        used = max(int(fd) for fd in os.listdir(f"/proc/{pid}/fd")) + 1
        _limit_descriptors(pid, used + 3, hard)
        return lambda: _limit_descriptors(pid, soft, hard)

    return cause


FAULTS = {
    "no-slirp4netns": Fault(_without_program("slirp4netns"), "slirp4netns"),
    "no-nft": Fault(_without_program("nft"), "nft"),
    "nft-fails": Fault(_broken_nft(OUT_OF_ORDER), "nft.*3: out of order"),
    "nft-hangs": Fault(_broken_nft("exec /bin/sleep 1000"), "nft.*no answer within 10 s"),
    "no-tun": Fault(_without_tun, "/dev/net/tun"),
    "netd-out-of-descriptors": Fault(_out_of_descriptors("netd"), "file descriptors|open files"),
    "server-out-of-descriptors": Fault(_out_of_descriptors("server"), "file descriptors|open files"),
}


@pytest.mark.parametrize("kind", FAULTS)
async def test_failing_set_up_is_refused_undone_and_over_once_mended(own_proxy: Proxy, kind: str) -> None:
    await _assert_refused_until_mended(own_proxy, FAULTS[kind])


async def _assert_refused_until_mended(proxy: Proxy, fault: Fault) -> None:
    async with raw_guest(proxy) as bystander:
        await bystander.echo(b"before")
        assert await _refusal(proxy) is None
        await until(lambda: len(proxy.with_role("nat")) == 1, "the first try is undone")
        before = procfs.usage(proxy.processes())
        mend = fault.cause(proxy)
        try:
            refusal = await _refusal(proxy)
            assert refusal is not None
            assert refusal.status == 503
            assert re.search(fault.names, refusal.body, re.IGNORECASE), refusal.body
            assert "\n" not in refusal.body.strip()
            await until(lambda: proxy.get("/readyz")[0] == 503, "not ready", _DEADLINE_S)
            await until(
                lambda: procfs.usage(proxy.processes()) == before, f"as before: {before}", _DEADLINE_S
            )
            await bystander.echo(b"meanwhile")
            assert proxy.get("/healthz")[0] == 200
        finally:
            mend()
        await until(lambda: proxy.get("/readyz")[0] == 200, "ready again", _DEADLINE_S)
        async with raw_guest(proxy) as late:
            await late.echo(b"after")
        await bystander.echo(b"all along")


MISSING_AT_START = {
    "no-slirp4netns": (lambda programs, devices: (programs / "slirp4netns").unlink(), "slirp4netns"),
    "no-nft": (lambda programs, devices: (programs / "nft").unlink(), "nft"),
    "nft-fails": (
        lambda programs, devices: _replace_program(programs / "nft", OUT_OF_ORDER),
        "nft.*out of order",
    ),
    "no-tun": (lambda programs, devices: (devices / "tun").unlink(), "/dev/net/tun"),
}


@pytest.mark.parametrize("kind", MISSING_AT_START)
async def test_what_is_missing_at_the_start_is_named_and_can_be_mended(
    world: World, proxy_as: RunAs, kind: str
) -> None:
    break_it, names = MISSING_AT_START[kind]
    with run_proxy(
        world, proxy_as, ready=False, before=lambda programs, devices, _: break_it(programs, devices)
    ) as proxy:
        refusal = await _refusal(proxy)
        assert refusal is not None
        assert refusal.status == 503
        assert re.search(names, refusal.body), refusal.body
        status, why = proxy.get("/readyz")
        assert status == 503
        assert re.search(names, why), why
        assert re.search(names, proxy.log)
        assert proxy.get("/healthz")[0] == 200
        assert proxy.stdout == []
        for name in ("nft", "slirp4netns"):
            (proxy.programs / name).unlink(missing_ok=True)
            copy_program(name, proxy.programs)
        if not (proxy.devices / "tun").exists():
            make_tun(proxy.devices, 0o666)
        proxy.wait_ready()
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")


def _replace_program(program: Path, script: str) -> None:
    """One that runs at this moment stays what it is."""
    program.unlink()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def _with_closed_tun(proxy: Proxy) -> Callable[[], None]:
    (proxy.devices / "tun").chmod(0o600)
    return lambda: (proxy.devices / "tun").chmod(0o666)


_CLOSED_TUN = Fault(_with_closed_tun, "/dev/net/tun.*permission|permission.*/dev/net/tun")


@pytest.mark.parametrize("proxy_as", ["user"], indirect=True)
async def test_closed_tun_device_is_named_to_an_ordinary_user(own_proxy: Proxy) -> None:
    await _assert_refused_until_mended(own_proxy, _CLOSED_TUN)


@pytest.mark.parametrize("proxy_as", ["root"], indirect=True)
async def test_closed_tun_device_does_not_matter_when_root_started_it(own_proxy: Proxy) -> None:
    _with_closed_tun(own_proxy)
    assert await _refusal(own_proxy) is None
