"""Answers under lists of names: hints of services, addresses to open, shared questions. No socket."""

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address

import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest
from dns.message import Message
from support.wait import until

from aero_l2.services.dns.answers import AnswerRules, relay
from aero_l2.services.dns.flights import Flights
from aero_l2.services.dns.message import Query, encode
from aero_l2.services.dns.openings import GRACE_S, MAX_OPEN, OpenedAddresses, openings

WEB, CDN, PRIVATE = "93.184.216.34", "151.101.1.69", "10.1.2.3"
NAME = dns.name.from_text("www.example.com")


def answer(*rrsets: str) -> Message:
    """A message with record sets written as `name ttl type data`, several data with `|` between."""
    message = dns.message.make_response(dns.message.make_query(NAME, "ANY"))
    for text in rrsets:
        name, ttl, kind, data = text.split(" ", 3)
        message.answer.append(dns.rrset.from_text_list(name, int(ttl), "IN", kind, data.split("|")))
    return message


def relayed(kind: str, data: str) -> list[str]:
    query = Query(1, NAME, dns.rdatatype.from_text(kind))
    rules = AnswerRules(lambda address: address == IPv4Address(PRIVATE), 300)
    reply = relay(query, answer(f"www.example.com. 60 {kind} {data}"), rules)
    again = dns.message.from_wire(encode(reply, query, tcp=True))
    return [rdata.to_text() for rrset in again.answer for rdata in rrset]


@pytest.mark.parametrize("kind", ["HTTPS", "SVCB"])
@pytest.mark.parametrize(
    ("data", "kept"),
    [
        ("0 svc.example.net.", ["0 svc.example.net."]),
        (f"1 . alpn=h2,h3 ipv4hint={WEB}", [f'1 . alpn="h2,h3" ipv4hint="{WEB}"']),
        (f"1 . alpn=h2 ipv4hint={WEB},{PRIVATE} port=8443", [f'1 . alpn="h2" port="8443" ipv4hint="{WEB}"']),
        (f"1 . alpn=h2 ipv4hint={PRIVATE} ech=AAT+DQAA", ['1 . alpn="h2" ech="AAT+DQAA"']),
        ("1 . alpn=h2 ipv6hint=2001:db8::1 key65333=ex1", ['1 . alpn="h2" key65333="ex1"']),
        (f"1 . mandatory=ipv4hint ipv4hint={PRIVATE}", []),
        (f"1 . mandatory=ipv6hint ipv4hint={WEB} ipv6hint=2001:db8::1", []),
        (
            f"1 . mandatory=ipv4hint ipv4hint={WEB},{PRIVATE}",
            [f'1 . mandatory="ipv4hint" ipv4hint="{WEB}"'],
        ),
        (
            f"1 . mandatory=alpn alpn=h2 ipv4hint={PRIVATE}",
            ['1 . mandatory="alpn" alpn="h2"'],
        ),
        (f"1 . mandatory=ipv4hint ipv4hint={PRIVATE}|2 b.test. alpn=h2", ['2 b.test. alpn="h2"']),
    ],
)
def test_hints_that_policy_denies_are_left_out_and_all_else_stays(
    kind: str, data: str, kept: list[str]
) -> None:
    assert relayed(kind, data) == kept


def test_answer_whose_hints_were_changed_is_not_called_authentic() -> None:
    query = Query(1, NAME, dns.rdatatype.HTTPS, edns=True, dnssec_ok=True)
    for data, authentic in ((f"1 . ipv4hint={WEB}", True), (f"1 . ipv4hint={WEB},{PRIVATE}", False)):
        upstream = answer(f"www.example.com. 60 HTTPS {data}")
        upstream.flags |= dns.flags.AD
        reply = relay(query, upstream, AnswerRules(lambda address: str(address) == PRIVATE, 300))
        assert bool(reply.flags & dns.flags.AD) is authentic


def test_ttl_of_a_service_is_bounded_like_that_of_an_address() -> None:
    query = Query(1, NAME, dns.rdatatype.HTTPS)
    upstream = answer(f"www.example.com. 86400 HTTPS 1 . ipv4hint={WEB}")
    assert relay(query, upstream, AnswerRules(lambda _: False, 300)).answer[0].ttl == 300


def opened(*rrsets: str) -> dict[str, int]:
    return {str(address): seconds for address, seconds in openings(answer(*rrsets), NAME).items()}


def test_every_address_of_the_name_is_opened_for_its_ttl_and_five_seconds() -> None:
    assert opened(f"WWW.example.com. 60 A {WEB}|{CDN}") == {WEB: 65, CDN: 65}
    assert opened(f"www.example.com. 9 HTTPS 1 . ipv4hint={WEB}") == {WEB: 9 + GRACE_S}
    both = opened(f"www.example.com. 60 A {WEB}", f"www.example.com. 90 HTTPS 1 . ipv4hint={WEB},{CDN}")
    assert both == {WEB: 95, CDN: 95}


def test_aliases_are_followed_and_records_of_other_names_are_not() -> None:
    chain = [
        "www.example.com. 60 CNAME a.cdn.test.",
        "a.cdn.test. 60 CNAME B.cdn.test.",
        f"b.CDN.test. 30 A {CDN}",
    ]
    assert opened(*chain, f"c.cdn.test. 60 A {WEB}") == {CDN: 35}
    assert opened(*reversed(chain)) == {CDN: 35}


