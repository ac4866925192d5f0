"""Lists of domains on a running proxy, with real guests: what is named is within reach, and nothing else."""

import asyncio
import itertools
import os
import signal
import socket
import time
from collections.abc import Iterator

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest
from dns.message import Message
from scapy.layers.inet import IP, UDP
from support import addresses as at
from support.nsguest import NamespaceGuest, ns_guest
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import RawGuest, raw_guest
from support.wait import retry, until
from support.world import World

ELSEWHERE = "8.8.8.8"  # no such server in the test's internet
GRACE_S = 5
_ids = itertools.count(7000)


@pytest.fixture(scope="module")
def allowing(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy with a list of allowed domains, one of them blocked again, a static name and forwards."""
    settings = {
        "AERO_L2_ALLOWED_DOMAINS": ".Allowed.TEST., ,rebind.test",
        "AERO_L2_BLOCKED_DOMAINS": "secret.allowed.test",
        "AERO_L2_DNS_A": f"static.lan={at.WEB}",
        "AERO_L2_TCP_FORWARD": f"192.0.2.80:80={at.WEB}:{at.HTTP_PORT}",
        "AERO_L2_UDP_FORWARD": f"192.0.2.53:53={at.WEB}:{at.ECHO_PORT}",
    }
    with run_proxy(world, proxy_as, settings) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def blocking(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy with a list of blocked domains only."""
    with run_proxy(world, proxy_as, {"AERO_L2_BLOCKED_DOMAINS": "web.example.test"}) as proxy:
        yield proxy


async def ask(guest: RawGuest, name: str, kind: str = "A", server: str = at.GATEWAY) -> Message:
    query = dns.message.make_query(name, kind, id=next(_ids))
    return dns.message.from_wire(await guest.udp(server, 53, query.to_wire()))


def addresses_in(answer: Message) -> list[str]:
    return [rdata.address for rrset in answer.answer if rrset.rdtype == dns.rdatatype.A for rdata in rrset]


async def test_address_is_within_reach_once_its_name_was_asked_for(allowing: Proxy) -> None:
    async with raw_guest(allowing) as guest:
        assert await guest.try_tcp(at.WEB, at.HTTP_PORT) == "reset"
        assert await guest.try_udp(at.WEB, at.ECHO_PORT) == "prohibited"
        assert addresses_in(await ask(guest, "WEB.allowed.test")) == [at.WEB]
        await guest.echo(b"named")
        assert await guest.try_tcp(at.WEB, at.HTTP_PORT) == "answered"
        assert await guest.try_tcp(at.CDN, at.HTTP_PORT) == "reset"
        assert await guest.try_icmp(at.CDN) == "prohibited"


async def test_other_tunnels_do_not_get_the_address_opened(allowing: Proxy) -> None:
    async with raw_guest(allowing) as guest, raw_guest(allowing) as other:
        await ask(guest, "web.allowed.test")
        await guest.echo(b"mine")
        assert await other.try_tcp(at.WEB, at.HTTP_PORT) == "reset"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["web.example.test", "allowed.test.example.test", "notallowed.test", "com"])
async def test_names_of_no_allowed_domain_are_nxdomain_and_open_nothing(allowing: Proxy, name: str) -> None:
    allowing.wait_settled()
    async with raw_guest(allowing) as guest:
        denied, failed = (allowing.metric(f"l2_{what}_total") for what in ("policy_denied", "dns_fail"))
        answer = await ask(guest, name)
        assert answer.rcode() == dns.rcode.NXDOMAIN
        assert [rrset.rdtype for rrset in answer.authority] == [dns.rdatatype.SOA]
        assert allowing.metric("l2_policy_denied_total") == denied + 1
        assert allowing.metric("l2_dns_fail_total") == failed
        assert await guest.try_tcp(at.WEB, at.HTTP_PORT) == "reset"
        await until(lambda: allowing.metric("l2_policy_denied_total") == denied + 2, "the packet is counted")


async def test_block_list_wins(allowing: Proxy) -> None:
    async with raw_guest(allowing) as guest:
        for name in ("secret.allowed.test", "a.SECRET.allowed.test"):
            assert (await ask(guest, name)).rcode() == dns.rcode.NXDOMAIN


async def test_alias_to_a_name_outside_the_list_is_within_reach(allowing: Proxy) -> None:
    async with raw_guest(allowing) as guest:
        assert addresses_in(await ask(guest, "alias.allowed.test")) == [at.CDN]
        assert await guest.udp(at.CDN, at.ECHO_PORT, b"cdn", again_s=0.2) == b"cdn"
        assert (await ask(guest, "cdn.example.test")).rcode() == dns.rcode.NXDOMAIN


