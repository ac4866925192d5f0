"""How many flows of a tunnel are active, by the events of its connection tracking. asyncio.

An event that does not fit the socket's buffer is lost, and the kernel says so. Then, once the socket is
empty, netd is asked for what there is; what ends or begins meanwhile is remembered and has the last word.
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from netns import conntrack
from netns.errors import NetnsError

DELAY_S: Final = 0.1
"""From the first event to reading all there are: waking up costs more than an event."""
SOON_S: Final = 0.02
"""The same where a listener wants to know when things happen."""
READS_PER_TURN: Final = 64
"""A flood of events takes its turn with everything else of the loop: 0.3 ms each, 2 ms with a listener."""
MAX_FLOWS: Final = conntrack.MAX_DUMPED
"""So many of each protocol are kept; a tunnel without limits may have more."""
MAX_DRAINED: Final = 4096
"""Events that are read at a tunnel's end, which is more than its socket holds."""
PAUSE_S: Final = 1.0
"""Between two dumps, those of all tunnels together."""

Ask = Callable[[], Awaitable[bytes | None]]
"""Has netd dump the namespace; None where that cannot be done at present. May raise NetnsError."""


class Listener(Protocol):
    """Who else hears of a tunnel's flows."""

    def event(self, data: bytes, flow: conntrack.Flow | None) -> None:
        """An event as it came (`netns.details.of_event`), and what it says of a TCP or UDP flow."""

    def lost(self) -> None:
        """Events were lost; a dump follows, between `FlowWatch.begin` and `FlowWatch.end`."""

    def resyncing(self) -> None:
        """A dump is asked for: from now on what comes has the last word."""


class FlowWatch:
    """The active flows of one tunnel.

    Args:
        events: descriptor of `conntrack.open_events`; it stays open here.
        changed: told TCP and UDP flows, more (or fewer) than before.
        ask: see `Ask`.
        resync: shared by all tunnels.
        listener: hears of every event, if there is one.
    """

    def __init__(
        self,
        events: int,
        changed: Callable[[int, int], None],
        ask: Ask,
        resync: "Resync",
        listener: Listener | None = None,
    ) -> None:
        self._events = socket.socket(fileno=os.dup(events))
        self._changed = changed
        self._resync = resync
        self._listener = listener
        self._delay_s = DELAY_S if listener is None else SOON_S
        self.ask = ask
        self._active: dict[int, set[int]] = {conntrack.TCP: set(), conntrack.UDP: set()}
        self._incomplete = False
        self._since: dict[tuple[int, int], bool] | None = None
        """While netd is asked: what began (True) and ended (False) since."""
        self._loop = asyncio.get_running_loop()
        self._reading: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._loop.add_reader(self._events.fileno(), self._readable)

    def close(self) -> None:
        """Count nothing any more; idempotent."""
        if not self.is_open:
            return
        self._loop.remove_reader(self._events.fileno())
        if self._reading is not None:
            self._reading.cancel()
        self._resync.forget(self)
        self._events.close()
        self._replace({kind: set() for kind in self._active})

    @property
    def is_open(self) -> bool:
        """Whether `close` was not called yet."""
        return self._events.fileno() >= 0

    def begin(self) -> None:
        """A dump is asked for: from now on remember what changes."""
        self._since = {}
        if self._listener is not None:
            self._listener.resyncing()

    def end(self, dumped: Iterable[tuple[int, int]] | None) -> None:
        """The dump has come; None: it has not, and everything stays as it is."""
        since, self._since = self._since or {}, None
        if dumped is None or not self.is_open:
            return
        found: dict[int, set[int]] = {kind: set() for kind in self._active}
        for protocol, flow in dumped:
            if protocol in found and len(found[protocol]) < MAX_FLOWS:
                found[protocol].add(flow)
        for (protocol, flow), began in since.items():
            (found[protocol].add if began else found[protocol].discard)(flow)
        self._replace(found)

    async def drain(self) -> None:
        """Read what has come so far, in turns."""
        for number in range(1, MAX_DRAINED):
            try:
                self._note(self._events.recv(conntrack.MAX_EVENT))
            except BlockingIOError:
                return
            except OSError:
                self._lose()
            if number % READS_PER_TURN == 0:
                await asyncio.sleep(0)

    def _lose(self) -> None:
        self._incomplete = True
        if self._listener is not None:
            self._listener.lost()

    def _readable(self) -> None:
        self._loop.remove_reader(self._events.fileno())
        self._reading = self._loop.call_later(self._delay_s, self._read)

    def _read(self) -> None:
        before = self.counts()
        try:
            for _ in range(READS_PER_TURN):
                self._note(self._events.recv(conntrack.MAX_EVENT))
        except BlockingIOError:
            self._drained()
        except OSError as error:  # ENOBUFS: the socket takes no more until it is empty
            self._lose()
            delay_s = 0 if error.errno == errno.ENOBUFS else PAUSE_S
            self._reading = self._loop.call_later(delay_s, self._read)
        else:
            self._reading = self._loop.call_later(0, self._read)
        self._tell(before)

    def _note(self, data: bytes) -> None:
        flow = conntrack.parse(data)
        if self._listener is not None:
            self._listener.event(data, flow)
        if flow is None:
            return
        active = self._active[flow.protocol]
        if flow.over:
            active.discard(flow.flow)
        elif len(active) < MAX_FLOWS:
            active.add(flow.flow)
        if self._since is not None and len(self._since) < MAX_FLOWS:
            self._since[flow.protocol, flow.flow] = not flow.over

    def _drained(self) -> None:
        self._loop.add_reader(self._events.fileno(), self._readable)
        if self._incomplete:
            self._incomplete = False
            self._resync.request(self)

    def _replace(self, found: dict[int, set[int]]) -> None:
        before = self.counts()
        self._active = found
        self._tell(before)

    def counts(self) -> tuple[int, int]:
        return len(self._active[conntrack.TCP]), len(self._active[conntrack.UDP])

    def _tell(self, before: tuple[int, int]) -> None:
        now = self.counts()
        if now != before:
            self._changed(now[0] - before[0], now[1] - before[1])


class Resync:
    """Has the flows of tunnels dumped that lost events: one at a time, the longest waiting first.

    ``spawn`` starts a task and keeps it.
    """

    def __init__(self, spawn: Callable[..., "asyncio.Task[None]"], pause_s: float = PAUSE_S) -> None:
        self._spawn = spawn
        self._pause_s = pause_s
        self._waiting: OrderedDict[FlowWatch, None] = OrderedDict()
        self._running: asyncio.Task[None] | None = None

    def request(self, watch: FlowWatch) -> None:
        """Dump the tunnel's flows soon."""
        self._waiting[watch] = None
        if self._running is None or self._running.done():
            self._running = self._spawn(self._run(), name="flows")

    def forget(self, watch: FlowWatch) -> None:
        """The tunnel is over."""
        self._waiting.pop(watch, None)

    async def _run(self) -> None:
        while self._waiting:
            watch, _ = self._waiting.popitem(last=False)
            watch.begin()
            packed: bytes | None = None
            with contextlib.suppress(NetnsError, OSError):
                packed = await watch.ask()
            watch.end(None if packed is None else conntrack.unpack(packed))
            if packed is None and watch.is_open:
                self._waiting.setdefault(watch)
            await asyncio.sleep(self._pause_s)
