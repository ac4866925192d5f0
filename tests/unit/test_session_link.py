"""A link's share of a turn of the event loop, whatever its client has sent and whichever loop runs."""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
import uvloop
from support.wait import until

from aero_l2.session.link import Link
from aero_l2.wire.receive import MAX_FRAMES_PER_BATCH, Aside, Receiver

FRAMES = 6_000
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}


class Owner:
    """Counts messages by turn of the loop."""

    def __init__(self) -> None:
        self.turn = 0
        self.in_turn: Counter[int] = Counter()

    def count_turns(self) -> None:
        """Called once a turn, from now on."""
        self.turn += 1
        asyncio.get_running_loop().call_soon(self.count_turns)

    def on_messages(self, messages: list[bytes], asides: Sequence[Aside]) -> None:
        self.in_turn[self.turn] += len(messages)

    def on_paused(self) -> None: ...

    def on_resumed(self) -> None: ...

    def on_stalled(self) -> None: ...

    def on_websocket_end(self) -> None: ...

    def on_gone(self) -> None: ...


async def taken(size: int) -> Counter[int]:
    """Messages by turn, of a client whose data waits in the socket before the loop first looks."""
    ours, theirs = socket.socketpair()
    message = b"\x82\xfe" + size.to_bytes(2, "big") + b"\0\0\0\0" + bytes(size)
    stream = memoryview(message * FRAMES)
    for end, option in ((ours, socket.SO_RCVBUF), (theirs, socket.SO_SNDBUF)):
        end.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
    ours.setblocking(False)
    theirs.setblocking(False)
    stream = stream[theirs.send(stream) :]
    owner = Owner()
    owner.count_turns()
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
        lambda: Link(Receiver(4096), owner, stall_timeout_s=0), ours
    )
    await asyncio.get_running_loop().sock_sendall(theirs, stream)
    await until(lambda: owner.in_turn.total() >= FRAMES, "every frame", 30)
    transport.abort()
    theirs.close()
    return owner.in_turn


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("size", [126, 1404])
def test_client_that_sends_without_pause_gets_no_more_than_its_share_of_a_turn(loop: str, size: int) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        in_turn = runner.run(taken(size))
    assert in_turn.total() == FRAMES
    assert max(in_turn.values()) <= 2 * MAX_FRAMES_PER_BATCH, in_turn
