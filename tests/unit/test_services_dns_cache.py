"""The cache: what is kept, for how long, how much, and what a guest gets of it."""

from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest
from dns.message import Message
from dns.nameserver import Do53Nameserver
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.services.dns.answers import AnswerRules, grow_older, relay
from aero_l2.services.dns.cache import AnswerCache, CacheRoom, lifetime
from aero_l2.services.dns.message import Query
from aero_l2.services.dns.resolver import Resolver

SERVERS = (Do53Nameserver("127.0.0.53"),)
OTHERS = (Do53Nameserver("127.0.0.54"),)
SOA = "test. {} IN SOA ns.test. admin.test. 1 2 3 4 {}"


def query(name: str = "web.test.", rdtype: str = "A", **fields: object) -> Query:
    kind = dns.rdatatype.from_text(rdtype)
    return Query(9, dns.name.from_text(name), kind, **fields)  # type: ignore[arg-type]


def said(
    *records: str, authority: str = "", rcode: str = "NOERROR", flags: str = "QR RD RA", extra: str = ""
) -> Message:
    head = ["id 5", "opcode QUERY", f"rcode {rcode}", f"flags {flags}", ";QUESTION", "web.test. IN A"]
    lines = [*head, ";ANSWER", *records, ";AUTHORITY", authority, ";ADDITIONAL", extra]
    made = dns.message.from_text("\n".join(filter(None, lines)) + "\n")
    return dns.message.from_wire(made.to_wire(max_size=65535))


def address(ttl: int = 60, last: int = 34) -> Message:
    return said(f"web.test. {ttl} IN A 93.184.216.{last}")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Kept:
    """A cache, its room, and a clock that the test moves."""

    def __init__(self, entries: int = 100, max_ttl: int = 300, room: CacheRoom | None = None) -> None:
        self.clock = Clock()
        self.room = room or CacheRoom(entries)
        self.cache = AnswerCache(self.room, max_ttl, self.clock)
        self.cache.get(query(), SERVERS)

    def put(self, asked: Query, answer: Message) -> None:
        self.cache.get(asked, SERVERS)
        self.cache.put(asked, answer, SERVERS)

    def age(self, asked: Query | None = None, later_s: float = 0.0) -> int | None:
        self.clock.now += later_s
        found = self.cache.get(asked or query(), SERVERS)
        return None if found is None else found.age


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (address(60), 60),
        (address(0), 0),
        (said("web.test. 60 IN CNAME a.test.", "a.test. 20 IN A 93.184.216.34"), 20),
        (said("web.test. 60 IN A 93.184.216.34", authority="test. 10 IN NS ns.test."), 10),
        (said("web.test. 60 IN A 93.184.216.34", extra="ns.test. 5 IN A 93.184.216.3"), 5),
        (said(authority=SOA.format(60, 30)), 30),
        (said(authority=SOA.format(30, 60)), 30),
        (said(authority=SOA.format(30, 60), rcode="NXDOMAIN"), 30),
        (said(authority=SOA.format(60, 0), rcode="NXDOMAIN"), 0),
        (said("web.test. 9 IN CNAME a.test.", authority=SOA.format(60, 30), rcode="NXDOMAIN"), 9),
        (said("web.test. 90 IN CNAME a.test.", authority=SOA.format(60, 30)), 30),
        (said("web.test. 90 IN CNAME a.test."), 0),
        (said(), 0),
        (said(rcode="NXDOMAIN"), 0),
        (said(authority=SOA.format(60, 60), rcode="SERVFAIL"), 0),
        (said(authority=SOA.format(60, 60), rcode="REFUSED"), 0),
        (said("web.test. 60 IN A 93.184.216.34", flags="QR RD RA TC"), 0),
    ],
)
def test_answers_are_kept_as_long_as_they_hold(answer: Message, seconds: int) -> None:
    assert lifetime(answer, dns.rdatatype.A) == seconds


def test_answer_is_found_until_its_time_is_over() -> None:
    kept = Kept()
    kept.put(query(), address(60))
    assert kept.age(later_s=0.5) == 0
    assert kept.age(later_s=59.4) == 59
    assert kept.age(later_s=0.1) is None
    assert (len(kept.cache), kept.room.entries, kept.room.size) == (0, 0, 0)


def test_no_answer_is_kept_longer_than_the_largest_ttl() -> None:
    kept = Kept(max_ttl=30)
    kept.put(query(), address(86_400))
    assert kept.age(later_s=29.9) == 29
    assert kept.age(later_s=0.1) is None


def test_name_is_found_in_any_case_and_answered_in_the_one_it_is_asked_in() -> None:
    kept = Kept()
    kept.put(query("WEB.test."), address())
    asked = query("wEb.TeSt.")
    found = kept.cache.get(asked, SERVERS)
    assert found is not None
    reply = relay(asked, found.message, AnswerRules(lambda _: False, 300))
    assert reply.question[0].name.to_text() == "wEb.TeSt."


