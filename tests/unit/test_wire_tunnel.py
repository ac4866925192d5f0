"""The codec against the interoperability vectors, and properties over random input."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.errors import MalformedMessage
from aero_l2.wire.tunnel import (
    ErrorCode,
    ErrorMessage,
    Limits,
    MessageType,
    decode,
    decode_error,
    encode,
    encode_error,
    sort_batch,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "l2-tunnel-v1.json").read_text("utf-8")
)
GOOD = [vector for vector in VECTORS["vectors"] if not vector.get("expectError")]
BAD = [vector for vector in VECTORS["vectors"] if vector.get("expectError")]
LIMITS = Limits()


def named(vector: dict[str, Any]) -> str:
    return str(vector["name"])


def test_vectors_are_all_there() -> None:
    assert len(GOOD) == 5
    assert len(BAD) == 5


@pytest.mark.parametrize("vector", GOOD, ids=named)
def test_vector_is_encoded_and_decoded(vector: dict[str, Any]) -> None:
    wire = base64.b64decode(vector["wire_b64"])
    payload = base64.b64decode(vector["payload_b64"])
    assert encode(vector["type"], payload) == wire
    assert decode(wire, LIMITS) == (vector["type"], vector["flags"], payload)
    if "code" in vector:
        assert decode_error(payload) == ErrorMessage(vector["code"], vector["message"])
        assert encode_error(ErrorCode(vector["code"]), vector["message"], 256) == wire


@pytest.mark.parametrize("vector", BAD, ids=named)
def test_malformed_vector_is_refused(vector: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage, match=vector["errorContains"]):
        decode(base64.b64decode(vector["wire_b64"]), LIMITS)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (b"", "message too short: 0 < 4"),
        (b"\xa2\x03\x00", "message too short: 3 < 4"),
        (b"\x00\x03\x00\x00", "invalid magic: 0x00"),
        (b"\xaf\x03\x00\x00", "invalid magic: 0xaf"),
        (b"\xa2\x04\x00\x00", "unsupported version: 0x04"),
        (encode(0, bytes(2049)), "payload too large: 2049 > 2048"),
        (encode(1, bytes(257)), "payload too large: 257 > 256"),
        (encode(0x55, bytes(257)), "payload too large: 257 > 256"),
    ],
)
def test_malformed_message_is_named(message: bytes, text: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode(message, LIMITS)
    assert str(caught.value) == text
    assert str(sort_batch([message], LIMITS).fault) == text


def test_largest_payloads_pass() -> None:
    assert len(decode(encode(0, bytes(2048)), LIMITS).payload) == 2048
    assert len(decode(encode(1, bytes(256)), LIMITS).payload) == 256


def test_unknown_flag_bits_are_ignored() -> None:
    assert sort_batch([b"\xa2\x03\x00\xffabc", b"\xa2\x03\x01\x80p"], LIMITS).frames == [b"abc"]
    assert sort_batch([b"\xa2\x03\x01\x80p"], LIMITS).pings == [b"p"]


def test_pong_error_and_unknown_types_ask_for_nothing() -> None:
    batch = [encode(kind, b"x") for kind in (MessageType.PONG, MessageType.ERROR, 0x33)]
    inbound = sort_batch(batch, LIMITS)
    assert (inbound.frames, inbound.pings, inbound.fault) == ([], [], None)


def test_nothing_behind_a_malformed_message_counts() -> None:
    inbound = sort_batch([encode(0, b"first"), b"junk", encode(0, b"behind")], LIMITS)
    assert inbound.frames == [b"first"]
    assert inbound.fault is not None


def test_error_text_is_cut_between_characters() -> None:
    message = decode(encode_error(ErrorCode.PROTOCOL_ERROR, "é" * 200, 256), LIMITS)
    assert len(message.payload) <= 256
    assert decode_error(message.payload) == ErrorMessage(1, "é" * 126)
    assert decode_error(decode(encode_error(ErrorCode.PROTOCOL_ERROR, "aé", 6), LIMITS).payload).text == "a"


def test_error_without_room_for_its_fields_is_empty() -> None:
    assert encode_error(ErrorCode.BACKPRESSURE, "text", 3) == b"\xa2\x03\x7f\x00"
    assert encode_error(ErrorCode.BACKPRESSURE, "text", 4) == b"\xa2\x03\x7f\x00\x00\x09\x00\x00"


def test_error_with_a_length_that_does_not_match_is_text() -> None:
    assert decode_error(b"\x00\x01\x00\x09bad") == ErrorMessage(None, "\x00\x01\x00\tbad")
    assert decode_error(b"abc") == ErrorMessage(None, "abc")


@given(st.integers(0, 255), st.binary(max_size=256))
def test_encoding_round_trips(kind: int, payload: bytes) -> None:
    assert decode(encode(kind, payload), LIMITS) == (kind, 0, payload)


@given(st.sampled_from(ErrorCode), st.text(), st.integers(4, 300))
def test_error_round_trips_to_a_prefix(code: ErrorCode, text: str, limit: int) -> None:
    encoded = encode_error(code, text, limit)
    assert len(encoded) - 4 <= limit
    decoded = decode_error(encoded[4:])
    assert decoded.code == code
    assert text.startswith(decoded.text) or "\ud800" <= min(text, default="") <= "\udfff"


@given(st.binary(max_size=600))
def test_decoders_never_fail_otherwise(message: bytes) -> None:
    decode_error(message)
    inbound = sort_batch([message], LIMITS)
    if inbound.fault is not None:
        with pytest.raises(MalformedMessage, match=re.escape(str(inbound.fault))):
            decode(message, LIMITS)
    else:
        decoded = decode(message, LIMITS)
        assert message[4:] == decoded.payload
        assert (inbound.frames == [decoded.payload]) == (decoded.type == 0)
