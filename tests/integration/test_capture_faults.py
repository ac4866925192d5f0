"""Captures on disks that are full, read-only, gone or silent: tunnels go on, and files stay valid."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
from support import pcapng
from support.captures import DIRECTORY, FRAME, SOON_S, capturing, check_with_others, closed, files, so_far
from support.hangingfs import HangingFiles, hanging_files
from support.proxy import AS_USER, USER_ID, Proxy, RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.tunnel import PROTOCOL, Tunnel
from support.wait import until
from support.world import World
from websockets.typing import Subprotocol

PROGRAM = Path(__file__).resolve().parents[2] / ".venv/bin/aero-l2"
NO_AUTH = {"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1"}
OFTEN = {"AERO_L2_CAPTURE_FLUSH_INTERVAL_MS": "50"}
LARGE = FRAME.ljust(1400, b"x")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that every user can enter."""
    tmp_path.chmod(0o755)
    return tmp_path


def tmpfs(folder: Path, options: str) -> Callable[[Path, Path, int], None]:
    """Mounts a file system of its own there, for the proxy alone."""

    def mount(programs: Path, devices: Path, mounts: int) -> None:
        inside = ["nsenter", f"--mount=/proc/{mounts}/ns/mnt", "--"]
        subprocess.run([*inside, "mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)

    return mount


def ends(proxy: Proxy) -> list[dict[str, str]]:
    """Lines of the log about captures that ended for an error."""
    lines = (json.loads(line) for line in proxy.log.splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == "capture ends"]


async def until_error(proxy: Proxy, guest: RawGuest, count: int = 1) -> None:
    """Send frames until so many captures have ended, a few at a time."""

    def counted() -> bool:
        return proxy.metric("l2_capture_errors_total") == count

    end = time.monotonic() + SOON_S
    while not counted():
        assert time.monotonic() < end, "no error of a capture"
        for _ in range(20):
            await guest.tunnel.send(LARGE)
        await guest.tunnel.ping(os.urandom(8))


async def test_a_full_disk_ends_the_capture_and_not_the_tunnel(world: World, place: Path) -> None:
    """The file keeps every frame that there was room for, whole."""
    mount = tmpfs(place, "mode=1777,size=64k")
    with run_proxy(world, "root", {DIRECTORY: f"{place}/captures", **OFTEN}, before=mount) as proxy:
        folder = Path(f"/proc/{proxy.one('launch')}/root{place}/captures")
        async with raw_guest(proxy) as guest:
            await until_error(proxy, guest)
            await guest.echo(b"the tunnel works")
            (path,) = files(folder)
            contents = pcapng.read(path)
            assert len(contents.inbound) * 1444 > 32 * 1024, "there was room for that"
            assert contents.inbound == [LARGE] * len(contents.inbound)
            check_with_others(path, len(contents.packets))
            size = path.stat().st_size
            assert size < 64 * 1024
            assert proxy.metric("l2_capture_bytes_total") == size
            assert proxy.metric("l2_capture_frames_total") == len(contents.packets)
            async with raw_guest(proxy) as other:  # there is no room for its headers, or for the first frames
                await until_error(proxy, other, 2)
                await other.echo(b"so does another")
        proxy.wait_settled()
        assert proxy.metric("l2_capture_errors_total") == 2
        assert proxy.metric("l2_capture_bytes_total") == sum(p.stat().st_size for p in files(folder))
        (first, _) = ends(proxy)
        assert (first["text"], first["session"]) == ("No space left on device", 1)
        assert first["file"] == f"{place}/captures/{path.name}"


async def test_a_file_size_limit_ends_the_capture_and_not_the_tunnel(world: World, place: Path) -> None:
    """It is inherited from whoever starts the proxy (ulimit -f, LimitFSIZE= of systemd)."""
    limit, usual = 1_000_000, resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(programs: Path, devices: Path, mounts: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))

    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_FSIZE, usual)
        env = {DIRECTORY: str(place / "captures"), **OFTEN}
        proxy = stack.enter_context(run_proxy(world, "root", env, before=limited))
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        async with raw_guest(proxy) as guest:
            await until_error(proxy, guest)
            await guest.echo(b"the tunnel works")
        (path,) = files(place / "captures")
        contents = pcapng.read(path)
        assert limit - 1444 < path.stat().st_size <= limit
        assert contents.inbound == [LARGE] * len(contents.inbound)
        assert proxy.metric("l2_capture_bytes_total") == path.stat().st_size
        assert proxy.metric("l2_capture_frames_total") == len(contents.packets)
        assert ends(proxy)[0]["text"] == "File too large"


async def test_a_directory_that_becomes_read_only_costs_captures_only(world: World, place: Path) -> None:
    folder = place / "captures"
    with capturing(world, "root", folder, **OFTEN) as proxy:
        os.chmod(folder, 0o500)
        async with raw_guest(proxy) as guest:
            await guest.echo(b"the tunnel works")
            await until(lambda: proxy.metric("l2_capture_errors_total") == 1, "it is counted", SOON_S)
            assert ends(proxy)[0]["text"] == "Permission denied"
        os.chmod(folder, 0o700)
        async with raw_guest(proxy) as guest:
            await guest.echo(b"and is captured again")
        await closed(folder)


