"""A run of `./dev bench` that is ended early leaves nothing, and where its temporary files go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from support import addresses as at
from support import procfs
from support.proxy import run_proxy
from support.wait import wait_until
from support.world import World

from bench.lab import Running

pytestmark = pytest.mark.slow

TREE = Path(__file__).parents[2]
BENCH = (sys.executable, "-m", "bench")


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for temporary files that everybody can reach, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="aero-l2-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def transferring(scratch: Path, *words: str, before: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """A run, from the moment when its first card is on a tunnel; all of it is killed afterwards."""
    run = subprocess.Popen(
        [*before, *BENCH, "--only", "transfers", *words],
        cwd=TREE,
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    known: set[int] = set()
    try:
        wait_until(
            lambda: "card-" in " ".join(map(procfs.command, procfs.descendants(run.pid))), "a card", 60
        )
        known = set(procfs.descendants(run.pid))
        yield run
        wait_until(lambda: not left(known), "every process has ended", 10)
    finally:
        run.kill()
        for pid in left(known):
            os.kill(pid, signal.SIGKILL)
        run.communicate(timeout=20)


def left(known: set[int]) -> list[int]:
    """Those that live, and what has come from them since."""
    return [pid for pid in known | set(procfs.descendants(*known)) if procfs.is_alive(pid)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda one: one.name)
def test_signal_undoes_all_of_it(number: signal.Signals, scratch: Path) -> None:
    with transferring(scratch) as run:
        run.send_signal(number)
        _, said = run.communicate(timeout=30)
    assert run.returncode == -number, said
    assert said.splitlines()[-1] == f"bench: ended by {number.name}; all of it is undone"
    assert "Traceback" not in said
    assert not list(scratch.iterdir())


def test_killed_run_leaves_a_folder_at_most_which_the_next_one_removes(scratch: Path) -> None:
    with transferring(scratch) as run:
        run.kill()
    (folder,) = scratch.iterdir()
    with transferring(scratch) as run, transferring(scratch) as beside:
        assert not folder.exists()
        assert len(list(scratch.iterdir())) == 2, "of the two that run"
        for one in (run, beside):
            one.terminate()
            one.communicate(timeout=30)
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda one: one.name)
def test_server_elsewhere_has_its_tunnels_back(number: signal.Signals, world: World, scratch: Path) -> None:
    with ExitStack() as stack:
        proxy = stack.enter_context(run_proxy(world, "root"))
        stack.callback(Running(world.internet.enter(*BENCH, "peer", at.WEB)).close)
        words = ("--url", proxy.url, "--peer", at.WEB)
        with transferring(scratch, *words, before=world.host.enter()) as run:
            run.send_signal(number)
        wait_until(lambda: not proxy.with_role("nat"), "every tunnel is undone", 30)


def test_temporary_folder_that_the_server_cannot_reach_is_passed_over(scratch: Path) -> None:
    closed = scratch / "closed"
    closed.mkdir(mode=0o700)
    with transferring(closed) as run:
        run.terminate()
        _, said = run.communicate(timeout=30)
    reason = f"the service user cannot pass {closed}: temporary files go to /tmp"
    assert said.splitlines()[0] == f"bench: {closed}: {reason}"
    assert not list(closed.iterdir())