def test_ring_of_aliases_ends() -> None:
    assert opened("www.example.com. 60 CNAME a.test.", "a.test. 60 CNAME www.example.com.") == {}


class Helper:
    """Stands for netd: what was asked of it, and whether it does it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.works = True
        self.asked: list[dict[str, int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def open(self, wanted: Sequence[tuple[IPv4Address, int]]) -> bool:
        self.asked.append({str(address): seconds for address, seconds in wanted})
        await self.gate.wait()
        return self.works


@pytest.fixture
def helper() -> Helper:
    return Helper()


@pytest.fixture
def ledger(helper: Helper) -> OpenedAddresses:
    return OpenedAddresses(helper.open, lambda: helper.now)


A, B = IPv4Address(WEB), IPv4Address(CDN)


async def test_promise_is_asked_for_once_and_kept_to_its_end(helper: Helper, ledger: OpenedAddresses) -> None:
    assert not ledger.holds({A: 65})
    assert await ledger.open({A: 65})
    assert ledger.holds({A: 65})
    assert not ledger.holds({A: 65, B: 6})
    helper.now += 60
    assert ledger.holds({A: 5})
    assert not ledger.holds({A: 7})
    assert helper.asked == [{WEB: 66}]


async def test_shorter_promise_never_cuts_a_longer_one_short(helper: Helper, ledger: OpenedAddresses) -> None:
    assert await ledger.open({A: 305})
    helper.now += 10
    assert await ledger.open({A: 6, B: 6})
    assert helper.asked == [{WEB: 306}, {WEB: 296, CDN: 7}]


async def test_shorter_promise_waits_for_a_longer_one_under_way_and_needs_nothing_more(
    helper: Helper, ledger: OpenedAddresses
) -> None:
    helper.gate.clear()
    both = [asyncio.ensure_future(ledger.open({A: seconds})) for seconds in (305, 65)]
    await asyncio.sleep(0)
    helper.gate.set()
    assert await asyncio.gather(*both) == [True, True]
    assert helper.asked == [{WEB: 306}]


async def test_one_request_of_a_tunnel_is_under_way_at_a_time(
    helper: Helper, ledger: OpenedAddresses
) -> None:
    helper.gate.clear()
    many = [asyncio.ensure_future(ledger.open({IPv4Address(0x01000000 + n): 60})) for n in range(128)]
    many[1].cancel()
    await until(lambda: helper.asked, "the first is asked for")
    assert len(helper.asked) == 1
    helper.gate.set()
    assert {await one for one in many if one is not many[1]} == {True}
    assert len(helper.asked) == 127


async def test_what_failed_is_no_promise(helper: Helper, ledger: OpenedAddresses) -> None:
    helper.works = False
    assert not await ledger.open({A: 65})
    assert not ledger.holds({A: 1})
    helper.works = True
    assert await ledger.open({A: 6})
    assert ledger.holds({A: 6})


async def test_addresses_of_a_tunnel_are_bounded_and_make_room_when_over(
    helper: Helper, ledger: OpenedAddresses
) -> None:
    for start in range(0, MAX_OPEN, 128):
        assert await ledger.open({IPv4Address(0x01000000 + start + n): 60 for n in range(128)})
    assert len(ledger) == MAX_OPEN
    assert not await ledger.open({A: 60})
    assert await ledger.open({IPv4Address(0x01000000): 90})
    helper.now += 62
    assert await ledger.open({A: 60})
    assert len(ledger) == 2


async def test_answer_with_hundreds_of_addresses_opens_none(helper: Helper, ledger: OpenedAddresses) -> None:
    assert not await ledger.open({IPv4Address(0x01000000 + n): 60 for n in range(300)})
    assert helper.asked == []


async def test_same_question_is_asked_once_while_it_is_under_way() -> None:
    flights, gate, asked = Flights(), asyncio.Event(), []

    async def ask() -> Message:
        asked.append(1)
        await gate.wait()
        return answer()

    waiting = [asyncio.ensure_future(flights.share(key, ask)) for key in ("a", "a", "b", "a")]
    await asyncio.sleep(0)
    assert (len(asked), len(flights)) == (2, 2)
    gate.set()
    found = await asyncio.gather(*waiting)
    assert found[0] is found[1] is found[3] is not found[2]
    assert len(flights) == 0
    await flights.share("a", ask)
    assert len(asked) == 3


async def test_who_waits_for_a_cancelled_question_gets_nothing_and_does_not_hang() -> None:
    flights = Flights()

    async def ask() -> Message:
        await asyncio.sleep(60)
        return answer()

    first, second = (asyncio.ensure_future(flights.share("a", ask)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.wait_for(second, 5) is None
    assert len(flights) == 0


async def test_failure_of_the_one_that_asks_is_its_own() -> None:
    flights = Flights()

    async def ask() -> Message:
        await asyncio.sleep(0)
        raise OSError("no")

    first, second = (asyncio.ensure_future(flights.share("a", ask)) for _ in range(2))
    with pytest.raises(OSError, match="no"):
        await first
    assert await second is None
