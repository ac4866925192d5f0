"""The audit log as a file: rotated, moved away, on a full disk, at the end, and with netd gone."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from support import addresses as at
from support.audit import Audit, audited, check
from support.proxy import SERVICE_USER, USER_ID, Proxy, RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.wait import until, wait_until
from support.world import World

LOST = "aero_l2_audit_lines_lost_total"


def written(proxy: Proxy) -> float:
    """Lines of all kinds, by the metric."""
    lines = proxy.get("/metrics")[1].splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("aero_l2_audit_lines_total{"))


async def scan(guest: RawGuest, ports: range, sport: int = 34000) -> None:
    for port in ports:
        await guest.send(IP(src=at.GUEST, dst=at.WEB) / UDP(sport=sport, dport=port) / b"x")
    assert await guest.ping(at.GATEWAY)


async def test_nothing_is_written_nor_counted_by_default(own_proxy: Proxy) -> None:
    async with raw_guest(own_proxy) as guest:
        await guest.echo(b"works")
    assert written(own_proxy) == 0


async def test_metrics_count_lines_by_kind(world: World, proxy_as: RunAs, tmp_path: Path) -> None:
    with audited(world, proxy_as, tmp_path) as (proxy, audit):
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
        await audit.wait_session_over()
        assert written(proxy) == len(audit.lines()) == 4
        for kind in ("log_open", "session_open", "flow", "session_close"):
            assert proxy.metric(f'aero_l2_audit_lines_total{{kind="{kind}"}}') == 1
        assert proxy.metric(LOST) == proxy.metric("aero_l2_audit_errors_total") == 0
    assert audit.path.stat().st_mode & 0o777 == 0o600


async def test_file_is_rotated_and_the_oldest_goes(world: World, proxy_as: RunAs, tmp_path: Path) -> None:
    settings = {"AERO_L2_AUDIT_MAX_BYTES": "30000", "AERO_L2_AUDIT_MAX_FILES": "3"}
    with audited(world, proxy_as, tmp_path, settings) as (proxy, audit):
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
            await scan(guest, range(1000, 1240))
        await audit.wait_session_over()
        assert [path.name for path in audit.files] == ["audit.log.2", "audit.log.1", "audit.log"]
        assert all(0 < path.stat().st_size <= 30_000 for path in audit.files)
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in audit.files)
        audit.lines()  # whole lines only
        assert proxy.metric(LOST) == 0


async def test_sigterm_leaves_a_complete_log(world: World, proxy_as: RunAs, tmp_path: Path) -> None:
    """Tunnels are open, flows alive, and sums due."""
    with audited(world, proxy_as, tmp_path) as (proxy, audit):
        async with raw_guest(proxy) as first, raw_guest(proxy) as second:
            for number, guest in enumerate((first, second)):
                await guest.echo(b"works")
                await scan(guest, range(1000, 1100))
                for port in range(1000, 1400 + number):
                    packet = IP(src=at.GUEST, dst="10.9.8.7") / UDP(sport=1, dport=port) / b"x"
                    await guest.send(packet)
                assert await guest.ping(at.GATEWAY)
            proxy.terminate()
            assert proxy.wait() == 0
    assert audit.flows() == 202
    assert audit.packets() == 801
    assert [line["reason"] for line in audit.lines("session_close")] == ["shutdown", "shutdown"]
    assert audit.lines()[-1]["type"] == "log_close"
    assert not audit.lines("incomplete", "lost")
    assert {flow["ended"] for flow in audit.lines("flow")} == {"tunnel_end"}
    assert {flow["packets_sent"] for flow in audit.lines("flow")} == {1}


async def test_file_that_was_moved_away_is_let_go_at_sighup(
    world: World, proxy_as: RunAs, tmp_path: Path
) -> None:
    with audited(world, proxy_as, tmp_path, {"AERO_L2_AUDIT_MAX_BYTES": "0"}) as (proxy, audit):
        await until(lambda: audit.path.exists() and bool(audit.lines()), "the first line")
        moved = tmp_path / "audit.log.9"
        audit.path.rename(moved)
        proxy.reload()
        await until(audit.path.exists, "a new file")
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
        await audit.wait_session_over()
        types = [json.loads(line)["type"] for line in audit.path.read_bytes().splitlines()]
        assert types == ["session_open", "flow", "session_close"]
        assert json.loads(moved.read_bytes())["type"] == "log_open"


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A filling of a disk of 512 KiB that is mounted there."""
    folder.parent.chmod(0o755)
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=1777", "tmpfs", str(folder)], check=True)
    try:
        yield folder / "filling"
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_full_disk_costs_no_tunnel_and_its_lines_wait(
    world: World, proxy_as: RunAs, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as filling:
        audit = Audit(filling.parent)
        with run_proxy(world, proxy_as, {"AERO_L2_AUDIT_LOG": str(audit.path)}) as proxy:
            await until(audit.path.exists, "the file")
            filling.write_bytes(b"x" * 500_000)
            async with raw_guest(proxy) as guest:
                await guest.echo(b"works")
                await scan(guest, range(1000, 1200))
            proxy.wait_settled()
            await until(lambda: "the audit log cannot be written" in proxy.log, "it says so", 30)
            await until(lambda: proxy.metric("aero_l2_audit_errors_total") == 1, "counted", 10)
            assert audit.path.read_bytes().endswith(b"\n"), "half a line"
            async with raw_guest(proxy) as guest:
                await guest.echo(b"tunnels do not notice")
            filling.write_bytes(b"")
            await until(lambda: "the audit log is written again" in proxy.log, "it goes on", 30)
            proxy.terminate()
            assert proxy.wait() == 0
            assert proxy.log.count("the audit log cannot be written") == 1
            filling.unlink()
            lines = audit.lines()
            assert [line["type"] for line in lines if line["type"].startswith("log")] == [
                "log_open",
                "log_close",
            ]
            assert audit.flows() == 202
            assert not audit.lines("lost", "incomplete")


async def test_stdout_gets_lines_beside_the_ready_line(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, {"AERO_L2_AUDIT_LOG": "stdout"}) as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
        proxy.wait_settled()
        proxy.terminate()
        assert proxy.wait() == 0
    ready = [line for line in proxy.stdout if line.startswith("AERO_L2_PROXY_READY")]
    lines = [json.loads(line) for line in proxy.stdout if line not in ready]
    for line in lines:
        check(line)
    assert len(ready) == 1
    assert [line["type"] for line in lines] == [
        *("log_open", "session_open", "flow", "session_close", "log_close"),
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"AERO_L2_AUDIT_LOG": "/nowhere/at/all/audit.log"}, "no such file or directory"),
        ({"AERO_L2_AUDIT_LOG": "/proc/self/audit.log"}, "AERO_L2_AUDIT_LOG"),
        ({"AERO_L2_AUDIT_LOG": "/etc"}, "is a directory"),
        ({"AERO_L2_AUDIT_LOG": "{folder}/link"}, "symbolic link"),
        ({"AERO_L2_AUDIT_LOG": "{folder}/closed/audit.log"}, "AERO_L2_AUDIT_MAX_BYTES=0"),
        ({"AERO_L2_AUDIT_MAX_FILES": "0"}, "AERO_L2_AUDIT_MAX_FILES='0'"),
    ],
    ids=["nowhere", "proc", "folder", "link", "closed", "no files"],
)
def test_log_that_cannot_be_written_is_no_start(
    world: World, proxy_as: RunAs, tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "closed").mkdir(mode=0o755)
    existing = tmp_path / "closed/audit.log"
    existing.touch()
    existing.chmod(0o666)
    given = {name: value.format(folder=tmp_path) for name, value in settings.items()}
    with (
        pytest.raises(AssertionError, match="the proxy ended with 2") as ended,
        run_proxy(world, proxy_as, given),
    ):
        pass
    assert said in str(ended.value)
    assert not (tmp_path / "elsewhere").exists()


