"""Every result of every kind of request to netd, counted once: the far end of the socket plays netd."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from ipaddress import IPv4Address

import pytest

from aero_l2.observe.metrics import Metrics
from aero_l2.observe.metrics.host import NETD_RESULTS
from netns import client as module
from netns import files, messages
from netns.client import NetdClient
from netns.errors import NetdUnavailable, SegmentError
from netns.handles import SegmentHandles
from netns.spec import SegmentSpec

TUNNEL, NEW = 1, 2


class Stage:
    """A client of netd with one tunnel, and netd's end of the socket."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.client = NetdClient(lambda event, text: None, account=self.metrics.netd_request)
        self.handles: SegmentHandles
        self.netd = self.attach()

    def attach(self) -> socket.socket:
        """Another netd."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        self.client.attach(ours)
        return theirs

    async def asked(self) -> messages.Request:
        """The next request."""
        async with asyncio.timeout(30):
            while True:
                try:
                    data, descriptors = messages.receive(self.netd)
                except BlockingIOError:
                    await asyncio.sleep(0)
                    continue
                files.close_all(descriptors)
                return messages.decode_request(data)

    def say(self, answer: messages.Answer) -> None:
        """An answer of netd's, with the descriptors that go with it."""
        with ExitStack() as stack:
            count = {messages.Made: len(messages.HANDLES), messages.Listed: 1}.get(type(answer), 0)
            opened = [stack.enter_context(open(os.devnull)).fileno() for _ in range(count)]
            messages.send(self.netd, answer, opened)

    def moved(self) -> dict[tuple[str, str], float]:
        """Requests by kind and result, where there are any."""
        children = self.metrics.netd_requests
        values = {
            (kind, result): child._value.get()
            for kind, results in children.items()
            for result, child in results.items()
        }
        return {key: value for key, value in values.items() if value}

    def timed(self, kind: str) -> float:
        """How many answers were timed."""
        value = self.metrics.registry.get_sample_value("aero_l2_netd_request_seconds_count", {"kind": kind})
        assert value is not None
        return value


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    creating = asyncio.ensure_future(made.client.create(SegmentSpec(), TUNNEL))
    await made.asked()
    made.say(messages.Made(TUNNEL))
    made.handles = await creating
    made.metrics = Metrics()
    made.client._account = made.metrics.netd_request
    yield made
    made.client.release(made.handles)
    made.client.detach()
    made.netd.close()


ASKING: dict[str, Callable[[Stage], Awaitable[object]]] = {
    "create": lambda stage: stage.client.create(SegmentSpec(), NEW),
    "counters": lambda stage: stage.client.counters(stage.handles),
    "flows": lambda stage: stage.client.flows(stage.handles),
    "open": lambda stage: stage.client.open_addresses(stage.handles, [(IPv4Address("192.0.2.1"), 60)]),
    "check": lambda stage: stage.client.answers(),
}


def reply(request: messages.Request, *, good: bool) -> messages.Answer:
    """What netd says to it."""
    match request:
        case messages.Create(id=number):
            return messages.Made(number) if good else messages.Failed(number, "no")
        case messages.ReadCounters(id=number, request=asked):
            return messages.Counted(number, asked, {} if good else None)
        case messages.ListFlows(id=number, request=asked):
            return messages.Listed(number, asked)
        case messages.OpenAddresses(id=number, request=asked):
            return messages.Opened(number, asked, good)
    raise AssertionError(request)


QUESTIONS = [(kind, result) for kind in ASKING for result in NETD_RESULTS[kind]]


@pytest.mark.parametrize(("kind", "result"), QUESTIONS)
async def test_each_question_is_counted_by_what_became_of_it(
    stage: Stage, kind: str, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if result == "timeout":
        monkeypatch.setattr(module, "CREATE_TIMEOUT_S", 0.01)
        monkeypatch.setattr(module, "OPEN_TIMEOUT_S", 0.01)
    asking = asyncio.ensure_future(ASKING[kind](stage))
    request = await stage.asked()
    match result:
        case "ok" | "refused":
            answer(stage, request, good=result == "ok")
        case "lost":
            stage.client.detach()
        case "cancelled":
            asking.cancel()
    (outcome,) = await asyncio.gather(asking, return_exceptions=True)
    wrong = {"timeout": (NetdUnavailable, SegmentError), "lost": NetdUnavailable}
    assert not isinstance(outcome, BaseException) or result in ("cancelled", "refused", *wrong)
    if kind == "create" and result == "ok":
        stage.client.release(outcome)  # type: ignore[arg-type]
    released = {("release", "sent"): 1.0} if kind == "create" and result not in ("refused", "lost") else {}
    assert stage.moved() == {(kind, result): 1.0, **released}
    assert stage.timed(kind) == (result in ("ok", "refused"))


def answer(stage: Stage, request: messages.Request, *, good: bool) -> None:
    """Flows that netd does not know are answered without a file."""
    if isinstance(request, messages.ListFlows) and not good:
        messages.send(stage.netd, reply(request, good=False), [])
    else:
        stage.say(reply(request, good=good))


async def test_what_is_only_sent_is_counted_as_sent_or_lost(stage: Stage) -> None:
    stage.netd = stage.attach()
    assert stage.moved() == {("adopt", "sent"): 1}
    stage.client.detach()
    stage.client.release(stage.handles)
    assert stage.moved() == {("adopt", "sent"): 1, ("release", "lost"): 1}
    stage.client._post("adopt", lambda _: None)  # only a netd that has just come gets it: there is one
    assert stage.moved() == {("adopt", "sent"): 1, ("release", "lost"): 1, ("adopt", "lost"): 1}