@pytest.mark.parametrize(
    "other",
    [
        query("other.test."),
        query(rdtype="TXT"),
        query(dnssec_ok=True),
        query(flags=int(dns.flags.RD | dns.flags.CD)),
        query(flags=int(dns.flags.RD | dns.flags.AD)),
    ],
)
def test_other_questions_are_not_answered_by_it(other: Query) -> None:
    kept = Kept()
    kept.put(query(), address())
    assert kept.age(other) is None


def test_other_servers_are_asked_anew() -> None:
    kept = Kept()
    kept.put(query(), address())
    assert kept.cache.get(query(), OTHERS) is None
    kept.cache.put(query(), address(), SERVERS)  # came late, from the servers before
    assert kept.cache.get(query(), OTHERS) is None
    assert kept.room.entries == 0


def test_ttls_count_down_and_a_denial_is_not_believed_longer_than_here() -> None:
    asked = query()
    reply = relay(asked, address(200), AnswerRules(lambda _: False, 100))
    grow_older(reply, 40)
    assert reply.answer[0].ttl == 60
    denial = relay(
        asked, said(authority=SOA.format(90, 50), rcode="NXDOMAIN"), AnswerRules(lambda _: False, 100)
    )
    grow_older(denial, 40)
    assert denial.authority[0].ttl == 10


def test_rules_go_over_a_kept_answer_again(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    resolver = Resolver(resolv_conf=tmp_path / "resolv.conf")
    cache = resolver.new_cache()
    assert resolver.remembered(query(), lambda _: False, cache) is None
    cache.put(query(), address(), resolver._servers.current())
    for denied in (False, True, False):
        reply = resolver.remembered(query(), lambda found, denied=denied: denied, cache)  # type: ignore[misc]
        assert reply is not None
        assert len(reply.answer) == (0 if denied else 1)


def test_least_recently_used_goes_first() -> None:
    kept = Kept(entries=8)
    names = [query(f"n{index}.test.") for index in range(8)]
    for asked in names:
        kept.put(asked, address())
    assert kept.age(names[0]) == 0
    kept.put(query("new.test."), address())
    assert [kept.age(asked) for asked in names[:2]] == [0, None]
    assert kept.room.entries == 8


@pytest.mark.parametrize("answer", [said(*(f'web.test. 60 IN TXT "{n:03d}{"x" * 250}"' for n in range(20)))])
def test_long_answer_is_not_kept(answer: Message) -> None:
    kept = Kept()
    kept.put(query(rdtype="TXT"), answer)
    assert len(kept.cache) == 0


def test_costly_answer_is_not_kept() -> None:
    kept = Kept()
    kept.put(query(), said(*(f"web.test. 60 IN A 93.184.217.{n}" for n in range(30))))
    assert len(kept.cache) == 0


def test_tunnel_that_fills_its_cache_leaves_room_for_others() -> None:
    room = CacheRoom(1000)
    hog, other = Kept(room=room), Kept(room=room)
    for index in range(3000):
        hog.put(query(f"n{index}.test."), address())
    assert 300 <= len(hog.cache) <= 334
    for index in range(100):
        other.put(query(f"n{index}.test."), address())
    assert len(other.cache) == 100
    hog.cache.close()
    assert (room.entries, len(other.cache)) == (100, 100)


def test_memory_is_bounded_without_a_limit_of_entries() -> None:
    room = CacheRoom(0, max_bytes=200_000)
    tunnels = [Kept(room=room) for _ in range(4)]
    for index in range(4000):
        tunnels[index % 4].put(query(f"n{index}.test."), address())
    assert 100_000 < room.size <= 200_000
    assert min(len(tunnel.cache) for tunnel in tunnels) > 16


def test_closed_cache_keeps_nothing() -> None:
    kept = Kept()
    kept.put(query(), address())
    kept.cache.close()
    kept.put(query(), address())
    assert (len(kept.cache), kept.room.entries, kept.room.size) == (0, 0, 0)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(0, 5), st.booleans()), max_size=120
    ),
    st.integers(0, 20),
)
def test_room_counts_what_the_caches_hold(steps: list[tuple[int, int, int, bool]], limit: int) -> None:
    room = CacheRoom(limit, max_bytes=9000)
    tunnels = [Kept(room=room) for _ in range(3)]
    for which, name, later, changed in steps:
        tunnel = tunnels[which]
        tunnel.clock.now += later
        tunnel.put(query(f"n{name}.test."), ANSWERS[name % 8])
        if changed:
            tunnel.cache.get(query(), OTHERS)
        assert room.entries == sum(len(one.cache) for one in tunnels)
        assert not limit or room.entries <= limit
        assert 0 <= room.size <= 9000
    for tunnel in tunnels:
        tunnel.cache.close()
    assert (room.entries, room.size) == (0, 0)


ANSWERS = [address(ttl) for ttl in range(8)]