async def test_hints_of_a_service_are_within_reach_without_private_ones(allowing: Proxy) -> None:
    async with raw_guest(allowing) as guest:
        answer = await ask(guest, "service.allowed.test", "HTTPS")
        assert str(answer.answer[0][0]) == f'1 . alpn="h2" ipv4hint="{at.CDN}"'
        assert await guest.udp(at.CDN, at.ECHO_PORT, b"hint", again_s=0.2) == b"hint"
        assert await guest.try_udp(at.PRIVATE_SITE, at.SERVICE_PORT) == "prohibited"


async def test_static_names_are_ahead_of_the_list_and_open_their_addresses(allowing: Proxy) -> None:
    async with raw_guest(allowing) as guest:
        assert addresses_in(await ask(guest, "static.lan")) == [at.WEB]
        await guest.echo(b"static")


async def test_forwards_are_not_judged_by_names(allowing: Proxy) -> None:
    async with raw_guest(allowing) as guest:
        await ask(guest, "web.allowed.test")
        await guest.echo(b"the NAT is there")
    async with raw_guest(allowing) as guest:
        assert await guest.try_tcp("192.0.2.80", 80) == "answered"
        assert await guest.udp("192.0.2.53", 53, b"no DNS at all") == b"no DNS at all"


async def test_name_that_is_allowed_opens_no_private_address(allowing: Proxy) -> None:
    async with raw_guest(allowing) as guest:
        answer = await ask(guest, "private.allowed.test")
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
        assert await guest.try_tcp(at.PRIVATE_SITE, at.SERVICE_PORT) == "reset"


@pytest.mark.slow
async def test_new_connections_end_with_the_ttl_and_five_seconds_and_old_ones_go_on(allowing: Proxy) -> None:
    async with allowing.tunnel() as tunnel, ns_guest(tunnel) as guest:
        await guest_asks(guest, "short.allowed.test")
        asked = time.monotonic()
        old = await connect(guest, at.CDN, at.ECHO_PORT)
        with old:
            assert await say(old, b"before") == b"before"
            await asyncio.sleep(max(0.0, asked + GRACE_S - time.monotonic()))
            (await connect(guest, at.CDN, at.ECHO_PORT)).close()
            await until(lambda: is_over(asked), "TTL and grace are over")
            with pytest.raises(ConnectionRefusedError):
                await connect(guest, at.CDN, at.ECHO_PORT)
            assert await say(old, b"after") == b"after"


def is_over(asked: float) -> bool:
    """TTL 1 s, 5 s, and the second that a promise may be longer than it has to."""
    return time.monotonic() > asked + 1 + GRACE_S + 1.5


async def guest_asks(
    guest: NamespaceGuest, name: str, server: str = at.GATEWAY, *, tcp: bool = False
) -> Message:
    """Ask as an ordinary resolver would, which believes only the address it asked."""
    query = dns.message.make_query(name, "A")
    ask_over = dns.query.tcp if tcp else dns.query.udp
    return await asyncio.to_thread(guest.namespace.call, lambda: ask_over(query, server, timeout=10))


async def connect(guest: NamespaceGuest, address: str, port: int) -> socket.socket:
    return await asyncio.to_thread(guest.namespace.connect, address, port)


async def say(connection: socket.socket, data: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, data)
    return await asyncio.wait_for(loop.sock_recv(connection, 100), 10)


@pytest.mark.parametrize("tcp", [False, True])
async def test_dns_to_other_servers_is_ours_and_answered_from_there(allowing: Proxy, tcp: bool) -> None:
    queries = allowing.metric("l2_dns_queries_total")
    async with allowing.tunnel() as tunnel, ns_guest(tunnel) as guest:
        answer = await guest_asks(guest, "web.allowed.test", ELSEWHERE, tcp=tcp)
        assert addresses_in(answer) == [at.WEB]
        answer = await guest_asks(guest, "web.example.test", at.NAMESERVER, tcp=tcp)
        assert answer.rcode() == dns.rcode.NXDOMAIN
        (await connect(guest, at.WEB, at.HTTP_PORT)).close()
    assert allowing.metric("l2_dns_queries_total") == queries + 2


async def test_encrypted_dns_is_refused(blocking: Proxy) -> None:
    async with raw_guest(blocking) as guest:
        await guest.echo(b"up")
        assert await guest.try_tcp(at.NAMESERVER, 853) == "reset"
        assert await guest.try_udp(at.NAMESERVER, 853) == "prohibited"


