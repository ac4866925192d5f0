"""`aero-l2 top` and the real proxy: on a real terminal, and once for scripts."""

import asyncio
import json
import os
import pwd
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import addresses as at
from support.proxy import SERVICE_USER, Proxy, run_proxy
from support.rawguest import raw_guest
from support.screen import Screen, on_terminal
from support.wait import until, wait_until
from support.world import World

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(ROOT / ".venv/bin/aero-l2")
ENVIRONMENT = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8"}
SESSION_FIELDS = {
    "id", "principal", "client", "peer", "framing", "state", "opened_at", "age_s", "resumes",
    "frames_rx", "bytes_rx", "frames_tx", "bytes_tx", "frames_dropped", "packets_dropped",
    "tcp_flows", "udp_flows", "denied", "capture", "capture_bytes",
    "udp_flows_refused", "connects_failed", "datagrams_failed", "dns_queries", "dns_failures", "dns_denied",
    "buffered_bytes", "unacknowledged_bytes", "paused", "rtt_ms", "quota_bytes_used", "quota_bytes_limit",
    "quota_hour_bytes_used", "quota_hour_bytes_limit", "rate_window_s", "frames_rx_per_s", "bytes_rx_per_s",
    "frames_tx_per_s", "bytes_tx_per_s",
}  # fmt: skip


@pytest.fixture
def path() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="aero-l2-top-") as folder:
        uid = pwd.getpwnam(SERVICE_USER).pw_uid
        os.chown(folder, uid, uid)
        os.chmod(folder, 0o755)
        yield f"{folder}/admin.sock"


@pytest.fixture
def served(world: World, path: str) -> Iterator[Proxy]:
    with run_proxy(world, "root", {"AERO_L2_ADMIN_SOCKET": path}) as proxy:
        yield proxy


def once(world: World, *options: str, status: int = 0) -> str:
    """What it prints; where it fails, its complaint."""
    command = world.host.enter(PROGRAM, "top", "--once", "--interval", "0.3", *options)
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == status, done
    return done.stdout if status == 0 else done.stderr


@contextmanager
def live(world: World, *options: str, columns: int = 100, lines: int = 24) -> Iterator[Screen]:
    command = world.host.enter(PROGRAM, "top", "--interval", "0.2", *options)
    with on_terminal(command, ENVIRONMENT, columns, lines) as screen:
        yield screen


async def test_document_has_every_field_that_is_documented(served: Proxy, world: World, path: str) -> None:
    async with raw_guest(served) as guest:
        await guest.echo(b"the NAT is up")
        shown: dict[str, Any] = json.loads(await asyncio.to_thread(once, world, "--socket", path, "--json"))
    assert set(shown) == {
        "at", "interval_s", "missing", "server", "totals", "loop_lag", "capacity", "sessions",
    }  # fmt: skip
    [session] = shown["sessions"]
    assert set(session) >= SESSION_FIELDS
    assert shown["missing"] == {}
    assert shown["interval_s"] >= 0.3
    assert session["frames_rx"] == shown["totals"]["frames_rx"] == served.metric("l2_frames_rx_total")
    assert shown["server"]["pid"] == served.one("server")
    assert shown["totals"]["sessions"] == shown["totals"]["udp_flows"] == 1
    documented = (ROOT / "docs/admin.md").read_text()
    named = {*shown, *session, *shown["server"], *shown["totals"], *shown["capacity"], *shown["loop_lag"]}
    assert [name for name in sorted(named) if f"`{name}`" not in documented] == []


def test_either_source_alone_will_do(served: Proxy, world: World, path: str) -> None:
    url = f"http://{at.LOOPBACK}:{served.port}"
    alone = json.loads(once(world, "--url", url, "--json"))
    assert (alone["sessions"], alone["server"]) == (None, None)
    assert alone["totals"]["of"] == "the process"
    assert list(alone["missing"]) == ["socket"]
    alone = json.loads(once(world, "--socket", path, "--url", "http://127.0.0.1:1/metrics", "--json"))
    assert alone["sessions"] == []
    assert alone["missing"]["metrics"].startswith("http://127.0.0.1:1/metrics: ")
    assert "without socket" in once(world, "--url", url)


def test_exit_statuses(served: Proxy, world: World, path: str) -> None:
    said = once(world, "--socket", f"{path}-", status=1)
    assert "there is no such socket" in said
    assert (
        "this is no terminal: use --once"
        in subprocess.run(
            [PROGRAM, "top"],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        ).stderr
    )
    for options in (["--url", "nonsense"], ["--sort", "colour"], ["--interval", "-1"]):
        assert len(once(world, *options, status=2).splitlines()) == 1


def test_settings_say_where_to_look(served: Proxy, world: World, path: str) -> None:
    where = {"AERO_L2_ADMIN_SOCKET": path, "AERO_L2_PROXY_LISTEN_ADDR": f"0.0.0.0:{served.port}"}
    done = subprocess.run(
        world.host.enter(PROGRAM, "top", "--once", "--json", "--interval", "0.1"),
        env={**ENVIRONMENT, **where},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout)["missing"] == {}


