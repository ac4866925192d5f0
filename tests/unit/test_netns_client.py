"""What the server has to tell netd arrives, also where the socket between them is full."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.wait import until

from netns import files, messages
from netns.client import NetdClient
from netns.errors import NetdUnavailable
from netns.handles import SegmentHandles
from netns.messages import Adopt, Create, HostAddresses, Made, NatReady, NatSick, Release
from netns.spec import SegmentSpec

_TUNNELS = 40
_SMALL_BUFFER = 4096  # room for a few messages


class Netd:
    """The other end of a client's socket, which reads when it is told to."""

    def __init__(self, client: NetdClient) -> None:
        ours, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_BUFFER)
        self.socket.setblocking(False)
        client.attach(ours)

    def read(self) -> list[messages.Request]:
        """The requests that are there."""
        requests = []
        while True:
            try:
                data, descriptors = messages.receive(self.socket)
            except BlockingIOError:
                return requests
            files.close_all(descriptors)
            request = messages.decode_request(data)
            assert len(descriptors) == 2 * isinstance(request, Adopt)
            requests.append(request)

    def make(self, identifier: int) -> None:
        """Answer a create, with any descriptors."""
        with ExitStack() as stack:
            files = [stack.enter_context(open(os.devnull)).fileno() for _ in messages.HANDLES]
            messages.send(self.socket, Made(identifier), files)


@pytest.fixture
def lost() -> Iterator[list[str]]:
    lines: list[str] = []
    yield lines
    assert not [line for line in lines if "lost" in line]


async def open_tunnels(client: NetdClient, netd: Netd) -> list[SegmentHandles]:
    handles = []
    for number in range(1, _TUNNELS + 1):
        netd.make(number)  # read only after the create is sent
        handles.append(await client.create(SegmentSpec(), number))
        assert netd.read() == [Create(number, SegmentSpec())]
    return handles


async def test_mass_end_loses_no_release(lost: list[str]) -> None:
    client = NetdClient(lambda event, _: lost.append(event))
    netd = Netd(client)
    for handles in await open_tunnels(client, netd):
        client.release(handles)
    got = netd.read()
    assert len(got) < _TUNNELS
    await until(lambda: got.extend(netd.read()) or len(got) == _TUNNELS, "all releases")
    assert got == [Release(number) for number in range(1, _TUNNELS + 1)]
    client.detach()


async def test_new_netd_is_told_of_every_tunnel_that_lives(lost: list[str]) -> None:
    client = NetdClient(lambda event, _: lost.append(event))
    handles = await open_tunnels(client, Netd(client))
    netd = Netd(client)
    client.release(handles[-1])
    got = netd.read()
    assert len(got) < _TUNNELS
    await until(lambda: got.extend(netd.read()) or len(got) == _TUNNELS, "all of them")
    assert got == [*(Adopt(number) for number in range(1, _TUNNELS)), Release(_TUNNELS)]
    for living in handles:
        client.release(living)
    client.detach()


async def test_what_waits_for_a_netd_that_ended_is_dropped(lost: list[str]) -> None:
    client = NetdClient(lambda event, _: lost.append(event))
    first = Netd(client)
    for handles in await open_tunnels(client, first):
        client.release(handles)
    first.socket.close()
    await until(lambda: not client.available, "its end is seen")
    second = Netd(client)
    messages.send(second.socket, HostAddresses(frozenset()))
    assert second.read() == []
    client.detach()


async def test_it_is_said_once_that_a_lost_netd_is_back(lost: list[str]) -> None:
    back: list[bool] = []
    client = NetdClient(lambda event, _: lost.append(event), back=lambda: back.append(True))
    first = Netd(client)
    messages.send(first.socket, HostAddresses(frozenset()))
    asking = asyncio.create_task(client.answers())  # which it never reads: its end is a reset
    await asyncio.sleep(0)
    first.socket.close()
    with pytest.raises(NetdUnavailable):
        await asking
    assert (lost, back) == (["the network helper ended"], [])
    second = Netd(client)
    for _ in range(2):
        messages.send(second.socket, HostAddresses(frozenset()))
    await until(lambda: back == [True], "it is back")
    client.detach()


async def test_tunnel_hears_that_its_nat_is_ready_and_does_not_wait_for_a_netd_that_is_gone(
    lost: list[str],
) -> None:
    client = NetdClient(lambda event, _: lost.append(event))
    netd = Netd(client)
    first, second, *others = await open_tunnels(client, netd)
    assert not first.nat_ready.done()
    for number in (first.id, first.id, 2**53):  # twice, and about nobody
        messages.send(netd.socket, NatReady(number))
    await until(first.nat_ready.done, "the first one is told")
    assert not second.nat_ready.done()
    netd.socket.close()
    await until(lambda: all(one.nat_ready.done() for one in (second, *others)), "nobody waits for ever")
    for handles in (first, second, *others):
        client.release(handles)


async def test_tunnel_hears_that_its_nat_is_given_up_and_why(lost: list[str]) -> None:
    client = NetdClient(lambda event, _: lost.append(event))
    netd = Netd(client)
    first, second, *others = await open_tunnels(client, netd)
    for number in (first.id, first.id, 2**53):  # twice, and about nobody
        messages.send(netd.socket, NatSick(number, "it spins"))
    assert await asyncio.wait_for(first.nat_sick, 10) == "it spins"
    assert not second.nat_sick.done()
    for handles in (first, second, *others):
        client.release(handles)
    client.detach()