async def test_block_list_alone_denies_names_and_no_addresses(blocking: Proxy) -> None:
    async with raw_guest(blocking) as guest:
        await guest.echo(b"by address")
        assert (await ask(guest, "sub.web.example.test")).rcode() == dns.rcode.NXDOMAIN
        assert (await ask(guest, "web.example.test", server=ELSEWHERE)).rcode() == dns.rcode.NXDOMAIN
        assert addresses_in(await ask(guest, "cdn.example.test", server=ELSEWHERE)) == [at.CDN]
        assert addresses_in(await ask(guest, "alias.example.test")) == [at.WEB]  # the asked name is judged
        assert await guest.try_tcp(at.WEB, at.HTTP_PORT) == "answered"


async def test_counters_tell_what_was_sent(allowing: Proxy) -> None:
    """Names and packets denied, questions asked and failed, compared with what this guest sends."""
    names = ("policy_denied", "dns_queries", "dns_fail")

    def counters() -> dict[str, float]:
        return {name: allowing.metric(f"l2_{name}_total") for name in names}

    allowing.wait_settled()
    before = counters()
    async with raw_guest(allowing) as guest:
        for name in ("web.allowed.test", "static.lan", "nothing.allowed.test", "com", "web.example.test"):
            await ask(guest, name)
        await ask(guest, "secret.allowed.test", server=ELSEWHERE)
        for address, port in ((at.CDN, 80), (at.CDN, 853), (at.PRIVATE_SITE, 80), (at.WEB, 25)):
            assert await guest.try_tcp(address, port) == "reset"
    allowing.wait_settled()
    moved = {name: value - before[name] for name, value in counters().items()}
    assert moved == {"policy_denied": 3 + 4, "dns_queries": 6, "dns_fail": 1}


@pytest.mark.slow
async def test_without_netd_names_are_servfail_and_nothing_hangs(world: World, proxy_as: RunAs) -> None:
    """Stopped, killed, and back: what was opened stays open, and what was not is SERVFAIL meanwhile."""
    with run_proxy(world, proxy_as, {"AERO_L2_ALLOWED_DOMAINS": "allowed.test,example.test"}) as proxy:
        async with raw_guest(proxy) as guest:
            assert addresses_in(await ask(guest, "web.allowed.test")) == [at.WEB]
            await guest.echo(b"open")
            os.kill(netd := proxy.one("netd"), signal.SIGSTOP)
            start = time.monotonic()
            query = dns.message.make_query("cdn.example.test", "A", id=next(_ids)).to_wire()
            answer = dns.message.from_wire(await guest.udp(at.GATEWAY, 53, query, again_s=30))
            assert answer.rcode() == dns.rcode.SERVFAIL
            assert time.monotonic() - start < 10
            assert addresses_in(await ask(guest, "web.allowed.test")) == [at.WEB]  # promised already
            assert await guest.try_tcp(at.CDN, at.HTTP_PORT) == "reset"
            proxy.kill(netd)

            async def asked_again() -> bool | None:
                answer = await ask(guest, "cdn.example.test")
                assert answer.rcode() in (dns.rcode.SERVFAIL, dns.rcode.NOERROR)
                return addresses_in(answer) == [at.CDN] or None

            await retry(asked_again, "the new netd opens addresses", 30)
            assert await guest.try_tcp(at.CDN, at.HTTP_PORT) == "answered"
            assert await guest.try_tcp(at.WEB, at.HTTP_PORT) == "answered"
            assert await guest.try_tcp(at.NAMESERVER, 53000) == "reset"


@pytest.mark.slow
async def test_guest_that_asks_thousands_of_names_costs_no_more_than_its_share(allowing: Proxy) -> None:
    """Every name has an address of its own; another tunnel's questions are answered meanwhile."""
    async with raw_guest(allowing) as guest, raw_guest(allowing) as other:
        for start in range(0, 3000, 100):
            for number in range(start, start + 100):
                query = dns.message.make_query(f"n{number}.many.allowed.test", "A", id=number)
                to_gateway = IP(src=at.GUEST, dst=at.GATEWAY) / UDP(sport=30000, dport=53)
                await guest.send(to_gateway / query.to_wire())
            assert addresses_in(await ask(other, "web.allowed.test")) == [at.WEB]
        await other.echo(b"works")
        assert other.tunnel.is_open
        assert guest.tunnel.is_open
