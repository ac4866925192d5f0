"""Frames in QEMU's stream: any chunks, any bytes."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.attach.errors import GarbledStream
from aero_l2.attach.framing import MAX_LENGTH, Unframer, frame_stream

FRAMES = st.lists(st.binary(max_size=80), max_size=20)


def chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def test_a_frame_stands_behind_its_length_big_endian() -> None:
    assert frame_stream([b"abc", b""]) == b"\0\0\0\3abc\0\0\0\0"


@given(FRAMES, st.lists(st.integers(min_value=0), max_size=10))
def test_frames_come_out_of_any_chunks_as_they_went_in(frames: list[bytes], cuts: list[int]) -> None:
    unframer = Unframer()
    out = [frame for chunk in chunks(frame_stream(frames), cuts) for frame in unframer.feed(chunk)]
    assert out == frames


@given(st.binary(max_size=300), st.lists(st.integers(min_value=0), max_size=10))
def test_any_bytes_are_frames_or_refused(data: bytes, cuts: list[int]) -> None:
    unframer = Unframer()
    taken = 0
    try:
        for chunk in chunks(data, cuts):
            taken += sum(4 + len(frame) for frame in unframer.feed(chunk))
    except GarbledStream:
        return
    assert taken <= len(data)


def test_the_longest_frame_passes_and_a_longer_one_is_refused_from_its_length_on() -> None:
    longest = bytes(MAX_LENGTH)
    assert Unframer().feed(frame_stream([longest])) == [longest]
    with pytest.raises(GarbledStream, match=f"{MAX_LENGTH + 1} bytes"):
        Unframer().feed(struct.pack("!I", MAX_LENGTH + 1))


def test_text_is_no_stream() -> None:
    with pytest.raises(GarbledStream, match="QEMU"):
        Unframer().feed(b"GET / HTTP/1.1\r\n")
