"""What an upstream's answer costs is known before it is read."""

import struct
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final

import dns.exception
import dns.message
import dns.name
import dns.rdatatype
import pytest
from dns.rdatatype import RdataType
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.services.dns.answers import AnswerRules, relay
from aero_l2.services.dns.cost import MAX_ANSWER_BYTES, MAX_COST, of_answer
from aero_l2.services.dns.message import Query, encode

NAME: Final = b"\x03www\x07example\x04test\x00"
POINTER: Final = b"\xc0\x0c"
RULES: Final = AnswerRules(lambda address: address == IPv4Address("10.0.0.1"), max_ttl=300)


def record(kind: int, data: bytes, owner: bytes = POINTER, rdclass: int = 1) -> bytes:
    return owner + struct.pack("!HHIH", kind, rdclass, 60, len(data)) + data


def answer(*records: bytes, name: bytes = NAME) -> bytes:
    header = struct.pack("!HHHHHH", 1, 0x8180, 1, len(records), 0, 0)
    return header + name + b"\x00\x01\x00\x01" + b"".join(records)


def labels(count: int, first: int = 0) -> bytes:
    return bytes([3]) + b"%03d" % first + b"\x01a" * (count - 1) + b"\x00"


def address(index: int) -> bytes:
    return struct.pack("!I", 0x5DB8_0000 + index)


def parameters(count: int) -> bytes:
    return b"".join(struct.pack("!HH", key, 0) for key in range(7, 7 + count))


LONG: Final = labels(124)
# Names inside one record, for others to point to; the pointers differ, so no name is met twice.
HIDDEN: Final = record(10, b"".join(labels(120, index) for index in range(30)))
HIDDEN_AT: Final = len(answer()) + 12

HOSTILE: Final = {
    "addresses": [record(1, address(index)) for index in range(500)],
    "empty-strings": [record(16, bytes(9000))],
    "long-soa": [record(6, labels(122, index) + labels(122, 500 + index) + bytes(20)) for index in range(20)],
    "long-ns": [record(2, labels(122, index)) for index in range(40)],
    "long-owners": [record(1, address(index), labels(122, index)) for index in range(40)],
    "pointers-into-data": [
        HIDDEN,
        *(record(2, struct.pack("!H", 0xC000 | HIDDEN_AT + index * 242)) for index in range(30)),
    ],
    "suffixes": [record(16, b"\xf5" + LONG)]
    + [record(2, struct.pack("!H", 0xC000 | HIDDEN_AT + 1 + 4 + 2 * index)) for index in range(100)],
    "servers": [record(55, b"\x01\x01\x00\x01aa" + b"\x01a\x00" * 1000)],
    "servers-of-another-class": [record(55, b"\x01\x01\x00\x01aa" + b"\x01a\x00" * 1000, rdclass=3)],
    "parameters": [record(64, b"\x00\x01\x00" + parameters(2000))],
    "prefixes": [record(42, b"\x00\x01\x00\x00" * 2000)],
    "options": [record(41, b"\xfe\x01\x00\x00" * 2000, owner=b"\x00")],
    "sixty-four-kilobytes": [record(1, address(index)) for index in range(4000)],
}

USUAL: Final = {
    "no-record": [],
    "addresses": [record(1, address(index)) for index in range(50)],
    "chain": [record(5, b"\x03cdn\xc0\x10"), record(1, address(1), b"\x03cdn\xc0\x10")],
    "policies": [record(16, b"\xc8" + b"%03d" % index + b"x" * 197) for index in range(20)],
    "strings-of-full-length": [record(16, (b"\xff" + b"x" * 255) * 60)],
    "mail": [record(15, b"\x00\x0a\x04%04d\xc0\x10" % index) for index in range(30)],
    "service": [record(65, b"\x00\x01\x00\x00\x01\x00\x06\x02h2\x02h3\x00\x05\x00\x80" + bytes(128))],
    "phone": [record(35, bytes(4) + b"\x01s\x07E2U+sip\x00\x00") for _ in range(10)],
    "signed": [
        record(48, b"\x01\x00\x03\x08" + bytes(260)),
        record(46, bytes(18) + b"\x04test\x00" + bytes(256)),
        record(50, b"\x01\x00\x00\x01\x00\x14" + bytes(20) + b"\x00\x06@\x01\x00\x00\x00\x03"),
        record(47, NAME + b"\x00\x06@\x01\x00\x00\x00\x03"),
        record(41, b"", owner=b"\x00"),
    ],
    "unheard-of": [record(65_280, bytes(200))],
    "reverse": [record(12, b"\x04host\x07example\x04test\x00")] * 4,
}