async def test_a_directory_that_is_removed_is_made_again(world: World, place: Path, proxy_as: RunAs) -> None:
    """Who has a file in it loses the capture, for nobody could read it, and keeps the tunnel."""
    os.chmod(place, 0o777)
    folder = place / "captures"
    with capturing(world, proxy_as, folder, **OFTEN) as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"captured")
            await until(lambda: files(folder) and so_far(folder).packets, "it is captured", SOON_S)
            shutil.rmtree(folder)
            await until_error(proxy, guest)
            await guest.echo(b"the tunnel works")
            async with raw_guest(proxy) as other:
                await other.echo(b"captured again")
                await until(lambda: os.path.exists(folder) and files(folder), "it is there", SOON_S)
        await closed(folder)
        assert ends(proxy)[0]["text"] == "the file was removed"


async def test_a_directory_that_cannot_be_made_again_costs_captures_only(world: World, place: Path) -> None:
    folder = place / "captures"
    with capturing(world, "root", folder, **OFTEN) as proxy:
        os.rmdir(folder)
        async with raw_guest(proxy) as guest:
            await guest.echo(b"the tunnel works")
            await until(lambda: proxy.metric("l2_capture_errors_total") == 1, "it is counted", SOON_S)
            assert ends(proxy)[0]["text"] == "Permission denied"


@pytest.fixture
def silent(place: Path) -> HangingFiles:
    folder = place / "silent"
    folder.mkdir()
    with hanging_files(folder) as files:
        yield files


async def test_a_disk_that_does_not_answer_holds_nobody_up(world: World, silent: HangingFiles) -> None:
    """Memory is bounded, frames that are dropped are counted, tunnels come and go; the rest gets there."""
    with capturing(world, "root", silent.folder, **OFTEN) as proxy:
        async with raw_guest(proxy) as guest:
            await until(lambda: any(silent.files().values()), "its headers are written", SOON_S)
            silent.go.clear()
            sent = 0
            while not proxy.metric("l2_capture_frames_dropped_total"):
                for _ in range(200):
                    await guest.tunnel.send(LARGE)
                sent += 200
                await guest.tunnel.ping(os.urandom(8))
                assert sent < 20_000
            assert 2 * 1024 * 1024 < sent * len(LARGE) < 8 * 1024 * 1024, "about what one may hold"
            for _ in range(3):
                async with raw_guest(proxy) as other:
                    began = time.monotonic()
                    await other.echo(b"comes and goes")
                    assert time.monotonic() - began < SOON_S
            assert proxy.get("/readyz")[0] == 200
            silent.go.set()
        proxy.wait_settled()
        await until(lambda: len(silent.files()) == 4, "every tunnel has its file", SOON_S)

        def complete() -> bool:
            return all(pcapng.read(data, cut_short=True).statistics for data in silent.files().values())

        await until(complete, "all are complete", SOON_S)
        first = pcapng.read(min(silent.files().items())[1])
        received, dropped = first.statistics or (0, 0)
        assert dropped == proxy.metric("l2_capture_frames_dropped_total") > 0
        assert dropped == proxy.metric('aero_l2_capture_frames_dropped_total{cause="queue"}')
        assert len(first.packets) == received - dropped
        assert sent <= received
        assert proxy.metric("l2_capture_errors_total") == 0


async def test_a_disk_that_does_not_answer_does_not_hold_up_the_end(
    world: World, silent: HangingFiles
) -> None:
    grace_s = 1.0
    env = {**OFTEN, "AERO_L2_SHUTDOWN_GRACE_MS": str(int(grace_s * 1000))}
    with capturing(world, "root", silent.folder, **env) as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
            silent.go.clear()
            await guest.echo(b"works still")
            began = time.monotonic()
            proxy.terminate()
            assert await guest.tunnel.closed() == (1001, "shutting down")
            assert await asyncio.to_thread(proxy.wait) == 0, proxy.log
            assert time.monotonic() - began < 5 * (grace_s + 5)
        assert "captures are not complete, the disk does not answer" in proxy.log
        assert "server held up by a disk" in proxy.log
        silent.go.set()  # the kernel waits for the answer to FLUSH, in whatever way a process ends
        await until(lambda: not proxy.processes(), "nothing is left once it answers", SOON_S)


async def test_a_capture_goes_on_in_the_same_file_over_a_resume(world: World, place: Path) -> None:
    folder = place / "captures"
    with capturing(world, "root", folder, AERO_L2_RESUME_SECONDS="60", **OFTEN) as proxy:
        secret = await _frame_of_a_new_tunnel(proxy)
        await until(lambda: proxy.metric("aero_l2_sessions_kept") == 1, "it is kept", SOON_S)
        await _frame_of_a_resumed_tunnel(proxy, secret)
        (path,) = await closed(folder)
        frames = [frame for frame in pcapng.read(path).inbound if frame[12:14] == b"\x88\xb5"]
        assert frames == [FRAME + b"before", FRAME + b"after"]


