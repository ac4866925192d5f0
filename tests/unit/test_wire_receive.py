"""The receive path of our own against websockets alone: same messages, bytes and end on any stream."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol
from websockets.utils import apply_mask

from aero_l2.wire.receive import FRAGMENTS_PER_MESSAGE, MAX_FRAMES_PER_BATCH, Aside, Batch, Receiver

CAP = 300


def frame(
    payload: bytes,
    opcode: int = 2,
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = b"\x01\x02\x03\x04",
    form: int = 0,
) -> bytes:
    """A client's frame; `form` 126 or 127 forces a longer length than needed."""
    size = len(payload)
    bit = 0x80 if mask is not None else 0
    if form == 127 or size > 65535:
        length = bytes([bit | 127]) + size.to_bytes(8, "big")
    elif form == 126 or size > 125:
        length = bytes([bit | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([bit | size])
    body = apply_mask(payload, mask) if mask is not None else payload
    return bytes([(0x80 if fin else 0) | rsv << 4 | opcode]) + length + (mask or b"") + body


@dataclass
class Seen:
    """What one way of receiving made of a stream."""

    messages: list[bytes] = field(default_factory=list)
    outgoing: bytes = b""
    ended: bool = False
    asides: list[Aside] = field(default_factory=list)

    def add(self, batch: Batch) -> None:
        self.asides += [aside._replace(before=aside.before + len(self.messages)) for aside in batch.asides]
        self.messages += batch.messages
        self.outgoing += batch.outgoing
        self.ended = batch.ended


def by_receiver(chunks: list[bytes], *, library_only: bool = False, close_after: int = -1) -> Seen:
    receiver, seen = Receiver(CAP, library_only=library_only), Seen()
    for number, chunk in enumerate(chunks):
        if number == close_after:
            seen.outgoing += receiver.close(1001, "bye")
        batch = receiver.receive(chunk)
        seen.add(batch)
        while batch.backlog:
            batch = receiver.receive(b"")
            seen.add(batch)
    return seen


def by_library(chunks: list[bytes], *, close_after: int = -1) -> Seen:
    """The reference: the sans-I/O protocol, events reassembled in the plainest way."""
    quiet = logging.getLogger("reference")
    quiet.setLevel(logging.CRITICAL)
    protocol, seen = ServerProtocol(state=OPEN, max_size=CAP, logger=quiet), Seen()
    parts: list[Frame] = []
    for number, chunk in enumerate(chunks):
        if number == close_after and protocol.state is OPEN:
            protocol.send_close(1001, "bye")
            seen.outgoing += b"".join(protocol.data_to_send())
        protocol.receive_data(chunk)
        for event in protocol.events_received():
            if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                parts.append(event)
                if event.fin:
                    whole = b"".join(bytes(part.data) for part in parts)
                    if parts[0].opcode is Opcode.BINARY:
                        seen.messages.append(whole)
                    else:
                        seen.asides.append(Aside(len(seen.messages), len(whole), "text"))
                    parts = []
            elif isinstance(event, Frame) and event.opcode in (Opcode.PING, Opcode.PONG):
                kind: Literal["ping", "pong"] = "ping" if event.opcode is Opcode.PING else "pong"
                seen.asides.append(Aside(len(seen.messages), len(event.data), kind))
        seen.outgoing += b"".join(protocol.data_to_send())
        seen.ended = protocol.eof_sent
    return seen


def chunked(stream: bytes, cuts: list[int]) -> list[bytes]:
    """`stream` cut at the given places, empty pieces left out."""
    places = sorted({cut % (len(stream) + 1) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in pairwise(places)]


masks = st.one_of(st.just(b"\0\0\0\0"), st.binary(min_size=4, max_size=4))
payloads = st.one_of(st.binary(max_size=40), st.binary(min_size=120, max_size=CAP + 4))
forms = st.sampled_from([0, 0, 0, 126, 127])
plain = st.builds(frame, payloads, mask=masks, form=forms)
data = st.builds(frame, payloads, st.sampled_from([0, 1, 2]), fin=st.booleans(), mask=masks, form=forms)
control = st.builds(
    frame, st.binary(max_size=130), st.sampled_from([8, 9, 9, 10]), fin=st.booleans(), mask=masks
)
close = st.builds(
    lambda code, text: frame(code.to_bytes(2, "big") + text, 8), st.integers(0, 5000), st.binary(max_size=9)
)
odd = st.builds(
    frame, payloads, st.integers(0, 15), fin=st.booleans(), rsv=st.integers(0, 7), mask=st.none() | masks
)
unmasked = st.builds(frame, payloads, mask=st.none())
reserved = st.builds(frame, payloads, rsv=st.integers(1, 7))
huge = st.builds(
    lambda first, size: bytes([first, 0xFF]) + size.to_bytes(8, "big"),
    st.sampled_from([0x82, 0x81, 0x02]),
    st.integers(0, 2**64 - 1),
)
sane = st.one_of(plain, plain, plain, data, control)
streams = st.lists(
    st.one_of(sane, sane, sane, sane, close, odd, unmasked, reserved, huge, st.binary(max_size=20)),
    max_size=14,
)
cuts = st.lists(st.integers(0, 5000), max_size=30)


@pytest.mark.slow
@settings(max_examples=1500)
@given(streams, cuts, st.integers(-1, 6))
def test_both_ways_agree_on_any_stream(frames: list[bytes], cuts: list[int], close_after: int) -> None:
    chunks = chunked(b"".join(frames), cuts)
    expected = by_library(chunks, close_after=close_after)
    assert by_receiver(chunks, close_after=close_after) == expected
    assert by_receiver(chunks, library_only=True, close_after=close_after) == expected


@pytest.mark.slow
@settings(max_examples=300)
@given(st.lists(data | plain | control, max_size=30), cuts)
def test_both_ways_agree_on_fragments_among_frames(frames: list[bytes], cuts: list[int]) -> None:
    chunks = chunked(b"".join(frames), cuts)
    assert by_receiver(chunks) == by_library(chunks)


@pytest.mark.parametrize("library_only", [False, True])
def test_stream_in_single_bytes(library_only: bool) -> None:
    stream = frame(b"a") + frame(b"") + frame(b"b" * 200) + frame(b"hi", 9) + frame(b"c", form=127)
    seen = by_receiver([bytes([byte]) for byte in stream], library_only=library_only)
    messages = [b"a", b"", b"b" * 200, b"c"]
    assert seen == Seen(messages, b"\x8a\x02hi", False, [Aside(3, 2, "ping")])


def test_frames_of_one_read_come_as_one_batch() -> None:
    batch = Receiver(CAP).receive(b"".join(frame(bytes([n]) * 60) for n in range(50)))
    assert batch.messages == [bytes([n]) * 60 for n in range(50)]
    assert not batch.backlog


@pytest.mark.parametrize("opcode", [2, 9])
def test_work_of_one_turn_is_bounded(opcode: int) -> None:
    receiver = Receiver(CAP)
    stream = frame(b"x", opcode) * (MAX_FRAMES_PER_BATCH * 3 + 1)
    batch, turns, messages = receiver.receive(stream), 1, 0
    while batch.backlog:
        assert len(batch.messages) <= MAX_FRAMES_PER_BATCH
        assert len(batch.outgoing) <= MAX_FRAMES_PER_BATCH * 3
        messages += len(batch.messages)
        batch = receiver.receive(b"")
        turns += 1
    assert turns == 4
    if opcode == 2:
        assert messages + len(batch.messages) == MAX_FRAMES_PER_BATCH * 3 + 1


@pytest.mark.parametrize("library_only", [False, True])
def test_message_over_the_cap_is_1009_from_its_header_on(library_only: bool) -> None:
    receiver = Receiver(CAP, library_only=library_only)
    batch = receiver.receive(frame(bytes(CAP + 1))[:4])
    assert batch.ended
    assert receiver.failure is not None
    assert receiver.failure[0] == 1009
    assert batch.outgoing[2:4] == (1009).to_bytes(2, "big")


@pytest.mark.parametrize("library_only", [False, True])
def test_many_fragments_cost_like_messages(library_only: bool) -> None:
    few, many = (count * [frame(b"", 0, fin=False)] for count in (FRAGMENTS_PER_MESSAGE - 2, 130))
    for fragments, asides in (few, []), (many, 2 * [Aside(0, 0, "fragments")]):
        chunks = [frame(b"a", fin=False), *fragments, frame(b"b", 0)]
        seen = by_receiver(chunks, library_only=library_only)
        assert seen == Seen([b"ab"], b"", False, asides)


def test_fragments_over_the_cap_are_1009() -> None:
    receiver = Receiver(CAP)
    receiver.receive(frame(bytes(200), fin=False))
    assert not receiver.receive(frame(bytes(100), 0, fin=False)).ended
    assert receiver.receive(frame(b"x", 0)[:2]).ended
    assert receiver.failure is not None
    assert receiver.failure[0] == 1009


def test_empty_fragments_hold_no_memory() -> None:
    receiver = Receiver(CAP)
    receiver.receive(frame(b"", fin=False))
    for _ in range(20):
        batch = receiver.receive(frame(b"", 0, fin=False) * MAX_FRAMES_PER_BATCH)
        while batch.backlog:
            batch = receiver.receive(b"")
    assert receiver.receive(frame(b"end", 0)).messages == [b"end"]


def test_text_is_ignored_also_in_fragments() -> None:
    stream = (
        frame(b"t", 1) + frame(b"t", 1, fin=False) + frame(b"u", 0) + frame(b"b", fin=False) + frame(b"c", 0)
    )
    seen = by_receiver([stream])
    assert seen.messages == [b"bc"]
    assert seen.asides == [Aside(0, 1, "text"), Aside(0, 2, "text")]


def test_nothing_is_heard_behind_a_close_frame() -> None:
    receiver = Receiver(CAP)
    batch = receiver.receive(frame(b"before") + frame(b"", 9) + frame(b"\x03\xe8", 8) + frame(b"behind"))
    assert batch == Batch([b"before"], b"\x8a\0", False, True, [Aside(1, 0, "ping")])
    assert receiver.receive(b"") == Batch([], b"\x88\x02\x03\xe8", True, False)
    assert receiver.peer_closed
    assert receiver.failure is None
    assert receiver.receive(frame(b"later")).messages == []


def test_messages_before_a_close_frame_may_end_it_with_other_words() -> None:
    receiver = Receiver(CAP)
    assert receiver.receive(frame(b"malformed") + frame(b"\x03\xe8", 8)).messages == [b"malformed"]
    assert receiver.close(1008, "no") == b"\x88\x04\x03\xf0no"
    assert receiver.receive(b"") == Batch([], b"", True, False)
    assert receiver.peer_closed


@pytest.mark.parametrize("library_only", [False, True])
@pytest.mark.parametrize("end", [frame(b"", 3), frame(b"\x03\xe8", 8)], ids=["violation", "close"])
def test_nothing_is_held_behind_the_end(end: bytes, library_only: bool) -> None:
    receiver = Receiver(CAP, library_only=library_only)
    assert receiver.receive(end + bytes(1 << 18)).ended
    for _ in range(10):
        assert receiver.receive(bytes(1 << 18)) == Batch([], b"", True, False)
    assert receiver.held == 0


def test_close_reason_is_cut_to_what_a_frame_holds() -> None:
    receiver = Receiver(CAP)
    data = receiver.close(1008, "ü" * 100)
    assert data[:2] == bytes([0x88, 124])
    assert data[4:].decode() == "ü" * 61
    assert receiver.close(1001, "again") == b""


def test_ping_is_a_frame_of_its_own_until_the_close_begins() -> None:
    receiver = Receiver(100)
    assert receiver.ping() == b"\x89\x00"
    assert receiver.receive(b"\x8a\x80\0\0\0\0") == ([], b"", False, False, [Aside(0, 0, "pong")])
    receiver.close(1001, "bye")
    assert receiver.ping() == b""
