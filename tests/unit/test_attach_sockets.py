"""Paths of sockets: what is replaced, what is refused, what is left behind; the options printed for them."""

from __future__ import annotations

import os
import shlex
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from aero_l2.attach import hints
from aero_l2.attach.errors import SocketUnusable
from aero_l2.attach.unixsockets import listener

STREAM, SEQPACKET = socket.SOCK_STREAM, socket.SOCK_SEQPACKET


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A path short enough for a socket, wherever the tests' directory is."""
    os.chdir(tmp_path)
    return Path("s.sock")


def stale(path: Path, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_UNIX, kind) as dead:
        dead.bind(str(path))
        dead.listen()


def test_only_its_user_can_reach_a_socket_and_it_is_gone_afterwards(path: Path) -> None:
    mask = os.umask(0)
    try:
        with listener(path, STREAM):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert os.umask(0) == 0
    finally:
        os.umask(mask)
    assert not path.exists()


@pytest.mark.parametrize("before", [STREAM, SEQPACKET])
def test_a_socket_that_nobody_listens_on_is_replaced(path: Path, before: socket.SocketKind) -> None:
    stale(path, before)
    with listener(path, SEQPACKET) as waiting, socket.socket(socket.AF_UNIX, SEQPACKET) as machine:
        machine.connect(str(path))
        waiting.setblocking(True)
        waiting.accept()[0].close()
    assert not path.exists()


@pytest.mark.parametrize("kind", [STREAM, SEQPACKET])
def test_a_socket_that_somebody_listens_on_is_left_alone(path: Path, kind: socket.SocketKind) -> None:
    with listener(path, STREAM) as first:
        with pytest.raises(SocketUnusable, match="in use by another program"), listener(path, kind):
            pass
        assert path.exists()
        with pytest.raises(BlockingIOError):  # the first took the look for no machine
            first.accept()


def test_a_file_is_left_alone(path: Path) -> None:
    path.write_text("mine")
    with pytest.raises(SocketUnusable, match="no socket"), listener(path, STREAM):
        pass
    assert path.read_text() == "mine"


def test_another_programs_socket_on_the_path_is_not_removed_at_the_end(path: Path) -> None:
    with listener(path, STREAM):
        path.unlink()
        stale(path, STREAM)
    assert path.exists()


@pytest.mark.parametrize(
    ("given", "said"), [("no/such/folder.sock", "No such file"), ("x" * 200, "shorter path")]
)
def test_what_cannot_be_listened_on_is_said_in_one_line(path: Path, given: str, said: str) -> None:
    with pytest.raises(SocketUnusable, match=said) as refused, listener(Path(given), STREAM):
        pass
    assert "\n" not in str(refused.value)


def test_options_of_qemu_survive_a_shell() -> None:
    words = shlex.split(hints.qemu(Path("/run/my lab/a,b.sock"), listens=False))
    assert words == [
        *("-netdev", "stream,id=n0,server=off,addr.type=unix,addr.path=/run/my lab/a,,b.sock"),
        *("-device", "virtio-net-pci,netdev=n0,romfile="),
    ]
    assert "server=on" in hints.qemu(Path("/run/q"), listens=True)


def test_the_argument_of_user_mode_linux_names_both_sockets() -> None:
    words = hints.uml(Path("/run/u.sock")).split(",")
    assert words[:3] == ["vec0:transport=bess", "dst=/run/u.sock", "src=/run/u.sock.uml"]


@pytest.mark.parametrize("path", ["/run/a,b", "/run/a b"])
def test_a_path_that_user_mode_linux_cannot_take_is_refused(path: str) -> None:
    with pytest.raises(SocketUnusable, match="another path"):
        hints.uml(Path(path))
