"""The server's side of netd: asks for tunnels' namespaces and owns what comes back. asyncio.

netd may die and come back: `attach` gives the client the new one's socket, and every namespace that lives
is registered with it. Meanwhile `create` raises NetdUnavailable.
"""

import asyncio
import contextlib
import functools
import itertools
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import Any, TypeVar

from netns import files, messages
from netns.account import Account, accounted, kind_of, unaccounted
from netns.details import Ends
from netns.errors import MessageError, NetdUnavailable, SegmentError, TruncatedMessage
from netns.handles import SegmentHandles
from netns.outbox import Outbox, Send
from netns.spec import SegmentSpec

CREATE_TIMEOUT_S = 15.0
SILENT = "the network helper does not answer"
FIRST_NUMBER = 1 << 40
"""Of requests that are no tunnel's; those are called by what their makers call them."""
OPEN_TIMEOUT_S = 2.0
_T = TypeVar("_T")
_RECEIVES_PER_TURN = 32


class NetdClient:
    """Requests to netd. ``log`` gets event and text of what nobody else would hear of, ``back`` is called
    once a netd speaks after another one was lost, ``account`` hears what became of each request."""

    def __init__(
        self,
        log: Callable[[str, str], None],
        back: Callable[[], None] = lambda: None,
        account: Account = unaccounted,
    ) -> None:
        self._log = log
        self._back = back
        self._account = account
        self._is_lost = False
        self._socket: socket.socket | None = None
        self._ids = itertools.count(FIRST_NUMBER)
        self._creating: dict[int, asyncio.Future[SegmentHandles]] = {}
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._alive: dict[int, SegmentHandles] = {}
        self._outbox = Outbox(log)
        self.host_addresses: frozenset[IPv4Address] = frozenset()

    @property
    def available(self) -> bool:
        """Whether a netd is there to ask."""
        return self._socket is not None

    def attach(self, connection: socket.socket) -> None:
        """Talk to a (new) netd over ``connection``, which is owned from now on."""
        self.detach("the network helper was replaced")
        connection.setblocking(False)
        self._socket = connection
        self._outbox.open(connection)
        asyncio.get_running_loop().add_reader(connection.fileno(), self._readable)
        for handles in self._alive.values():
            self._post("adopt", functools.partial(_adopt, handles))

    def detach(self, reason: str = "the network helper is gone") -> None:
        """Let go of netd. What was asked of it fails; namespaces that live, live on."""
        if self._socket is None:
            return
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._outbox.close()
        self._socket.close()
        self._socket = None
        waiting: list[asyncio.Future[Any]] = [*self._creating.values(), *self._asked.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(NetdUnavailable(reason))
        self._creating.clear()
        self._asked.clear()
        for identifier in self._alive:
            self._nat_ready(identifier)  # nobody is left to say so

    async def create(self, spec: SegmentSpec, number: int = 0) -> SegmentHandles:
        """Have a namespace made. The caller owns the handles and gives them back to `release`.

        ``number``: what netd's log calls it, no other's ever; 0: any. Raises NetdUnavailable, SegmentError.
        Cancelled, it leaves nothing behind.
        """
        identifier = number or next(self._ids)
        future: asyncio.Future[SegmentHandles] = asyncio.get_running_loop().create_future()
        self._creating[identifier] = future
        try:
            with accounted(self._account, "create"):
                self._send(messages.Create(identifier, spec))
                return await asyncio.wait_for(future, CREATE_TIMEOUT_S)
        except TimeoutError as error:
            raise SegmentError(SILENT) from error
        finally:
            if self._creating.pop(identifier, None) is not None:
                self._post_release(identifier)

    def release(self, handles: SegmentHandles) -> None:
        """Close the handles and tell netd; idempotent."""
        if self._alive.pop(handles.id, None) is None:
            return
        handles.close()
        self._post_release(handles.id)

    async def answers(self) -> None:
        """Return once netd has answered a question about a namespace that there is not.

        Raises NetdUnavailable if it does not within `OPEN_TIMEOUT_S`.
        """
        number = next(self._ids)
        answer: asyncio.Future[dict[str, int] | None] = asyncio.get_running_loop().create_future()
        await self._ask(messages.ReadCounters(number, number), number, answer, OPEN_TIMEOUT_S, "check")

    async def counters(self, handles: SegmentHandles) -> dict[str, int] | None:
        """Packets by named counter (`netns.ruleset.COUNTERS`), None where netd does not know the namespace.

        Raises NetdUnavailable.
        """
        number = next(self._ids)
        answer: asyncio.Future[dict[str, int] | None] = asyncio.get_running_loop().create_future()
        return await self._ask(messages.ReadCounters(handles.id, number), number, answer, CREATE_TIMEOUT_S)

    async def flows(self, handles: SegmentHandles, wanted: tuple[Ends, ...] | None = None) -> bytes | None:
        """The active flows (`netns.conntrack.unpack`), None where netd does not know them. ``wanted``: see
        `messages.ListFlows`; to be read by `netns.details.unpack`. Raises NetdUnavailable."""
        number = next(self._ids)
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        request = messages.ListFlows(handles.id, number, wanted)
        return await self._ask(request, number, answer, CREATE_TIMEOUT_S)

    async def open_addresses(
        self, handles: SegmentHandles, openings: Sequence[tuple[IPv4Address, int]]
    ) -> bool:
        """Have each address within reach for so many seconds from now on; False if that cannot be done.

        At most `messages.MAX_OPENINGS` different ones. Raises NetdUnavailable.
        """
        number = next(self._ids)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        request = messages.OpenAddresses(handles.id, number, tuple(openings))
        return await self._ask(request, number, answer, OPEN_TIMEOUT_S)

    async def _ask(
        self,
        request: messages.Request,
        number: int,
        answer: asyncio.Future[_T],
        timeout_s: float,
        kind: str = "",
    ) -> _T:
        self._asked[number] = answer
        try:
            with accounted(self._account, kind or kind_of(request)) as outcome:
                self._send(request)
                found = await asyncio.wait_for(answer, timeout_s)
                outcome.is_refused = not kind and (found is None or found is False)
                return found
        except TimeoutError as error:
            raise NetdUnavailable(SILENT) from error
        finally:
            self._asked.pop(number, None)

    def _post_release(self, identifier: int) -> None:
        self._post("release", functools.partial(messages.send, message=messages.Release(identifier)))

    def _post(self, kind: str, send: Send) -> None:
        """Send what must arrive, in order, as soon as there is room; dropped if this netd goes."""
        self._account(kind, "sent" if self._outbox.post(send) else "lost", None)

    def _send(self, request: messages.Request, descriptors: list[int] | None = None) -> None:
        if self._socket is None:
            raise NetdUnavailable("the network helper is not running; it is being restarted")
        try:
            messages.send(self._socket, request, descriptors or [])
        except BlockingIOError as error:
            raise NetdUnavailable("the network helper is too busy") from error
        except OSError as error:
            raise NetdUnavailable(f"the network helper is gone: {error}") from error

    def _readable(self) -> None:
        for _ in range(_RECEIVES_PER_TURN):
            if self._socket is None:
                return
            try:
                data, descriptors = messages.receive(self._socket)
            except BlockingIOError:
                return
            except TruncatedMessage as error:
                self._truncated(error)
                continue
            except ConnectionResetError:  # it ended before it had read everything
                data, descriptors = b"", []
            except (OSError, MessageError) as error:
                self._lost("the network helper's socket failed", str(error))
                return
            if not data:
                self._lost("the network helper ended")
                return
            self._answer(data, descriptors)

    def _lost(self, event: str, text: str = "") -> None:
        self._log(event, text)
        self._is_lost = True
        self.detach()

    def _truncated(self, error: TruncatedMessage) -> None:
        """Descriptors did not fit into this process: that tunnel fails, the rest goes on."""
        with contextlib.suppress(MessageError):
            answer = messages.decode_answer(error.data)
            if isinstance(answer, messages.Made):
                self._fail(answer.id, "the server is out of file descriptors, raise LimitNOFILE (ulimit -n)")
                self._post_release(answer.id)

    def _answer(self, data: bytes, descriptors: list[int]) -> None:
        try:
            answer = messages.decode_answer(data)
        except MessageError as error:
            files.close_all(descriptors)
            self._log("the network helper sent nonsense", str(error))
            return
        match answer:
            case messages.Made(id, took):
                self._made(id, descriptors, took)
            case messages.NatReady(id):
                self._nat_ready(id)
            case messages.Failed(id, reason):
                self._fail(id, reason)
            case messages.NatSick(id, reason):
                self._nat_sick(id, reason)
            case messages.Relieved(id, connections, reason):
                if id in self._alive:
                    self._alive[id].relieved(connections, reason)
            case messages.Counted(_, request, counters):
                self._answered(request, counters)
            case messages.Listed(_, request):
                self._answered(request, files.contents(descriptors))
            case messages.Opened(_, request, done):
                self._answered(request, done)
            case messages.HostAddresses(addresses):
                self.host_addresses = addresses  # the first thing that a netd says
                if self._is_lost:
                    self._is_lost = False
                    self._back()

    def _answered(self, request: int, result: object) -> None:
        waiting = self._asked.get(request)
        if waiting is not None and not waiting.done():
            waiting.set_result(result)

    def _made(self, identifier: int, descriptors: list[int], took: tuple[int, ...]) -> None:
        future = self._creating.get(identifier)
        more = len(descriptors) - len(messages.HANDLES)
        names = messages.handle_names(redirects_dns=more >= 2, audits=more % 2 == 1)
        if len(descriptors) != len(names) or future is None or future.done():
            files.close_all(descriptors)  # nobody waits any more; `create` has sent its release
            return
        opened = dict(zip(names, descriptors, strict=True))
        loop = future.get_loop()
        handles = SegmentHandles(
            identifier, nat_ready=loop.create_future(), nat_sick=loop.create_future(), took=took, **opened
        )
        self._alive[identifier] = handles
        del self._creating[identifier]
        future.set_result(handles)

    def _nat_ready(self, identifier: int) -> None:
        handles = self._alive.get(identifier)
        if handles is not None and not handles.nat_ready.done():
            handles.nat_ready.set_result(None)

    def _nat_sick(self, identifier: int, reason: str) -> None:
        handles = self._alive.get(identifier)
        if handles is not None and not handles.nat_sick.done():
            handles.nat_sick.set_result(reason)

    def _fail(self, identifier: int, reason: str) -> None:
        future = self._creating.pop(identifier, None)
        if future is not None and not future.done():
            future.set_exception(SegmentError(reason))


def _adopt(handles: SegmentHandles, connection: socket.socket) -> None:
    """Register the namespace with another netd, unless it is released by now. Raises OSError."""
    if handles.netns >= 0:
        messages.send(connection, messages.Adopt(handles.id), [handles.netns, handles.process])
