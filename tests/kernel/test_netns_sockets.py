"""What the kernel says of TCP sockets, and the end of another process's connections."""

import ctypes
import errno
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.segment import segment

from netns import sockets
from netns.children import Child
from netns.messages import Relieved
from netns.segments import Segment
from netns.spec import SegmentSpec
from netns.syscalls import Prctl, prctl
from netns.tcpmemory import TcpMemoryWatch

LIMIT = 1 << 20
PIDFD_GETFD = 438
Looked = tuple[list[Relieved], list[tuple[int, str]]]

# Fills connections to itself, as many as there is room for, and resets their sending ends or not; then stays.
HOLDER = """
import socket, struct, sys
listening = socket.create_server(("127.0.0.1", 0), backlog=64)
held = []
for _ in range(12):
    ours = socket.create_connection(listening.getsockname())
    ours.settimeout(0.1)
    held += [ours, listening.accept()[0]]
    try:
        while True: ours.send(bytes(65536))
    except TimeoutError: pass
    if "reset" in sys.argv:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        ours.close()
print("full", flush=True)
input()
"""


@contextmanager
def holder(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER, *words], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"full\n"
        try:
            yield process
        finally:
            process.kill()


def held_by(process: subprocess.Popen[bytes]) -> dict[int, int]:
    """Bytes by inode."""
    held = sockets.held(os.getuid())
    return {inode: held[inode] for _, inode in sockets.sockets_of(process.pid) if inode in held}


def look(*processes: subprocess.Popen[bytes]) -> Looked:
    """What netd would do if these were NAT processes, of tunnels 0, 1, …"""
    relieved: list[Relieved] = []
    given_up: list[tuple[int, str]] = []
    with segment(SegmentSpec()) as lan:
        children = [Child(process.pid, os.pidfd_open(process.pid)) for process in processes]
        segments = {number: Segment(lan.interior, nat=child) for number, child in enumerate(children)}
        watch = TcpMemoryWatch(
            LIMIT, segments, relieved.append, lambda tunnel, _, why: given_up.append((tunnel, why))
        )
        watch.look(1000.0)
        assert watch.next_timeout(1000.0), "it has looked"
        for child in children:
            os.close(child.pidfd)
    return relieved, given_up


def test_surplus_is_freed_and_only_that_of_tunnels() -> None:
    with holder() as one, holder() as another, holder() as stranger:
        before = [held_by(process) for process in (one, another, stranger)]
        assert min(sum(its.values()) for its in before) > LIMIT
        assert sockets.tcp_memory() >= sum(sum(its.values()) for its in before) // 2
        relieved, given_up = look(one, another)
        assert {told.id for told in relieved} == {0, 1}
        assert not given_up
        after = [held_by(process) for process in (one, another, stranger)]
        assert sum(after[0].values()) + sum(after[1].values()) <= LIMIT
        assert after[2].keys() == before[2].keys()
        assert "of the host's memory, those of all tunnels" in relieved[0].reason
        assert all(process.poll() is None for process in (one, another))


def test_what_a_reset_connection_holds_is_seen_and_freed() -> None:
    """The peer's reset takes it out of what sock_diag(7) shows, and leaves what was not read."""
    with holder("reset") as one:
        assert sum(held_by(one).values()) == 0
        assert unseen_of(one) > LIMIT
        relieved, given_up = look(one)
        assert [told.id for told in relieved] == [0]
        assert not given_up
        assert unseen_of(one) <= LIMIT


def unseen_of(process: subprocess.Popen[bytes]) -> int:
    """Bytes of all its sockets."""
    pidfd = os.pidfd_open(process.pid)
    held = sum(sockets.held_unseen(pidfd, *at) for at in sockets.sockets_of(process.pid))
    os.close(pidfd)
    return held


def test_socket_that_took_the_place_of_another_is_left_alone() -> None:
    with holder() as one:
        pidfd = os.pidfd_open(one.pid)
        (fd, inode), *_ = [at for at in sockets.sockets_of(one.pid) if at[1] in held_by(one)]
        assert not sockets.end_connection(pidfd, fd, inode + 1)
        assert not sockets.end_connection(pidfd, 10_000, inode)
        assert sockets.end_connection(pidfd, fd, inode)
        assert inode not in held_by(one)
        one.kill()
        one.wait(10)
        assert not sockets.end_connection(pidfd, fd, inode)
        os.close(pidfd)


def test_tunnel_that_holds_the_most_is_given_up_where_descriptors_cannot_be_taken() -> None:
    """As in containers whose seccomp profile forbids it."""
    with holder() as one:
        given_up = json.loads(_forbidden(lambda: json.dumps(look(one)[1])))
    assert [tunnel for tunnel, _ in given_up] == [0]
    assert given_up[0][1].endswith("; single ones cannot be reset: pidfd_getfd: Operation not permitted")


def _forbidden(act: Callable[[], str]) -> str:
    """What ``act`` says in a process of its own that may not take another's descriptors."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            _forbid(PIDFD_GETFD)
            theirs.sendall(act().encode())
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        said = ours.recv(65536).decode()
    assert os.waitpid(pid, 0)[1] == 0
    return said


def _forbid(number: int) -> None:
    """A seccomp(2) filter: load the number; that one is EPERM, all others are allowed."""
    refused = 0x00050000 | errno.EPERM
    rules = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, refused), (0x06, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("=HBBI", *rule) for rule in rules)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(rules), ctypes.addressof(buffer)))
    prctl(Prctl.SET_NO_NEW_PRIVS, 1)
    prctl(Prctl.SET_SECCOMP, 2, ctypes.addressof(header))


def test_nothing_is_looked_at_without_a_limit_or_a_tunnel() -> None:
    for limit in (0, LIMIT):
        assert TcpMemoryWatch(limit, {}, pytest.fail, pytest.fail).next_timeout(0.0) is None
