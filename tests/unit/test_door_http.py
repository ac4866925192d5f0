"""Request heads: chunking, limits, and what is refused."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.door.http import MAX_HEAD_BYTES, BadRequest, HeadReader, Response, parse_head, text_response

REQUEST = b"GET /l2?a=b?c HTTP/1.1\r\nHost: x\r\nX-Y:  a b\t\r\n\r\n"


@given(st.lists(st.integers(0, len(REQUEST) + 9)))
def test_head_is_found_in_any_chunks(cuts: list[int]) -> None:
    stream = b"\r\n" + REQUEST + b"rest"
    places = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    reader, found, rest = HeadReader(), None, b""
    for start, stop in pairwise(places):
        if found is not None:
            rest += stream[start:stop]
            continue
        result = reader.feed(stream[start:stop])
        if result is not None:
            found, rest = result
    assert found is not None
    assert (found.method, found.path, found.query, found.version) == ("GET", "/l2", "a=b?c", "HTTP/1.1")
    assert found.headers["x-y"] == "a b"
    assert rest == b"rest"


@pytest.mark.parametrize(
    "chunks", [[b"\r", b"\n"] * 3, [b"\r\n"] * 3, [b"\r\n" * (1 << 17)]], ids=["bytes", "lines", "flood"]
)
def test_third_empty_line_before_a_request_is_refused(chunks: list[bytes]) -> None:
    """RFC 9112 §2.2 asks to ignore at least one; a stream of them is nobody's request."""
    assert HeadReader().feed(b"\r\n\r\n" + REQUEST) is not None
    reader = HeadReader()
    for chunk in chunks[:-1]:
        assert reader.feed(chunk) is None
    with pytest.raises(BadRequest) as caught:
        reader.feed(chunks[-1])
    assert caught.value.response.status == 400


@given(st.binary(max_size=300))
def test_any_bytes_are_a_head_or_a_bad_request(data: bytes) -> None:
    try:
        HeadReader().feed(data + b"\r\n\r\n")
    except BadRequest as bad:
        assert 400 <= bad.response.status <= 505  # noqa: PT017


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET /\x00 HTTP/1.1", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/3.0", 505),
        (b"GET / HTTP/1.1\r\nA : b", 400),
        (b"GET / HTTP/1.1\r\n folded", 400),
        (b"GET / HTTP/1.1\r\nA: b\nC: d", 400),
        (b"GET / HTTP/1.1\r\nA: b\x00", 400),
        (b"GET / HTTP/1.1\r\n: b", 400),
        (b"GET / HTTP/1.1" + b"\r\nA: b" * 129, 431),
    ],
)
def test_bad_head_is_refused(head: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_head(head)
    assert caught.value.response.status == status


@pytest.mark.parametrize("complete", [True, False])
def test_head_over_the_limit_is_431(complete: bool) -> None:
    head = b"GET / HTTP/1.1\r\nA: " + b"a" * MAX_HEAD_BYTES + (b"\r\n\r\n" if complete else b"")
    with pytest.raises(BadRequest) as caught:
        HeadReader().feed(head)
    assert caught.value.response.status == 431


def test_head_of_exactly_the_limit_passes() -> None:
    start = b"GET / HTTP/1.1\r\nA: "
    assert HeadReader().feed(start + b"a" * (MAX_HEAD_BYTES - len(start) - 4) + b"\r\n\r\n") is not None


@pytest.mark.parametrize(
    ("target", "path"), [("http://a.b:1/l2?x", "/l2"), ("HTTPS://a", "/"), ("*", "*"), ("/a%2Fb", "/a%2Fb")]
)
def test_target_forms(target: str, path: str) -> None:
    assert parse_head(f"GET {target} HTTP/1.1".encode()).path == path


@pytest.mark.parametrize(
    ("field", "has_body"),
    [
        ("Content-Length: 0", False),
        ("Content-Length: 7", True),
        ("Transfer-Encoding: chunked", True),
        ("A: b", False),
    ],
)
def test_announced_body_is_seen(field: str, has_body: bool) -> None:
    assert parse_head(f"GET / HTTP/1.1\r\n{field}".encode()).has_body is has_body


def test_tokens_are_joined_over_lines() -> None:
    head = parse_head(b"GET / HTTP/1.1\r\nConnection: Keep-Alive, \r\nconnection: UPGRADE")
    assert head.tokens("Connection") == ["keep-alive", "upgrade"]


def test_response_is_exact() -> None:
    head, _, body = text_response(405, "no ü", ("Allow", "GET")).serialize().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 Method Not Allowed\r\nDate: ")
    assert b"\r\nAllow: GET" in head
    assert b"\r\nContent-Length: 5\r\n" in head
    assert body == "no ü".encode()
    assert Response(200, b"x").serialize(head_only=True).endswith(b"\r\n\r\n")


@pytest.mark.parametrize("fields", [b"Host: evil.example\r\nHost: other.example", b"X: y"])
def test_host_of_an_absolute_target_counts(fields: bytes) -> None:
    head = parse_head(b"GET http://Good.example:8090/l2?a=b HTTP/1.1\r\n" + fields)
    assert (head.path, head.query) == ("/l2", "a=b")
    assert head.headers.get_all("Host") == ["Good.example:8090"]
