# ruff: noqa: ASYNC230
"""Plays a server that sends netd nonsense, then asks for a tunnel and expects it."""

import asyncio
import json
import os
import random
import resource
import socket
import sys

from netns import messages
from netns.client import NetdClient
from netns.spec import SegmentSpec

VALID = messages.encode(messages.Create(1, SegmentSpec()))
TOKENS = [
    b"create",
    b"adopt",
    b"release",
    b"counters",
    b"null",
    b"-1",
    b"9" * 400,
    b'"',
    b"{",
    b"]",
    b"\0",
    b"\\u0000",
]


def nonsense(source: random.Random) -> bytes:
    """Mostly a valid message with something wrong in it."""
    data = bytearray(VALID)
    for _ in range(source.randint(1, 6)):
        data = data or bytearray(b"{")
        place = source.randrange(len(data))
        match source.randrange(4):
            case 0:
                data[place] = source.randrange(256)
            case 1:
                data[place : place + source.randint(1, 20)] = source.choice(TOKENS)
            case 2:
                del data[place : place + source.randint(1, 40)]
            case 3:
                data = bytearray(source.randbytes(source.randint(1, 300)))
    return bytes(data) or b"x"


async def main() -> None:
    source = random.Random(int(sys.argv[1]))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # also bounds what is in flight, unix(7)
    control = socket.socket(fileno=int(os.environ["AERO_L2_CONTROL_FD"]))
    _, received, _, _ = socket.recv_fds(control, 64, 1)
    netd = socket.socket(fileno=received[0])
    with open(os.devnull) as file:
        for _ in range(int(sys.argv[2])):
            count = source.choice((0, 0, 0, 1, 3, 16))
            socket.send_fds(netd, [nonsense(source)], [file.fileno()] * count)
        null, ours, strange = file.fileno(), os.pidfd_open(os.getpid()), os.pidfd_open(os.getppid())
        for descriptors in ([], [null], [null] * 2, [null] * 3, [null, ours], [null, strange], [ours, null]):
            messages.send(netd, messages.Adopt(77), descriptors)  # what is no namespace, or no NAT process
        os.close(ours)
        os.close(strange)
        messages.send(netd, messages.ReadCounters(77, 5))
        messages.send(netd, messages.Release(77))
    netd.send(messages.encode(messages.Release(1)))
    client = NetdClient(lambda event, text: print(event, text, file=sys.stderr))
    client.attach(netd)
    for _ in range(5):  # its first answers are to the nonsense
        await asyncio.sleep(0.2)
    client._ids = iter(range(1000, 2000))  # type: ignore[assignment]
    handles = await client.create(SegmentSpec())
    counters = await client.counters(handles)
    client.release(handles)
    readable = select_readable(control)
    print(json.dumps({"counters": counters, "netd_restarted": readable}))


def select_readable(control: socket.socket) -> bool:
    """Whether the supervisor sent a second netd's socket: then the first one died."""
    control.setblocking(False)
    try:
        return bool(control.recv(64))
    except BlockingIOError:
        return False


asyncio.run(main())
