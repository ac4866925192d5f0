"""What the bench does about servers that are slow, broken or hostile: all of it ends in one line, in time."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
from support.hostile import SWITCHING, Behaviour, Served, serving
from support.wait import wait_until

from aero_l2.client.address import Target
from aero_l2.probe import dhcp, packets
from aero_l2.services.dhcp import codec
from bench import wire
from bench.beginning import Beginning
from bench.lab import Failed, Running
from bench.openings import Openings
from bench.peer import SOURCE

LIMIT_S = 1.0
SLACK_S = 1.0
TOKEN = "very-secret-token"
OPTIONS = {
    codec.SUBNET_MASK: bytes((255, 255, 255, 0)),
    codec.ROUTER: bytes((10, 0, 2, 2)),
    codec.DNS_SERVERS: bytes((10, 0, 2, 3)),
    codec.SERVER_ID: bytes((10, 0, 2, 2)),
    codec.LEASE_TIME: (3600).to_bytes(4),
}


def message(payload: bytes, kind: int = 0x82) -> bytes:
    """A server's WebSocket frame."""
    length = bytes([len(payload)]) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2)
    return bytes([kind]) + length + payload


def answer(kind: int, number: int = 0, **more: bytes) -> bytes:
    """A DHCP server's message to a guest, in its frame."""
    options = {codec.MESSAGE_TYPE: bytes((kind,)), **OPTIONS}
    options |= {codec.MESSAGE: more["text"]} if more else {}
    mac = wire.mac_of(number).ljust(16, b"\0")
    told = codec.DhcpMessage(codec.BOOTREPLY, number + 1, mac, options, yiaddr=IPv4Address("10.0.2.15"))
    way = packets.Way(b"\x02\0\0\0\0\x99", IPv4Address("10.0.2.2"), packets.BROADCAST_MAC, packets.BROADCAST)
    frame = packets.datagram(way, dhcp.SERVER_PORT, dhcp.CLIENT_PORT, codec.encode(told))
    return message(wire.HEADER + frame)


def begin(port: int, limit_s: float = LIMIT_S, query: str = "") -> dhcp.Lease:
    begun = Beginning(Target.of(f"ws://127.0.0.1:{port}/l2{query}"), limit_s)
    with begun.connect() as connection:
        begun.shake_hands(connection)
        return begun.lease(connection)


def after_head(then: Callable[[Served], None]) -> Behaviour:
    def behave(served: Served) -> None:
        served.head()
        then(served)

    return behave


def after_101(then: Callable[[Served], None]) -> Behaviour:
    def behave(served: Served) -> None:
        served.head()
        served.send(SWITCHING)
        then(served)

    return behave


EMPTY = message(wire.HEADER)
ENDLESS = {
    "silence": (after_head(Served.silence), "no answer within 1 s"),
    "a byte of the head now and then": (after_head(lambda to: to.forever(b"H", 0.1)), "no answer within 1 s"),
    "a frame now and then": (
        after_101(lambda to: to.forever(EMPTY, 0.2)),
        "no lease within",
    ),
    "a flood of frames": (
        after_101(lambda to: to.forever(EMPTY * 999)),
        "no lease within",
    ),
    "a flood of offers": (after_101(lambda to: to.forever(answer(codec.OFFER))), "no lease within 1 s"),
    "silence instead of a lease": (after_101(Served.silence), "no lease within 1 s"),
    "half a frame": (after_101(lambda to: to.last(b"\x82\x7d...")), "no lease within 1 s"),
}


@pytest.mark.parametrize(("behaviour", "said"), ENDLESS.values(), ids=ENDLESS)
def test_one_deadline_holds_for_whatever_a_server_sends(behaviour: Behaviour, said: str) -> None:
    began = time.monotonic()
    with serving(behaviour) as port, pytest.raises(wire.TunnelRefused, match=said):
        begin(port)
    assert time.monotonic() - began < LIMIT_S + SLACK_S


REFUSALS = {
    "endless head": (after_head(lambda to: to.forever(b"HTTP/1.1 101 " + b"x" * 4096)), wire.LONG_HEAD),
    "head without an end": (after_head(lambda to: to.send(b"SSH-2.0\r\n")), "SSH-2.0"),
    "nothing": (after_head(lambda to: None), "the connection ended before an answer"),
    "NAK": (
        after_101(lambda to: to.last(answer(codec.NAK, text=b"no \x1b[2J"))),
        "the server refuses the lease that it offered (NAK: no ?[2J)",
    ),
    "close": (
        after_101(lambda to: to.last(message(b"\x03\xf3full\x07", 0x88))),
        "the server closed the tunnel before there was a lease: full?",
    ),
    "end": (after_101(lambda to: None), "lease"),
    "huge frame": (after_101(lambda to: to.forever(b"\x82\x7f" + bytes(8))), wire.NO_TUNNEL),
    "escape sequence": (
        after_head(lambda to: to.send(b"HTTP/1.1 500 \x1b]0;pwn\x07\r\n\r\n")),
        "HTTP/1.1 500 ?]0;pwn?",
    ),
}


@pytest.mark.parametrize(("behaviour", "said"), REFUSALS.values(), ids=REFUSALS)
def test_refusal_says_in_a_line_what_happened(behaviour: Behaviour, said: str) -> None:
    with serving(behaviour) as port, pytest.raises(wire.TunnelRefused) as caught:
        begin(port, 10)
    text = str(caught.value)
    assert text.startswith(f"ws://127.0.0.1:{port}/l2: ")
    assert said in text
    assert text.isprintable()


