"""Outgoing frames, read back by an independent reader: websockets' client protocol."""

from __future__ import annotations

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from aero_l2.wire.framing import framing
from aero_l2.wire.send import frame_prefixes, join_frames, raw_prefixes, websocket_message
from aero_l2.wire.tunnel import FRAME_HEADER, ErrorCode, Inbound, Limits


def read_as_client(data: bytes) -> list[bytes]:
    client = ClientProtocol(parse_uri("ws://127.0.0.1/l2"), state=OPEN)
    client.receive_data(data)
    frames = [event for event in client.events_received() if isinstance(event, Frame)]
    assert all(frame.opcode is Opcode.BINARY and frame.fin for frame in frames)
    assert client.parser_exc is None
    return [bytes(frame.data) for frame in frames]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 2052, 65535, 65536, 70000])
def test_message_of_every_header_form_is_read_back(size: int) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    assert read_as_client(websocket_message(payload[:size])) == [payload[:size]]


def test_batch_of_frames_is_read_back() -> None:
    frames = [bytes([n % 256]) * n for n in (14, 60, 120, 121, 122, 123, 1514, 2048)]
    joined = join_frames(frames, frame_prefixes(2048))
    assert read_as_client(joined) == [FRAME_HEADER + frame for frame in frames]


def test_batch_of_raw_frames_is_read_back() -> None:
    frames = [bytes([n % 256]) * n for n in (14, 60, 125, 126, 127, 1514, 2048)]
    assert read_as_client(join_frames(frames, raw_prefixes(2048))) == frames


def test_prefixes_are_shared() -> None:
    assert frame_prefixes(2048) is frame_prefixes(2048)
    assert raw_prefixes(2048) is raw_prefixes(2048)


def test_framings_differ_in_all_but_the_frames() -> None:
    limits = Limits(100, 300)
    tunnel, raw = framing("aero-l2-tunnel-v1", limits), framing("raw", limits)
    assert framing("raw", Limits(100, 300)) is raw
    assert (tunnel.max_message, raw.max_message) == (304, 100)
    assert len(tunnel.prefixes) == len(raw.prefixes) == 101
    messages = [b"\xa2\x03\x01\x00ping", FRAME_HEADER + b"frame", b"rubbish"]
    assert [tunnel.sort(messages).frames, tunnel.sort(messages).pings] == [[b"frame"], [b"ping"]]
    assert str(tunnel.sort(messages).fault) == "invalid magic: 0x72"
    assert raw.sort(messages) == Inbound(messages, [], [], None)
    (error,) = read_as_client(tunnel.error(ErrorCode.BACKPRESSURE, "why"))
    assert error.endswith(b"\x00\x09\x00\x03why")
    assert raw.error(ErrorCode.BACKPRESSURE, "why") == b""