@pytest.mark.parametrize("records", HOSTILE.values(), ids=HOSTILE)
def test_hostile_answer_is_over_the_limit(records: list[bytes]) -> None:
    assert of_answer(answer(*records)) > MAX_COST


@pytest.mark.parametrize("records", USUAL.values(), ids=USUAL)
def test_usual_answer_is_under_the_limit(records: list[bytes]) -> None:
    assert of_answer(answer(*records)) <= MAX_COST


@pytest.mark.parametrize("records", HOSTILE.values(), ids=HOSTILE)
def test_finding_out_is_cheap(records: list[bytes]) -> None:
    wire = answer(*records)
    assert quickest(lambda: of_answer(wire)) < 0.004


def test_whole_of_the_longest_answer_is_judged() -> None:
    wire = answer(record(16, (b"\xff" + b"x" * 255) * 60))
    assert of_answer(wire.ljust(MAX_ANSWER_BYTES, b"\x00")) <= MAX_COST
    assert of_answer(wire.ljust(MAX_ANSWER_BYTES + 1, b"\x00")) > MAX_COST


def test_known_name_costs_less_than_a_new_one() -> None:
    known = answer(*(record(2, b"\xc0\x0c") for _ in range(10)), name=labels(60))
    fresh = answer(*(record(2, labels(60, index)) for index in range(10)), name=labels(60))
    assert of_answer(known) < of_answer(fresh)


def quickest(call: Callable[[], object]) -> float:
    """Seconds of the quickest of some runs: what it costs, not what the machine had to do besides."""

    def once() -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return min(once() for _ in range(5))


def read_and_write(wire: bytes) -> None:
    try:
        message = dns.message.from_wire(wire)
        query = Query(1, dns.name.from_text("www.example.test."), dns.rdatatype.A)
        encode(relay(query, message, RULES), query, tcp=True)
    except dns.exception.DNSException:
        return


def most(make: Callable[[int], list[bytes]]) -> bytes:
    """The largest answer of a kind that is still under the limit."""
    return next(wire for count in range(300, 0, -1) if of_answer(wire := answer(*make(count))) <= MAX_COST)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda n: [record(1, address(i)) for i in range(n)], id="addresses"),
        pytest.param(lambda n: [record(16, bytes(4 * n))], id="strings"),
        pytest.param(lambda n: [record(2, labels(20, i)) for i in range(n)], id="names"),
        pytest.param(lambda n: [record(2, labels(n % 120 + 1, i)) for i in range(5)], id="long-names"),
        pytest.param(lambda n: [record(64, b"\x00\x01\x00" + parameters(2 * n))], id="parameters"),
        pytest.param(lambda n: [record(42, b"\x00\x01\x00\x00" * n)], id="unlisted"),
    ],
)
def test_answer_under_the_limit_holds_nobody_up(make: Callable[[int], list[bytes]]) -> None:
    wire = most(make)
    assert quickest(lambda: read_and_write(wire)) < 0.025


@given(st.binary(max_size=600))
def test_any_bytes_have_a_cost(body: bytes) -> None:
    assert of_answer(answer(record(RdataType.A, address(1)))[:-1] + body) >= 0
    assert of_answer(body) >= 0


@given(st.data())
def test_a_damaged_answer_has_a_cost(data: st.DataObject) -> None:
    wire = bytearray(answer(*USUAL["chain"], *USUAL["signed"], *USUAL["phone"], *USUAL["service"]))
    for _ in range(data.draw(st.integers(1, 6))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    assert of_answer(bytes(wire)) >= 0