class Resumable(Tunnel):
    """A tunnel of a client that can come back: RESUME_SECRET is kept, RESUMED passed over."""

    def __init__(self, proxy: Proxy, offer: str) -> None:
        super().__init__(proxy.world.host, proxy.port)
        self._offered = [Subprotocol(PROTOCOL), Subprotocol(offer)]
        self.secret = ""

    def _sort(self, kind: int, payload: bytes) -> None:
        if kind == 0x10:
            self.secret = payload.decode()
        elif kind != 0x11:
            super()._sort(kind, payload)


async def _frame_of_a_new_tunnel(proxy: Proxy) -> str:
    """One frame, and the connection breaks; what the client needs to come back."""
    async with Resumable(proxy, "aero-l2-resume") as tunnel:
        await tunnel.send(FRAME + b"before")
        await tunnel.ping(b"taken")
        tunnel.abort()
        return tunnel.secret


async def _frame_of_a_resumed_tunnel(proxy: Proxy, secret: str) -> None:
    async with Resumable(proxy, f"aero-l2-resume.{secret}") as tunnel:
        await tunnel.send(FRAME + b"after")
        await tunnel.ping(b"taken")


async def test_two_proxies_may_share_a_directory(world: World, place: Path) -> None:
    """Neither removes what the other one writes."""
    folder = place / "captures"
    with capturing(world, "root", folder, **OFTEN) as one:
        async with AsyncExitStack() as stack:
            for _ in range(3):
                guest = await stack.enter_async_context(raw_guest(one))
                await guest.echo(b"open")
            await until(lambda: len(files(folder)) == 3, "three are open", SOON_S)
            theirs = files(folder)
            with capturing(world, "root", folder, AERO_L2_CAPTURE_MAX_FILES="1") as other:
                for _ in range(2):
                    async with raw_guest(other) as guest:
                        await guest.echo(b"works")
                await until(lambda: len(files(folder)) == 4, "one of its own is left", SOON_S)
                assert set(theirs) < set(files(folder))


# -- starting


def start(folder: Path, *by: str, **env: str) -> tuple[int, str]:
    """Start a proxy that cannot: its status and what it said."""
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), **NO_AUTH, DIRECTORY: str(folder), **env}
    command = [*by, PROGRAM, "serve", "--bind", "127.0.0.1:0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def refusal(folder: Path, *by: str, **env: str) -> str:
    """The one line of a start that is refused."""
    status, said = start(folder, *by, **env)
    assert status == 2, said
    (line,) = said.splitlines()
    assert line.startswith(f"aero-l2: {DIRECTORY}: cannot write to {folder}: ")
    return line


def test_a_file_in_its_place_is_refused(place: Path) -> None:
    (place / "file").touch()
    assert refusal(place / "file").endswith("Not a directory: name a directory")


def test_a_directory_of_another_user_is_refused(place: Path) -> None:
    (place / "captures").mkdir(mode=0o755)
    line = refusal(place / "captures")
    assert line.endswith("Permission denied: let user aero-l2 write there (chown), or name another directory")


def test_a_directory_that_a_user_cannot_make_is_refused(place: Path) -> None:
    line = refusal(place / "captures", *AS_USER)
    assert line.endswith(
        f"Permission denied: uid {USER_ID} cannot make it: make it yourself and give it to uid {USER_ID} "
        "(chown)"
    )


@pytest.mark.parametrize("by", [(), AS_USER], ids=["root", "user"])
def test_a_read_only_file_system_is_refused(place: Path, by: tuple[str, ...]) -> None:
    """As the root of a container is."""
    script = 'mount -t tmpfs -o ro tmpfs "$1" && shift && exec "$@"'
    line = refusal(place / "captures", *("unshare", "-m", "sh", "-c", script, "sh", str(place)), *by)
    assert "Read-only file system: mount a file system there that" in line


def test_a_full_disk_is_refused(place: Path) -> None:
    script = (
        'mount -t tmpfs -o mode=1777,size=8k tmpfs "$1" && mkdir -m 777 "$1/captures" && '
        'head -c 1M /dev/zero >"$1/all" 2>/dev/null; shift && exec "$@"'
    )
    line = refusal(place / "captures", *("unshare", "-m", "sh", "-c", script, "sh", str(place)))
    assert line.endswith("No space left on device: make room, or name another directory")


async def test_a_directory_behind_a_closed_folder_of_roots_is_made(world: World, place: Path) -> None:
    """Root's home, say: the service user is shown that directory and nothing else of it."""
    closed_one = place / "closed"
    os.mkdir(closed_one, 0o700)
    folder = closed_one / "deep/captures"
    with capturing(world, "root", folder) as proxy:
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
        await closed(folder)


async def test_a_relative_path_is_meant_from_where_it_is_started(world: World, place: Path) -> None:
    folder = place / "captures"
    with run_proxy(world, "root", {DIRECTORY: f".{folder}"}) as proxy:  # it is started from /
        async with raw_guest(proxy) as guest:
            await guest.echo(b"works")
        await closed(folder)