async def test_sessions_are_seen_live_and_can_be_closed(served: Proxy, world: World, path: str) -> None:
    def watch() -> None:
        with live(world, "--socket", path) as screen:
            shown = screen.wait_for("sessions 2")
            assert screen.alternate
            assert not screen.cursor
            assert "ready" in shown
            screen.press("\x1b[B")  # down: the second
            screen.press("K")
            screen.wait_for("close session 2?")
            screen.press("n")
            screen.wait_for("not closed")
            screen.press("K")
            screen.wait_for("close session 2?")
            screen.press("y")
            screen.wait_for("sessions 1")
            screen.press("q")
            assert screen.wait() == 0
            assert screen.is_restored

    async with served.tunnel(), served.tunnel() as second:
        await asyncio.to_thread(watch)
        await until(lambda: second.close_code == 1008, "it was closed")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (None, 0)]
)
def test_terminal_is_given_back(
    served: Proxy, world: World, path: str, number: signal.Signals | None, status: int
) -> None:
    with live(world, "--socket", path) as screen:
        screen.wait_for("sessions 0")
        if number is None:
            screen.press("\x03")  # Ctrl-C
        else:
            os.kill(screen.pid, number)
        assert screen.wait() == status
        assert screen.is_restored


def test_failure_within_gives_the_terminal_back(served: Proxy, world: World, path: str) -> None:
    program = (
        "import aero_l2.top.live as live\n"
        "def broken(*_): raise RuntimeError('a fault of ours')\n"
        "live.document = broken\n"
        "import sys; sys.argv = ['aero-l2', 'top', '--socket', sys.argv[1]]\n"
        "from aero_l2.cli import main; main()\n"
    )
    command = world.host.enter(str(ROOT / ".venv/bin/python"), "-c", program, path)
    with on_terminal(command, ENVIRONMENT, 200, 60) as screen:
        assert screen.wait() == 1
        assert screen.is_restored
        assert b"a fault of ours" in screen.raw


def test_server_that_is_started_anew_is_found_again(world: World, path: str) -> None:
    env = {"AERO_L2_ADMIN_SOCKET": path}
    with ExitStack() as stack:
        first = stack.enter_context(run_proxy(world, "root", env))
        screen = stack.enter_context(live(world, "--socket", path))
        screen.wait_for(f"pid {first.one('server')}")
        first.terminate()
        first.wait()
        screen.wait_for("GONE for")
        second = stack.enter_context(run_proxy(world, "root", env))
        screen.wait_for(f"pid {second.one('server')}")
        assert "GONE" not in screen.text
        screen.press("q")
        assert screen.wait() == 0


@pytest.mark.parametrize(("columns", "lines"), [(20, 5), (40, 10), (80, 24), (250, 70)])
def test_any_size_of_terminal_will_do(
    served: Proxy, world: World, path: str, columns: int, lines: int
) -> None:
    with live(world, "--socket", path, columns=columns, lines=lines) as screen:
        screen.wait_for("aero-l2")
        screen.resize(60, 12)
        wait_until(lambda: "sessions 0" in screen.text, "it is drawn anew")
        screen.press("q")
        assert screen.wait() == 0


async def test_hostile_principal_does_nothing_to_the_terminal(world: World, path: str) -> None:
    """A session id with escape sequences in it, in a good token: `Screen` fails on any sequence of it."""
    from aero_l2.auth.session_token import SessionClaims, mint_session_token

    secret = "a secret of 32 characters at least"
    token = mint_session_token(
        SessionClaims("\x1b]0;pwned\x07\x1b[2J\r\nevil", 4_000_000_000), secret.encode()
    )
    env = {
        "AERO_L2_ADMIN_SOCKET": path,
        "AERO_L2_AUTH_MODE": "session",
        "AERO_L2_SESSION_SECRET": secret,
        "AERO_L2_INSECURE_ALLOW_NO_AUTH": "",
    }

    def watch() -> str:
        with live(world, "--socket", path, columns=160) as screen:
            shown = screen.wait_for("evil")
            screen.press("q")
            assert screen.wait() == 0
            return shown

    with run_proxy(world, "root", env) as proxy:
        async with proxy.tunnel(headers={"Cookie": f"aero_session={token}"}):
            assert "?]0;pwned??[2J??evil" in await asyncio.to_thread(watch)


def test_thousand_sessions_are_shown(world: World, tmp_path: Path) -> None:
    """By a socket that answers as the server would."""
    program = (
        "import json, socket, sys\n"
        "listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1]); listener.listen()\n"
        "sessions = [{'id': n, 'principal': f'guest-{n}', 'bytes_rx': n} for n in range(1, 1001)]\n"
        "status = {'ok': True, 'pid': 1, 'ready': True, 'tunnels': {'open': 1000}, 'setups': {}}\n"
        "answers = {'status': status, 'sessions': {'ok': True, 'sessions': sessions}}\n"
        "print('ready', flush=True)\n"
        "stream = listener.accept()[0].makefile('rw')\n"
        "for line in stream: stream.write(json.dumps(answers[line.strip()]) + '\\n'); stream.flush()\n"
    )
    path = str(tmp_path / "many.sock")
    serving = subprocess.Popen(["/usr/bin/python3", "-c", program, path], stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        assert serving.stdout.readline() == "ready\n"
        with live(world, "--socket", path, "--sort", "bytes") as screen:
            assert "guest-1000" in screen.wait_for("sessions 1.0k")
            screen.press("\x1b[F")  # end
            screen.wait_for("guest-1 ")
            screen.press("q")
            assert screen.wait() == 0
    finally:
        serving.kill()
        serving.communicate()
