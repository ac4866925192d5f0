"""Where a client goes, with which credential, and that no text shows the credential."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.client import Credential, Delivery, InvalidTarget, Options, Target
from aero_l2.client.address import NO_ORIGIN, public

CANARY = "canary-5e3c.r3t_+%41"
PROTOCOL = "aero-l2-tunnel-v1"


@pytest.mark.parametrize(
    ("given_url", "url", "origin"),
    [
        ("ws://lab.example", "ws://lab.example/l2", "http://lab.example"),
        ("ws://lab.example/", "ws://lab.example/l2", "http://lab.example"),
        ("wss://lab.example/l2", "wss://lab.example/l2", "https://lab.example"),
        (" wss://lab.example/l2\n", "wss://lab.example/l2", "https://lab.example"),
        ("http://LAB.example:8090/eth", "ws://lab.example:8090/eth", "http://lab.example:8090"),
        ("https://lab.example:443/l2/", "wss://lab.example:443/l2/", "https://lab.example"),
        ("ws://[::1]:8090/l2", "ws://[::1]:8090/l2", "http://[::1]:8090"),
        ("ws://[2001:DB8::1]", "ws://[2001:db8::1]/l2", "http://[2001:db8::1]"),
        ("ws://127.0.0.1:1/l2?a=b&c=%20", "ws://127.0.0.1:1/l2?a=b&c=%20", "http://127.0.0.1:1"),
        ("ws://bücher.example/ä?ö=ü", "ws://xn--bcher-kva.example/%C3%A4?%C3%B6=%C3%BC", None),
        ("ws://h:/l2#", "ws://h/l2", "http://h"),
    ],
)
def test_address_is_read(given_url: str, url: str, origin: str | None) -> None:
    target = Target.of(given_url)
    assert target.url == url
    assert target.origin == (origin or "http://xn--bcher-kva.example")
    assert target.display == url.partition("?")[0]
    assert target.is_tls is url.startswith("wss:")
    assert (target.subprotocols, target.headers) == ((PROTOCOL,), ())


@pytest.mark.parametrize(
    "url",
    [
        *("", "lab.example", "lab.example/l2", "ftp://lab.example", "ws://", "ws:///l2", "ws:lab.example"),
        *("ws://h:x/", "ws://h:99999/", "ws://h:0/", "ws://[::1/", "ws://a b/", "ws://h/a b", "ws://h/\ta"),
        *("ws://h/\r\nX: y", "ws://h\x00/", "ws://h/\udcff", "ws://h/\u202el2", "ws://ä\ud800/"),
    ],
)
def test_what_is_no_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(InvalidTarget, match=r"like wss://lab\.example/l2") as caught:
        Target.of(url)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "url",
    [
        f"ws://user:{CANARY}@lab.example/l2",
        f"ws://{CANARY}@lab.example/l2",
        f"ws://:{CANARY}/x@lab.example/l2",
        f"ws://u:a@{CANARY}@lab.example/l2",
        f"ws://lab.example/l2#{CANARY}",
        f"lab.example/l2?token={CANARY}",
        f"ws://lab.example:x/l2?token={CANARY}",
        f"ws://lab.example:x/v86/{CANARY}",
        f"user:{CANARY}@lab.example",
        CANARY,
    ],
)
def test_refused_address_does_not_show_what_may_be_secret_in_it(url: str) -> None:
    with pytest.raises(InvalidTarget) as caught:
        Target.of(url)
    assert CANARY not in str(caught.value) + repr(caught.value)


def test_origin_is_the_address_s_own_or_the_given_or_none() -> None:
    assert Target.of("ws://h", origin="https://App.example:443/").origin == "https://app.example"
    assert Target.of("ws://h", origin="null").origin == "null"
    assert Target.of("ws://h", origin=NO_ORIGIN).origin is None
    with pytest.raises(InvalidTarget, match=r"not an Origin: app\.example"):
        Target.of("ws://h", origin="app.example\x1b[2J")


def test_each_delivery_puts_the_credential_where_the_server_reads_it() -> None:
    def sent(delivery: Delivery, url: str = "ws://h/l2") -> Target:
        return Target.of(url, Credential("a.b~c", delivery))

    assert sent(Delivery.SUBPROTOCOL).subprotocols == (PROTOCOL, "aero-l2-token.a.b~c")
    assert sent(Delivery.QUERY).url == "ws://h/l2?token=a.b~c"
    assert sent(Delivery.QUERY, "ws://h/l2?x=1").url == "ws://h/l2?x=1&token=a.b~c"
    assert sent(Delivery.BEARER).headers == (("Authorization", "Bearer a.b~c"),)
    assert sent(Delivery.COOKIE).headers == (("Cookie", "aero_session=a.b~c"),)
    assert Target.of("ws://h", Credential("ä +&=/%", Delivery.QUERY)).url == (
        "ws://h/l2?token=%C3%A4%20%2B%26%3D%2F%25"
    )


@pytest.mark.parametrize(
    ("value", "delivery", "says"),
    [
        ("", Delivery.QUERY, "empty"),
        ("", Delivery.SUBPROTOCOL, "empty"),
        (CANARY + "/", Delivery.SUBPROTOCOL, "deliver it in the query instead"),
        (CANARY + "\r\nX: y", Delivery.BEARER, "sent as a header"),
        (CANARY + " ", Delivery.BEARER, "sent as a header"),
        (CANARY + ";", Delivery.COOKIE, "sent as a cookie"),
        (CANARY + "ä", Delivery.COOKIE, "sent as a cookie"),
        (CANARY + "\udcff", Delivery.QUERY, "sent in any way"),
    ],
)
def test_credential_that_cannot_travel_is_refused_without_being_shown(
    value: str, delivery: Delivery, says: str
) -> None:
    with pytest.raises(InvalidTarget, match=says) as caught:
        Target.of("ws://h", Credential(value, delivery))
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("delivery", Delivery)
def test_nothing_that_is_shown_holds_the_credential(delivery: Delivery) -> None:
    credential = Credential(CANARY, delivery)
    target = Target.of("wss://lab.example/l2", credential)
    for shown in (credential, target, Options(credential=credential)):
        assert CANARY not in f"{shown!r} {shown!s} {shown}"
    assert "canary" not in target.display


@given(st.text(min_size=1).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text)))
def test_what_a_server_repeats_of_a_credential_is_taken_out(value: str) -> None:
    target = Target.of("ws://h", Credential(value + CANARY, Delivery.QUERY))
    said = target.redact(f"not found: {target.url} and {value}{CANARY}")
    assert "canary" not in said


def test_credentials_of_the_given_query_are_taken_out_too() -> None:
    target = Target.of(f"ws://h/l2?apiKey=s3c&room=a-long-secret&v=1&token={CANARY}")
    assert target.redact("s3c a-long-secret version 1 canary-5e3c.r3t_+A") == "*** *** version 1 ***"
    assert target.redact(CANARY) == "***"
    assert "s3c" not in target.display + repr(target)


def test_token_in_the_path_is_not_shown() -> None:
    assert public("wss://lab.example/v86/secret") == "wss://lab.example/v86/***"
    assert Target.of("wss://lab.example/v86/secret").display == "wss://lab.example/v86/***"


@given(st.text())
def test_any_address_is_read_or_refused(text: str) -> None:
    for url in (text, f"ws://{text}", f"ws://h/{text}"):
        with contextlib.suppress(InvalidTarget):
            target = Target.of(url)
            assert target.url.isascii()
            assert target.url.isprintable()


@pytest.mark.parametrize(
    "wrong",
    [
        {"open_timeout_s": 0},
        {"open_timeout_s": float("nan")},
        {"keepalive_s": -1},
        {"queued_frames": 0},
        {"max_frame_bytes": 0},
        {"max_frame_bytes": 65_536},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="is"):
        Options(**wrong)  # type: ignore[arg-type]
