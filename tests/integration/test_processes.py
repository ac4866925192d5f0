"""What each process of a running proxy may do (contract of privileges: docs/SPECIFICATION.md)."""

import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import impersonate, procfs
from support.proxy import USER_ID, Proxy, Role
from support.rawguest import raw_guest

ROLES: tuple[Role, ...] = ("launch", "netd", "server", "nat")
_IMPERSONATE = Path(impersonate.__file__)
_NET_BIND_SERVICE, _SETPCAP, _NET_ADMIN, _SYS_ADMIN = 1 << 10, 1 << 8, 1 << 12, 1 << 21
_NETD = _NET_BIND_SERVICE | _SETPCAP | _NET_ADMIN | _SYS_ADMIN


def _capabilities(pid: int) -> dict[str, int]:
    about = procfs.status(pid)
    return {name: int(about[name], 16) for name in procfs.CAPABILITY_SETS}


def _user_namespace(pid: int | str) -> str:
    return procfs.link_of(f"/proc/{pid}/ns/user")


async def test_every_process_has_its_role(proxy: Proxy) -> None:
    async with raw_guest(proxy), raw_guest(proxy):
        roles = sorted(role for pid in proxy.processes() if (role := proxy.role(pid)) != "other")
        assert roles == ["launch", "nat", "nat", "netd", "server"], [
            procfs.command(p) for p in proxy.processes()
        ]


async def test_no_process_is_root_of_the_host(proxy: Proxy) -> None:
    user = USER_ID if proxy.run_as == "user" else pwd.getpwnam("aero-l2").pw_uid
    group = USER_ID if proxy.run_as == "user" else pwd.getpwnam("aero-l2").pw_gid
    async with raw_guest(proxy):
        for pid in proxy.processes():
            about = procfs.status(pid)
            assert about["Uid"].split() == [str(user)] * 4, proxy.role(pid)
            assert about["Gid"].split() == [str(group)] * 4, proxy.role(pid)
            assert about["Groups"] in ("", str(group)), proxy.role(pid)


async def test_no_process_holds_a_capability_over_the_host(proxy: Proxy) -> None:
    async with raw_guest(proxy):
        for pid in proxy.processes():
            if _user_namespace(pid) == _user_namespace("self"):
                held = _capabilities(pid)
                assert (held["CapPrm"], held["CapEff"], held["CapAmb"]) == (0, 0, 0), proxy.role(pid)


async def test_server_holds_no_capability_at_all(proxy: Proxy) -> None:
    server = proxy.one("server")
    about = procfs.status(server)
    assert _capabilities(server) == dict.fromkeys(procfs.CAPABILITY_SETS, 0)
    assert (about["NoNewPrivs"], about["Seccomp"]) == ("1", "2")


async def test_netd_holds_four_capabilities_over_its_own_namespaces(proxy: Proxy) -> None:
    netd = proxy.one("netd")
    held = _capabilities(netd)
    assert held["CapEff"] & ~_NETD == 0
    assert held["CapPrm"] == _NETD
    assert held["CapBnd"] == _NETD
    assert _user_namespace(netd) != _user_namespace("self")
    assert procfs.status(netd)["NoNewPrivs"] == "1"


async def test_supervisor_keeps_for_netd_what_it_does_not_use_itself(proxy: Proxy) -> None:
    held = _capabilities(proxy.one("launch"))
    assert held == {"CapInh": 0, "CapPrm": _NETD, "CapEff": 0, "CapBnd": _NETD, "CapAmb": 0}


async def test_nat_process_is_confined(proxy: Proxy) -> None:
    async with raw_guest(proxy) as guest:
        await guest.echo(b"set up")
        nat = proxy.with_role("nat")[-1]
        about = procfs.status(nat)
        held = _capabilities(nat)
        assert (about["NoNewPrivs"], about["Seccomp"]) == ("1", "2")
        assert held["CapEff"] & ~_NET_BIND_SERVICE == 0
        assert held["CapPrm"] & ~_NET_BIND_SERVICE == 0
        assert held["CapAmb"] == 0


def _impersonate(pid: int, file: Path) -> str:
    command = [sys.executable, str(_IMPERSONATE), str(pid), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _content(file: Path) -> str:
    return file.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("role", ROLES)
async def test_taken_over_process_cannot_write_what_belongs_to_root(
    proxy: Proxy, outside: Path, role: Role
) -> None:
    async with raw_guest(proxy) as guest:
        await guest.echo(b"set up")
        assert _impersonate(proxy.with_role(role)[-1], outside) == "PermissionError"
    assert _content(outside) == "untouched\n"


def test_the_impersonation_itself_can_write_as_root(outside: Path) -> None:
    """So that the refusals above are the process's and not the test's."""
    assert _impersonate(os.getpid(), outside) == "written"


async def test_no_process_leaves_a_core_dump(proxy: Proxy) -> None:
    async with proxy.tunnel():
        for pid in proxy.processes():
            limits = _content(Path(f"/proc/{pid}/limits"))
            assert re.search(r"Max core file size +0 +0 ", limits), proxy.role(pid)
