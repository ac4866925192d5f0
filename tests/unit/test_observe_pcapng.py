"""Blocks of pcapng files: whatever goes in is read back by readers that share no code with the writer."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import PcapNgReader
from support import pcapng as reader

from aero_l2.observe import pcapng

SHORT = st.binary(max_size=60)
LONG = st.builds(
    lambda seed, size: (seed * size)[:size], st.binary(min_size=1, max_size=8), st.integers(1400, 2048)
)
FRAMES = st.lists(SHORT | LONG, max_size=12)
MOMENTS = st.integers(0, 2**64 - 1)
HEAD = pcapng.section_header("a program 1.0") + pcapng.interface_description("l2-tunnel")


def joined(packets: pcapng.Packets) -> bytes:
    data = b"".join(packets.pieces)
    assert len(data) == packets.size
    return data


@given(st.lists(st.tuples(MOMENTS, st.booleans(), FRAMES), max_size=6))
def test_frames_come_back_with_their_time_and_direction(batches: list[tuple[int, bool, list[bytes]]]) -> None:
    data = HEAD + b"".join(joined(pcapng.packets(at, frames, inbound=way)) for at, way, frames in batches)
    got = reader.read(data)
    assert (got.application, got.interface, got.snaplen) == ("a program 1.0", "l2-tunnel", 0)
    wanted = [(at, way, frame, len(frame)) for at, way, frames in batches for frame in frames]
    assert [(p.nanoseconds, p.is_inbound, p.data, p.length) for p in got.packets] == wanted


@given(FRAMES, st.booleans(), st.integers(1, 2100))
def test_snaplen_keeps_the_begin_and_the_length(frames: list[bytes], way: bool, snaplen: int) -> None:
    head = pcapng.section_header("") + pcapng.interface_description("l2-tunnel", snaplen)
    got = reader.read(head + joined(pcapng.packets(1, frames, inbound=way, snaplen=snaplen)))
    assert got.snaplen == snaplen
    assert [(p.data, p.length) for p in got.packets] == [(frame[:snaplen], len(frame)) for frame in frames]


@given(FRAMES, st.integers(0, 6000), st.sampled_from((0, 64)))
def test_as_many_frames_as_fit_and_no_byte_more(frames: list[bytes], room: int, snaplen: int) -> None:
    got = pcapng.packets(1, frames, inbound=True, snaplen=snaplen, room=room)
    assert len(joined(got)) <= room
    read = reader.read(HEAD + joined(got)).packets
    kept = [frame[:snaplen] if snaplen else frame for frame in frames]
    assert [packet.data for packet in read] == kept[: got.frames]
    if got.frames < len(frames):
        one_more = pcapng.packets(1, frames[: got.frames + 1], inbound=True, snaplen=snaplen)
        assert one_more.size > room


@given(FRAMES, st.data())
def test_what_was_cut_short_keeps_its_whole_blocks(frames: list[bytes], data: st.DataObject) -> None:
    blocks = joined(pcapng.packets(7, frames, inbound=False))
    written = data.draw(st.integers(0, len(blocks)))
    size, count = pcapng.whole_blocks(blocks, written)
    assert size <= written
    assert [packet.data for packet in reader.read(HEAD + blocks[:size]).packets] == frames[:count]
    assert count == len(frames) or pcapng.packets(7, frames[: count + 1], inbound=False).size > written


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), MOMENTS)
def test_statistics_have_a_constant_length(received: int, dropped: int, now: int) -> None:
    block = pcapng.statistics(now, received, dropped)
    assert len(block) == pcapng.STATISTICS_BYTES
    assert reader.read(HEAD + block).statistics == (received, dropped)


@given(st.text(max_size=40), st.text(max_size=40))
def test_names_of_any_length_are_padded(application: str, interface: str) -> None:
    data = pcapng.section_header(application) + pcapng.interface_description(interface)
    got = reader.read(data)
    assert (got.application, got.interface) == (application, interface)


@given(st.lists(st.tuples(st.integers(0, 2**62), st.booleans(), FRAMES), max_size=4))
def test_scapy_reads_the_same(batches: list[tuple[int, bool, list[bytes]]]) -> None:
    data = HEAD + b"".join(joined(pcapng.packets(at, frames, inbound=way)) for at, way, frames in batches)
    with PcapNgReader(io.BytesIO(data + pcapng.statistics(5, 1, 0))) as packets:
        got = [(p.original, p.sniffed_on, p.direction, p.wirelen, p.time) for p in packets.read_all()]
    wanted = [(frame, at, way) for at, way, frames in batches for frame in frames]
    assert [(one[0], one[1], one[2] == 1, one[3]) for one in got] == [
        (frame, "l2-tunnel", way, len(frame)) for frame, _, way in wanted
    ]
    assert [round(one[4] * 10**9) for one in got] == [at for _, at, _ in wanted]