def test_who_may_not_write_is_called_by_the_name_the_host_knows(
    world: World, proxy_as: RunAs, tmp_path: Path
) -> None:
    """In a user namespace of its own the server is 0, which may write everywhere, people think."""
    tmp_path.chmod(0o755)
    given = {"AERO_L2_AUDIT_LOG": f"{tmp_path}/audit.log"}
    with (
        pytest.raises(AssertionError, match="the proxy ended with 2") as ended,
        run_proxy(world, proxy_as, given),
    ):
        pass
    who = f"uid {USER_ID}" if proxy_as == "user" else f"user {SERVICE_USER}"
    assert f"as {who}: permission denied: name a file in a folder that {who} may write to" in str(ended.value)


def test_folder_that_is_closed_does_where_something_else_rotates(
    world: World, proxy_as: RunAs, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    path = tmp_path / "audit.log"
    path.touch()
    path.chmod(0o666)
    settings = {"AERO_L2_AUDIT_LOG": str(path), "AERO_L2_AUDIT_MAX_BYTES": "0"}
    with run_proxy(world, proxy_as, settings):
        wait_until(lambda: b"log_open" in path.read_bytes(), "it is written")


async def test_killed_netd_costs_no_flow_and_no_count(world: World, proxy_as: RunAs, tmp_path: Path) -> None:
    with audited(world, proxy_as, tmp_path) as (proxy, audit):
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
            await scan(guest, range(1000, 1050))
            killed = proxy.one("netd")
            proxy.kill(killed)
            await scan(guest, range(1050, 1100), 34001)
            for port in range(1000, 1030):
                await guest.send(IP(src=at.GUEST, dst="10.9.8.7") / UDP(sport=1, dport=port) / b"x")
            await until(lambda: proxy.with_role("netd") not in ([], [killed]), "netd is back")
            await guest.echo(b"still works")
            await audit.wait_for("denied")
        await audit.wait_session_over()
        assert audit.flows() == 102
        assert audit.packets() == 30
        assert {flow["packets_sent"] for flow in audit.lines("flow")} == {1}
        assert not audit.lines("incomplete")


async def test_netd_that_is_gone_at_the_end_is_no_silence(
    world: World, proxy_as: RunAs, tmp_path: Path
) -> None:
    with audited(world, proxy_as, tmp_path) as (proxy, audit):
        netd = proxy.one("netd")
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
            await scan(guest, range(1000, 1010))
            await asyncio.sleep(0.2)
            os.kill(netd, signal.SIGSTOP)
        try:
            await audit.wait_session_over()
        finally:
            os.kill(netd, signal.SIGCONT)
        flows = audit.lines("flow")
        assert len(flows) == 11
        assert {flow["bytes_sent"] for flow in flows} == {None}
        assert [line["flows"] for line in audit.lines("incomplete")] == [None]
