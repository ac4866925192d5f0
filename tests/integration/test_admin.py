"""The admin socket of the real proxy: what it says and what guests did, what it does, and who may ask."""

import asyncio
import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw
from support import addresses as at
from support.proxy import SERVICE_USER, USER_ID, Proxy, RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.wait import retry, until, wait_until
from support.world import World

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(ROOT / ".venv/bin/aero-l2")
OTHER_UID = 61235
NO_AUTH = {"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1"}
_ASK = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
try:
    sock.connect(sys.argv[1])
except PermissionError:
    sys.exit("permission denied")
sock.sendall(b"version\\n")
print(sock.makefile().readline(), end="")
"""


def uid_of(run_as: RunAs) -> int:
    return USER_ID if run_as == "user" else pwd.getpwnam(SERVICE_USER).pw_uid


@pytest.fixture
def folder(proxy_as: RunAs) -> Iterator[Path]:
    """A folder of the user that the proxy runs as, short and reachable for all."""
    made = Path(tempfile.mkdtemp(prefix="aero-l2-admin-"))
    os.chown(made, uid_of(proxy_as), uid_of(proxy_as))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def served(world: World, proxy_as: RunAs, folder: Path) -> Iterator[Proxy]:
    with run_proxy(world, proxy_as, {"AERO_L2_ADMIN_SOCKET": str(folder / "admin.sock")}) as proxy:
        yield proxy


def run(folder: Path, *words: str, status: int = 0) -> dict[str, Any]:
    """`aero-l2 admin`, and its answer; its complaint as ``error`` where it fails."""
    command = [PROGRAM, "admin", "--socket", str(folder / "admin.sock"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done
    answer: dict[str, Any] = json.loads(done.stdout) if status == 0 else {"error": done.stderr}
    return answer


async def ask(folder: Path, *words: str, status: int = 0) -> dict[str, Any]:
    return await asyncio.to_thread(lambda: run(folder, *words, status=status))


def as_user(uid: int, folder: Path) -> tuple[int, str]:
    """Connect as that user: exit status, and what it was told."""
    change = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]
    done = subprocess.run(
        [*change, "/usr/bin/python3", "-c", _ASK, str(folder / "admin.sock")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def _send_denied(guest: RawGuest, count: int) -> None:
    for number in range(count):
        await guest.send(IP(src=at.GUEST, dst="224.0.0.251") / UDP(dport=5353) / Raw(bytes([number])))
    assert await guest.ping(at.GATEWAY)


async def test_facts_of_a_session_are_what_its_guest_did(served: Proxy, folder: Path) -> None:
    async with raw_guest(served) as guest, raw_guest(served) as other:
        await guest.echo(b"the NAT is up")
        await other.ping(at.GATEWAY)
        await guest.resolve("web.test")
        await guest.resolve("nowhere.test")
        await _send_denied(guest, 7)
        udp = await until(lambda: served.metric("l2_udp_flows_active"), "the flow is counted")
        facts = (await ask(folder, "session", "1"))["session"]
        assert (facts["id"], facts["state"], facts["framing"]) == (1, "open", "aero-l2-tunnel-v1")
        assert (facts["client"], facts["principal"], facts["resumes"]) == ("127.0.0.1", None, 0)
        assert facts["denied"] == 7
        assert facts["dns_queries"] == 2
        assert facts["udp_flows"] == udp == 1
        assert facts["tcp_flows"] == 0
        assert abs(facts["opened_at"] + facts["age_s"] - time.time()) < 30
        both = (await ask(folder, "sessions"))["sessions"]
        assert [one["id"] for one in both] == [1, 2]
        assert both[1]["denied"] == both[1]["dns_queries"] == 0
        for name in ("frames_rx", "bytes_rx", "frames_tx", "bytes_tx"):
            assert sum(one[name] for one in both) == served.metric(f"l2_{name}_total") > 0, name
        assert not both[0]["paused"]


async def test_frames_and_bytes_are_counted_exactly(served: Proxy, folder: Path) -> None:
    async with served.tunnel() as tunnel:
        before = (await ask(folder, "session", "1"))["session"]
        for _ in range(25):
            await tunnel.send(bytes(100))
        await until(lambda: served.metric("l2_frames_rx_total") == 25 + before["frames_rx"], "all have come")
        after = (await ask(folder, "session", "1"))["session"]
        assert after["frames_rx"] - before["frames_rx"] == 25
        assert after["bytes_rx"] - before["bytes_rx"] == 2500


async def test_rates_are_there_while_something_passes(served: Proxy, folder: Path) -> None:
    async with served.tunnel() as tunnel:

        async def moving() -> bool | None:
            await tunnel.send(bytes(100))
            facts = (await ask(folder, "session", "1"))["session"]
            return (facts["bytes_rx_per_s"] > 0 and facts["frames_rx_per_s"] > 0) or None

        assert await retry(moving, "a rate", 20)


async def test_status_says_how_the_server_is(served: Proxy, folder: Path) -> None:
    async with served.tunnel():
        status = await ask(folder, "status")
    assert (status["ready"], status["unready_reason"], status["draining"]) == (True, None, False)
    assert status["tunnels"]["open"] == status["tunnels"]["active"] == 1
    assert status["listening"] == [f"127.0.0.1:{served.port}"]
    assert status["metrics_url"] == f"http://127.0.0.1:{served.port}/metrics"
    assert status["pid"] == served.one("server")
    assert status["network_helper"] is True
    assert status["capacity"]["binding"] == "setting"
    assert json.loads(served.get("/version")[1]) == {
        name: status[name] for name in ("version", "gitSha", "builtAt")
    }


async def test_kick_closes_that_tunnel_alone_and_counts(served: Proxy, folder: Path) -> None:
    async with served.tunnel() as kicked, raw_guest(served) as stays:
        await ask(folder, "kick", "1")
        await until(lambda: kicked.close_code is not None, "it is closed")
        assert (kicked.close_code, kicked.close_reason) == (1008, "closed by the operator")
        assert not kicked.errors
        await stays.echo(b"untouched")
        kicks = [line for line in served.get("/metrics")[1].splitlines() if 'reason="kicked"' in line]
        assert kicks == ['aero_l2_sessions_closed_total{reason="kicked"} 1.0']
        await until(lambda: served.metric("l2_sessions_active") == 1, "one is left")
        assert "there is no session 1" in (await ask(folder, "kick", "1", status=1))["error"]
    lines = [json.loads(line) for line in served.log.splitlines() if '"admin command"' in line]
    assert [(line["command"], line["session"], line["result"], line.get("text")) for line in lines] == [
        ("kick", 1, "done", None),
        ("kick", 1, "refused", "there is no session 1"),
    ]
    assert {line["uid"] for line in lines} == {0}
    assert all(line["pid"] > 0 for line in lines)


async def test_drain_ends_as_sigterm_does(served: Proxy, folder: Path) -> None:
    async with served.tunnel() as tunnel:
        await ask(folder, "drain")
        await until(lambda: tunnel.close_code is not None, "it is closed")
        assert (tunnel.close_code, tunnel.close_reason) == (1001, "shutting down")
    assert await asyncio.to_thread(served.wait) == 0
    assert '"event": "shutting down"' in served.log
    assert not (folder / "admin.sock").exists()


async def test_draining_server_still_answers(world: World, proxy_as: RunAs, folder: Path) -> None:
    env = {"AERO_L2_ADMIN_SOCKET": str(folder / "admin.sock"), "AERO_L2_DRAIN_MS": "600000"}
    with run_proxy(world, proxy_as, env) as proxy:
        async with proxy.tunnel() as tunnel:
            proxy.terminate()
            await until(lambda: proxy.get("/readyz")[0] == 503, "it drains")
            status = await ask(folder, "status")
            assert (status["draining"], status["ready"]) == (True, False)
            await ask(folder, "kick", "1")
            await until(lambda: tunnel.close_code is not None, "it is closed")
        assert await asyncio.to_thread(proxy.wait) == 0


def test_socket_is_the_service_users_and_goes_with_the_server(
    served: Proxy, proxy_as: RunAs, folder: Path
) -> None:
    about = (folder / "admin.sock").lstat()
    assert stat.S_ISSOCK(about.st_mode)
    assert (stat.S_IMODE(about.st_mode), about.st_uid) == (0o600, uid_of(proxy_as))
    served.reload()
    assert run(folder, "version")["ok"]
    served.terminate()
    assert served.wait() == 0
    assert list(folder.iterdir()) == []


def test_service_user_and_root_may_ask_and_nobody_else(served: Proxy, proxy_as: RunAs, folder: Path) -> None:
    assert as_user(uid_of(proxy_as), folder)[0] == 0
    assert run(folder, "version")["ok"]  # as root
    assert as_user(OTHER_UID, folder) == (1, "permission denied\n")
    (folder / "admin.sock").chmod(0o666)
    status, said = as_user(OTHER_UID, folder)
    assert status == 0
    assert "no longer the service user's alone" in json.loads(said)["error"]
    assert as_user(uid_of(proxy_as), folder)[1].startswith('{"ok": true')
    wait_until(lambda: "admin refused" in served.log, "the log has it")
    (folder / "admin.sock").chmod(0o600)
    assert run(folder, "version")["ok"]


@pytest.fixture
def run_folder(proxy_as: RunAs) -> Iterator[Path]:
    """A folder of /run, which slirp4netns shows to itself, and where such sockets belong."""
    made = Path(tempfile.mkdtemp(prefix="aero-l2-admin-", dir="/run"))
    os.chown(made, uid_of(proxy_as), uid_of(proxy_as))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def is_seen_by_nat(proxy: Proxy, path: Path) -> bool:
    [nat] = proxy.with_role("nat")
    return Path(f"/proc/{nat}/root{path}").is_socket()


async def test_taken_over_nat_process_finds_no_bus(world: World, proxy_as: RunAs) -> None:
    """D-Bus of the user that it runs as would start a program for it, outside of its walls."""
    parent = "/run/user"
    os.makedirs(parent, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=parent) as theirs,
        socket.socket(socket.AF_UNIX) as bus,
        run_proxy(world, proxy_as) as proxy,
    ):
        os.chmod(theirs, 0o755)
        bus.bind(f"{theirs}/bus")
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
            assert not is_seen_by_nat(proxy, Path(theirs, "bus"))


def is_another(proxy: Proxy, netd: int) -> bool:
    return proxy.with_role("netd") not in ([], [netd])


async def test_taken_over_nat_process_cannot_ask(world: World, proxy_as: RunAs, run_folder: Path) -> None:
    """It runs as the service user, and would be let in; also one that a second netd has started."""
    path = run_folder / "admin.sock"
    with run_proxy(world, proxy_as, {"AERO_L2_ADMIN_SOCKET": str(path)}) as proxy:
        for netd in range(2):
            async with raw_guest(proxy) as guest:
                await guest.echo(b"works")
                assert not is_seen_by_nat(proxy, path)
                assert run(run_folder, "sessions")["ok"]
            if not netd:
                killed = proxy.one("netd")
                proxy.kill(killed)
                await until(partial(is_another, proxy, killed), "netd is back")
        proxy.terminate()
        assert await asyncio.to_thread(proxy.wait) == 0
    assert os.listdir(run_folder) == []


def test_command_of_the_service_user_is_logged_with_its_uid(
    served: Proxy, proxy_as: RunAs, folder: Path
) -> None:
    uid = uid_of(proxy_as)
    program = _ASK.replace("version", "kick 77")
    change = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--inh-caps=-all"]
    subprocess.run(
        [*change, "/usr/bin/python3", "-c", program, str(folder / "admin.sock")], check=True, timeout=60
    )
    wait_until(lambda: f'"uid": {uid},' in served.log, "the log names the user")


def test_killed_servers_socket_is_replaced(world: World, proxy_as: RunAs, folder: Path) -> None:
    env = {"AERO_L2_ADMIN_SOCKET": str(folder / "admin.sock")}
    with run_proxy(world, proxy_as, env) as first:
        first.kill()
    assert (folder / "admin.sock").exists()
    assert "nobody answers" in run(folder, "version", status=1)["error"]
    with run_proxy(world, proxy_as, env) as second:
        assert run(folder, "status")["pid"] == second.one("server")
    assert "there is no such socket" in run(folder, "version", status=1)["error"]


def test_socket_goes_with_a_server_that_is_killed(served: Proxy, folder: Path) -> None:
    served.kill(served.one("server"))
    assert served.wait() == 137
    assert list(folder.iterdir()) == []


def start(**environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [PROGRAM, "serve", "--bind", "127.0.0.1:0"],
        env={"PATH": os.environ["PATH"], **NO_AUTH, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("relative.sock", "is no absolute path"),
        ("/tmp/", "is no absolute path"),
        ("/tmp/" + "x" * 110, "is longer than 107 bytes"),
        ("/dev/null", "is no socket"),
        ("/proc/aero-l2/admin.sock", "cannot make it as the service user"),
        ("/dev/null/admin.sock", "cannot make it as the service user"),
    ],
)
def test_path_that_cannot_be_used_is_one_line_and_status_2(path: str, said: str) -> None:
    done = start(AERO_L2_ADMIN_SOCKET=path, AERO_L2_USER=SERVICE_USER)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("aero-l2: AERO_L2_ADMIN_SOCKET=")
    assert said in line


def test_two_servers_do_not_share_a_socket(served: Proxy, folder: Path) -> None:
    done = start(AERO_L2_ADMIN_SOCKET=str(folder / "admin.sock"), AERO_L2_USER=SERVICE_USER)
    assert done.returncode == 2
    assert run(folder, "status")["pid"] == served.one("server")


def test_without_the_setting_there_is_no_socket(own_proxy: Proxy) -> None:
    sockets = Path(f"/proc/{own_proxy.one('server')}/net/unix").read_text()
    assert "admin.sock" not in sockets


def test_command_line_mistakes_are_one_line_and_status_2(folder: Path) -> None:
    for words in (["bogus"], ["kick"], ["kick", "x"], ["session", "1", "2"]):
        assert len(run(folder, *words, status=2)["error"].splitlines()) == 1


def test_answers_are_there_for_simple_tools(served: Proxy, folder: Path) -> None:
    """A line in, a line out, on a plain stream; half-closed, as `nc -N` does."""
    program = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
    program += "s.sendall(b'help'); s.shutdown(socket.SHUT_WR); print(s.makefile().read(), end='')"
    command = [sys.executable, "-c", program, str(folder / "admin.sock")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "kick ID" in json.loads(done.stdout)["commands"]


async def test_capture_is_begun_and_ended_while_the_tunnel_is_open(
    world: World, proxy_as: RunAs, folder: Path
) -> None:
    env = {
        "AERO_L2_ADMIN_SOCKET": str(folder / "admin.sock"),
        "AERO_L2_CAPTURE_DIR": str(folder / "captures"),
        "AERO_L2_CAPTURE_ON_DEMAND": "1",
    }
    with run_proxy(world, proxy_as, env) as proxy:
        async with raw_guest(proxy) as guest, raw_guest(proxy) as other:
            await guest.echo(b"before")
            path = (await ask(folder, "capture", "start", "1"))["capture"]
            facts = (await ask(folder, "session", "1"))["session"]
            assert facts["capture"] == path
            assert (await ask(folder, "session", "2"))["session"]["capture"] is None
            assert "already" in (await ask(folder, "capture", "start", "1", status=1))["error"]
            await guest.echo(b"captured")
            await other.echo(b"of another")
            assert await ask(folder, "capture", "stop", "1") == {"ok": True, "captured": path}
            await guest.echo(b"after")
            assert "not being captured" in (await ask(folder, "capture", "stop", "1", status=1))["error"]
            data = await asyncio.to_thread(Path(path).read_bytes)
            assert Path(path).parent == folder / "captures"
            assert b"captured" in data
            assert not any(word in data for word in (b"before", b"after", b"of another"))
    lines = [json.loads(line) for line in proxy.log.splitlines() if '"admin command"' in line]
    assert [line["command"] for line in lines] == [
        "capture start",
        "capture start",
        "capture stop",
        "capture stop",
    ]


async def test_capture_without_a_folder_is_refused(served: Proxy, folder: Path) -> None:
    async with served.tunnel():
        said = (await ask(folder, "capture", "start", "1", status=1))["error"]
        assert "AERO_L2_CAPTURE_DIR" in said