def test_lease_that_no_guest_can_use_is_refused() -> None:
    spoilt = answer(codec.ACK).replace(OPTIONS[codec.SUBNET_MASK], b"\x55\0\xff\0")
    with (
        serving(after_101(lambda to: to.last(spoilt))) as port,
        pytest.raises(wire.TunnelRefused, match=r"the mask 85\.0\.255\.0, which is none"),
    ):
        begin(port, 10)


def test_slow_server_is_understood() -> None:
    """Each recv brings a byte: none of them is taken for the whole."""

    def behave(served: Served) -> None:
        served.head()
        served.slowly(SWITCHING + message(wire.HEADER + bytes(200)) + answer(codec.OFFER), 0.001)
        served.slowly(answer(codec.ACK), 0.001)
        served.silence()

    with serving(behave) as port:
        assert str(begin(port, 20).interface) == "10.0.2.15/24"


def test_what_comes_behind_the_head_is_left() -> None:
    """It is the card's, however it was cut."""
    near, far = socket.socketpair()
    with near, far:
        far.sendall(SWITCHING + b"the card's")
        Beginning(Target.of("ws://127.0.0.1/l2")).shake_hands(near)
        assert near.recv(99) == b"the card's"


def test_token_is_not_shown_where_an_answer_is_cut() -> None:
    """It is taken out of the whole answer first."""
    for length in range(150, 310):
        said = "HTTP/1.1 404 " + "x" * length + TOKEN
        target = Target.of(f"ws://127.0.0.1/l2?token={TOKEN}")
        with pytest.raises(wire.TunnelRefused) as caught:
            wire.check_answer(target, f"{said}\r\n\r\n".encode())
        assert TOKEN[:3] not in str(caught.value)


async def opened(port: int, count: int, patience_s: float, limit_s: float = 60) -> Openings:
    made = Openings([Target.of(f"ws://127.0.0.1:{port}/l2?token={TOKEN}")], 1, patience_s)
    await made.run(count, limit_s)
    await made.close()
    assert all(error.isprintable() and TOKEN not in error for error in made.errors)
    return made


async def test_openings_stop_at_a_server_that_says_nothing() -> None:
    began = time.monotonic()
    with serving(after_head(Served.silence)) as port:
        made = await opened(port, 50, 0.5)
    assert made.errors == [f"ws://127.0.0.1:{port}/l2: no answer within 0.5 s"]
    assert time.monotonic() - began < 0.5 + SLACK_S


async def test_all_openings_have_one_limit() -> None:
    began = time.monotonic()
    with serving(after_101(Served.silence)) as port:
        made = await opened(port, 50, 0.4, 1)
    assert made.errors[0] == f"ws://127.0.0.1:{port}/l2: no offer within 0.4 s"
    assert made.errors[-1] == "not all tunnels were open after 1 s"
    assert time.monotonic() - began < 1 + SLACK_S


OPENINGS = {
    "endless head": (after_head(lambda to: to.forever(b"x" * 4096)), wire.LONG_HEAD),
    "garbage": (after_head(lambda to: to.send(b"\x1b]0;pwn\x07" + TOKEN.encode())), "?]0;pwn?***"),
    "NAK": (after_101(lambda to: to.forever(answer(codec.NAK) + answer(codec.NAK, 1), 0.1)), "(NAK)"),
    "huge frame": (after_101(lambda to: to.forever(b"\x82\x7f" + bytes(8))), wire.NO_TUNNEL),
}


@pytest.mark.parametrize(("behaviour", "said"), OPENINGS.values(), ids=OPENINGS)
async def test_openings_go_on_and_say_what_failed(behaviour: Behaviour, said: str) -> None:
    with serving(behaviour) as port:
        made = await opened(port, 2, 10)
    assert len(made.errors) == 2
    assert all(said in error for error in made.errors)
    assert not made.times


def program(text: str) -> list[str]:
    """A Python program whose name is shown and whose text is not."""
    return [sys.executable, "-c", text, "-m", "its.name"]


READY = "print('ready', flush=True); input(); "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("input()", "its.name took longer than 1 s"),
        ("raise SystemExit(3)", "its.name ended with 3"),
        (f"print({json.dumps(json.dumps({'error': 'what it was'}))})", "its.name: what it was"),
    ],
    ids=["late", "ended", "told"],
)
def test_program_that_fails_is_said_in_a_line(text: str, said: str) -> None:
    running = Running(program(READY + text))
    try:
        running.start()
        with pytest.raises(Failed) as caught:
            running.result(1 if "input" in text else 30)
    finally:
        running.close()
    assert str(caught.value) == said


def test_bulk_flow_that_breaks_is_no_slow_one() -> None:
    address = "127.0.0.78"

    def serve(listener: socket.socket) -> None:
        with listener.accept()[0] as connection:
            connection.sendall(bytes(3 << 20))

    with socket.create_server((address, SOURCE)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        running = Running([sys.executable, "-m", "bench.traffic", "bulk-down", address])
        try:
            with pytest.raises(Failed, match=r"the connection ended early|Connection reset"):
                asked_once_it_has_ended(running)
        finally:
            running.close()


def asked_once_it_has_ended(flow: Running) -> None:
    """It runs on a thread of its own, and that has gone."""
    flow.start()
    flow.expect("running")
    wait_until(lambda: len(os.listdir(f"/proc/{flow.pid}/task")) == 1, "the flow ends", 60)
    flow.start()
    flow.result(30)
