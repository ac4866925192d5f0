"""The audit log of a running proxy, compared with what guests did: flows, names, refusals, sessions."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet, Raw
from support import addresses as at
from support.audit import Audit, Line, audited
from support.nsguest import ns_guest
from support.proxy import Proxy, RunAs
from support.rawguest import RawGuest, raw_guest
from support.resuming import cookie
from support.tunnel import RefusedError
from support.wait import until
from support.world import World

from aero_l2.observe.audit.lines import KINDS

PING = "net.ipv4.ping_group_range"
CANARY = b"canary payload of a guest"
KEY = "canary-token-0123456789abcdef"
SECRET = "a session secret that only tests know"

Run = tuple[Proxy, Audit]


@pytest.fixture
def run(world: World, proxy_as: RunAs, tmp_path: Path) -> Iterator[Run]:
    with audited(world, proxy_as, tmp_path) as made:
        yield made


def mine(audit: Audit, *types: str) -> list[Line]:
    return [line for line in audit.lines(*types) if line.get("session") == 1]


def udp(sport: int, port: int, data: bytes = b"x", address: str = at.WEB) -> Packet:
    return IP(src=at.GUEST, dst=address) / UDP(sport=sport, dport=port) / Raw(data)


async def up(guest: RawGuest) -> None:
    """The NAT process is there: what a guest sends earlier may be kept back."""
    await guest.echo(CANARY)


async def test_udp_and_ping_have_exact_bytes_and_packets(
    world: World, proxy_as: RunAs, tmp_path: Path
) -> None:
    before = world.host.run("sysctl", "-n", PING).strip()
    world.host.run("sysctl", "-w", f"{PING}=0 2147483647")
    try:
        with audited(world, proxy_as, tmp_path) as (proxy, audit):
            async with raw_guest(proxy) as guest:
                await up(guest)
                for size in (1, 500, 1400):
                    assert await guest.udp(at.WEB, at.ECHO_PORT, b"e" * size, 31000, 30) == b"e" * size
                for size in (10, 20):
                    await guest.send(udp(31001, at.DISCARD_PORT, b"d" * size))
                assert await guest.try_icmp(at.CDN, b"p" * 56) == "answered"
            await audit.wait_session_over()
            flows = {(flow["address"], flow["guest_port"]): flow for flow in mine(audit, "flow")}
    finally:
        world.host.run("sysctl", "-w", f"{PING}={before}")
    numbers = ("bytes_sent", "packets_sent", "bytes_received", "packets_received")
    echoed = sum(28 + size for size in (1, 500, 1400))
    sizes = {key: tuple(flow[name] for name in numbers) for key, flow in flows.items()}
    sizes.pop((at.WEB, 20000))  # the greeting
    assert sizes == {
        (at.WEB, 31000): (echoed, 3, echoed, 3),
        (at.WEB, 31001): (28 + 10 + 28 + 20, 2, 0, 0),
        (at.CDN, None): (84, 1, 84, 1),
    }
    assert {key: flow["ended"] for key, flow in flows.items()} == dict.fromkeys(flows, "tunnel_end")
    assert all(0 <= flow["duration_s"] < 60 and flow["start"] <= flow["time"] for flow in flows.values())
    assert flows[at.CDN, None]["protocol"] == "icmp"


class Conversation:
    """A TCP connection, segment by segment, and the bytes of IP that it took."""

    def __init__(self, guest: RawGuest, sport: int) -> None:
        self._guest = guest
        self._sport = sport
        self._next, self._acked = 1000, 0
        self.sent: list[int] = []
        self.got: list[int] = []

    async def say(self, flags: str, data: bytes = b"") -> None:
        """One segment."""
        segment = TCP(sport=self._sport, dport=at.ECHO_PORT, flags=flags, seq=self._next, ack=self._acked)
        packet = IP(src=at.GUEST, dst=at.WEB) / segment / Raw(data)
        self.sent.append(len(bytes(packet)))
        self._next += len(data) + ("S" in flags) + ("F" in flags)
        await self._guest.send(packet)

    async def hear(self, done: str, size: int = 0) -> None:
        """Segments until one has these flags, and so many bytes have come."""
        seen = 0

        def match(packet: Packet) -> bool | None:
            nonlocal seen
            if TCP not in packet or packet[TCP].dport != self._sport:
                return None
            data = packet[IP].len - 20 - packet[TCP].dataofs * 4
            self.got.append(packet[IP].len)
            seen += data
            self._acked = packet[TCP].seq + data + ("S" in packet[TCP].flags) + ("F" in packet[TCP].flags)
            return True if all(f in packet[TCP].flags for f in done) and seen >= size else None

        await self._guest.expect(match, 30)


async def test_tcp_has_exact_bytes_and_packets_and_how_it_ended(run: Run) -> None:
    proxy, audit = run
    async with raw_guest(proxy) as guest:
        await up(guest)
        talk = Conversation(guest, 32000)
        await talk.say("S")
        await talk.hear("SA")
        await talk.say("A")
        await talk.say("PA", b"q" * 700)
        await talk.hear("A", 700)
        await talk.say("A")
        await talk.say("FA")
        await talk.hear("F")
        await talk.say("A")
        assert await guest.try_tcp(at.WEB, 4711) == "reset"
        (refused,) = await audit.wait_for("flow")
        await asyncio.sleep(1)  # so that the tunnel's end is another time than the connection's
    await audit.wait_session_over()
    (closed,) = [flow for flow in mine(audit, "flow") if flow["guest_port"] == 32000]
    assert (closed["ended"], refused["ended"]) == ("closed", "refused")
    assert (closed["bytes_sent"], closed["packets_sent"]) == (sum(talk.sent), len(talk.sent))
    assert (closed["bytes_received"], closed["packets_received"]) == (sum(talk.got), len(talk.got))
    assert (refused["port"], refused["packets_sent"], refused["packets_received"]) == (4711, 1, 1)
    assert closed["duration_s"] + 0.9 < mine(audit, "session_close")[0]["duration_s"]


async def test_linux_guest_downloads_by_name(run: Run) -> None:
    proxy, audit = run
    async with proxy.tunnel() as tunnel, ns_guest(tunnel) as guest:
        await guest.run("busybox", "wget", "-q", "-O", "/dev/null", "http://alias.example.test/4MiB")
        await until(lambda: proxy.metric("l2_tcp_conns_active") == 0, "the connection is closed", 30)
    await audit.wait_session_over()
    (flow,) = [flow for flow in mine(audit, "flow") if flow["protocol"] == "tcp"]
    assert (flow["name"], flow["address"], flow["port"]) == ("alias.example.test", at.WEB, at.HTTP_PORT)
    assert at.IMAGE_BYTES < flow["bytes_received"] < 1.1 * at.IMAGE_BYTES
    assert flow["packets_received"] >= at.IMAGE_BYTES / 1460
    assert flow["ended"] in ("closed", "reset")
    assert not mine(audit, "incomplete", "denied", "denials", "dns")


async def test_forwards_say_what_was_dialled_and_who_answered(
    world: World, proxy_as: RunAs, tmp_path: Path
) -> None:
    forwards = {
        "AERO_L2_TCP_FORWARD": f"192.0.2.80:81={at.OTHER}:{at.SERVICE_PORT},"
        f"10.0.2.2:8080={at.LOOPBACK}:{at.LOCAL_HTTP_PORT}",
        "AERO_L2_UDP_FORWARD": f"10.0.2.2:9000={at.LOOPBACK}:{at.SERVICE_PORT}",
    }
    with audited(world, proxy_as, tmp_path, forwards) as (proxy, audit):
        async with raw_guest(proxy) as guest:
            await up(guest)
            assert await guest.udp("10.0.2.2", 9000, b"to the host") == b"to the host"
            assert await guest.try_tcp("10.0.2.2", 8080) == "answered"
            assert await guest.try_tcp("192.0.2.80", 81) == "answered"
        await audit.wait_session_over()
        lines = {line["port"]: line for line in mine(audit, "flow", "denied")}
    dialled = ("address", "target_address", "target_port")
    assert [lines[9000][name] for name in dialled] == ["10.0.2.2", at.LOOPBACK, at.SERVICE_PORT]
    assert [lines[8080][name] for name in dialled] == ["10.0.2.2", at.LOOPBACK, at.LOCAL_HTTP_PORT]
    assert [lines[81][name] for name in dialled] == ["192.0.2.80", at.OTHER, at.SERVICE_PORT]
    assert [lines[at.ECHO_PORT][name] for name in dialled] == [at.WEB, None, None]


async def test_refused_port_of_a_forward_says_what_was_dialled(
    world: World, proxy_as: RunAs, tmp_path: Path
) -> None:
    settings = {
        "AERO_L2_TCP_FORWARD": f"192.0.2.80:25={at.LOOPBACK}:{at.LOCAL_HTTP_PORT}",
        "AERO_L2_DENIED_TCP_PORTS": "25",
    }
    with audited(world, proxy_as, tmp_path, settings) as (proxy, audit):
        async with raw_guest(proxy) as guest:
            await up(guest)
            assert await guest.try_tcp("192.0.2.80", 25) == "reset"
        await audit.wait_session_over()
        (line,) = mine(audit, "denied")
    assert (line["address"], line["port"], line["rule"]) == ("192.0.2.80", 25, "port")
    assert (line["target_address"], line["target_port"]) == (at.LOOPBACK, at.LOCAL_HTTP_PORT)


async def test_answer_from_another_port_is_a_flow_of_the_far_end(run: Run) -> None:
    """As TFTP has it (RFC 1350): asked at port 69, answered from another."""
    proxy, audit = run
    async with raw_guest(proxy) as guest:
        await up(guest)
        request = b"\x00\x01hello\x00octet\x00"
        await guest.send(udp(33000, at.TFTP_PORT, request))
        await guest.expect(lambda p: True if UDP in p and p[UDP].dport == 33000 else None, 30)
    await audit.wait_session_over()
    flows = [flow for flow in mine(audit, "flow") if flow["guest_port"] == 33000]
    (asked,) = [flow for flow in flows if flow["begun_by"] == "guest"]
    (answered,) = [flow for flow in flows if flow["begun_by"] == "remote"]
    assert (asked["port"], asked["packets_sent"]) == (at.TFTP_PORT, 1)
    assert (answered["address"], answered["packets_received"]) == (at.WEB, 1)
    assert answered["bytes_received"] == 28 + 4 + len(at.HELLO)


async def test_scan_of_denied_ports_takes_few_lines_and_is_counted_exactly(run: Run) -> None:
    proxy, audit = run
    async with raw_guest(proxy) as guest:
        await up(guest)
        for port in range(1000, 2000):
            await guest.send(udp(34000, port, CANARY, "10.9.8.7"))
        assert await guest.ping(at.GATEWAY)
    await audit.wait_session_over()
    proxy.wait_settled()
    lines = mine(audit, "denied", "denials")
    assert len(lines) < 100
    assert audit.packets(rule="special") == audit.packets() == 1000
    assert proxy.metric("l2_policy_denied_total") == 1000
    first = mine(audit, "denied")[0]
    assert (first["address"], first["port"], first["protocol"]) == ("10.9.8.7", 1000, "udp")
    (over,) = mine(audit, "session_close")
    assert (over["denied"], over["flows"]) == (1000, 1)


async def test_scan_of_allowed_ports_takes_bounded_lines_and_is_counted_exactly(
    world: World, proxy_as: RunAs, tmp_path: Path
) -> None:
    with audited(world, proxy_as, tmp_path, {"AERO_L2_MAX_UDP_FLOWS_PER_TUNNEL": "0"}) as (proxy, audit):
        async with raw_guest(proxy) as guest:
            await up(guest)
            for port in range(1000, 2000):
                await guest.send(udp(34000, port, b"12"))
            await guest.ping(at.GATEWAY)
        await audit.wait_session_over()
        lines = mine(audit, "flow", "flows")
    scanned = [line for line in lines if line.get("guest_port") in (34000, None)]
    assert len(lines) < 700
    assert audit.flows() == 1001
    assert sum(line["bytes_sent"] for line in scanned) == 1000 * 30
    assert sum(line["packets_sent"] for line in scanned) == 1000
    assert not mine(audit, "incomplete")


async def test_each_tcp_port_of_a_scan_has_its_line_while_lines_are_left(run: Run) -> None:
    proxy, audit = run
    async with raw_guest(proxy) as guest:
        await up(guest)
        for port in range(2000, 2300):
            await guest.send(IP(src=at.GUEST, dst=at.WEB) / TCP(sport=35000, dport=port, flags="S"))
        await audit.wait_for("flow", 300)
        ended = {flow["port"]: flow["ended"] for flow in mine(audit, "flow") if flow["protocol"] == "tcp"}
    assert ended == dict.fromkeys(range(2000, 2300), "refused")


async def test_denied_names_are_refusals_with_a_name(world: World, proxy_as: RunAs, tmp_path: Path) -> None:
    settings = {"AERO_L2_BLOCKED_DOMAINS": "blocked.test", "AERO_L2_AUDIT_DNS": "1"}
    with audited(world, proxy_as, tmp_path, settings) as (proxy, audit):
        async with raw_guest(proxy) as guest:
            await guest.resolve("web.example.test")
            for number in range(80):
                await guest.resolve(f"n{number}.blocked.test")
            await guest.resolve("mixed.test")
            await guest.resolve("web.example.test", "AAAA")
        await audit.wait_session_over()
        assert proxy.metric("l2_policy_denied_total") == audit.packets(rule="domain") == 80
        assert len(mine(audit, "denied", "denials")) < 75
        assert mine(audit, "denied")[0]["name"] == "n0.blocked.test"
        asked = {(line["name"], line["qtype"]): line for line in mine(audit, "dns")}
        assert len(mine(audit, "dns")) == proxy.metric("l2_dns_queries_total") == 83
    found = asked["web.example.test", "A"]
    assert (found["rcode"], found["verdict"], found["addresses"]) == ("NOERROR", "allowed", [at.WEB])
    assert asked["mixed.test", "A"]["addresses"] == [at.WEB], "what was handed out, not what was there"
    assert asked["web.example.test", "AAAA"]["addresses_total"] == 0
    denied = asked["n7.blocked.test", "A"]
    assert (denied["rcode"], denied["verdict"], denied["addresses"]) == ("NXDOMAIN", "denied", [])


async def test_sessions_and_refused_upgrades(world: World, proxy_as: RunAs, tmp_path: Path) -> None:
    settings = {
        "AERO_L2_AUTH_MODE": "session",
        "AERO_L2_SESSION_SECRET": SECRET,
        "AERO_L2_TRUST_PROXY": "1",
        "AERO_L2_MAX_CONNECTIONS_PER_SESSION": "1",
    }
    with audited(world, proxy_as, tmp_path, settings) as (proxy, audit):
        who = {**cookie("somebody"), "X-Forwarded-For": "198.51.100.7"}
        async with proxy.tunnel(headers=who) as tunnel:
            await up(RawGuest(tunnel))
            with pytest.raises(RefusedError, match="429"):
                await proxy.tunnel(headers=who).__aenter__()
            with pytest.raises(RefusedError, match="401"):
                await proxy.tunnel(path=f"/l2?token={KEY}").__aenter__()
        await audit.wait_session_over()
        opened, closed = mine(audit, "session_open", "session_close")
        refused = audit.lines("refused")
        assert KEY.encode() not in audit.text()
    for line in (opened, closed, *mine(audit, "flow")):
        assert (line["principal"], line["client"]) == ("somebody", "198.51.100.7")
    assert opened["framing"] == "aero-l2-tunnel-v1"
    assert closed["reason"] == "peer_closed"
    assert closed["frames_rx"] > 0
    assert closed["bytes_rx"] > len(CANARY)
    assert [(line["status"], line["principal"], line["client"]) for line in refused] == [
        (429, "somebody", "198.51.100.7"),
        (401, None, "127.0.0.1"),
    ]
    assert refused[1]["reason"] == "missing or expired session"


async def test_flood_of_refused_upgrades_takes_bounded_lines_and_is_counted_exactly(
    world: World, proxy_as: RunAs, tmp_path: Path
) -> None:
    settings = {"AERO_L2_AUTH_MODE": "token", "AERO_L2_API_KEY": KEY}
    with audited(world, proxy_as, tmp_path, settings) as (proxy, audit):
        for _ in range(200):
            with pytest.raises(RefusedError):
                await proxy.tunnel(credential="wrong").__aenter__()
        assert proxy.metric("l2_upgrade_rejected_total") == 200
        proxy.terminate()
        assert proxy.wait() == 0
        lines, sums = audit.lines("refused"), audit.lines("refusals")
    assert len(lines) + len(sums) < 200
    assert len(lines) + sum(line["upgrades"] for line in sums) == 200
    assert {line["reason"] for line in (*lines, *sums)} == {"invalid token"}


async def test_neither_payload_nor_secrets_are_in_any_line_and_every_kind_is_as_published(
    world: World, proxy_as: RunAs, tmp_path: Path
) -> None:
    """The kinds that need a failure are those of tests/integration/test_audit_log.py."""
    settings = {
        "AERO_L2_AUTH_MODE": "token",
        "AERO_L2_API_KEY": KEY,
        "AERO_L2_AUDIT_DNS": "1",
        "AERO_L2_RESUME_SECONDS": "60",
        "AERO_L2_MAX_UDP_FLOWS_PER_TUNNEL": "0",
        "AERO_L2_BLOCKED_DOMAINS": "blocked.test",
    }
    with ExitStack() as stack:
        proxy, audit = stack.enter_context(audited(world, proxy_as, tmp_path, settings))
        async with proxy.tunnel(credential=KEY) as tunnel:
            guest = RawGuest(tunnel)
            await up(guest)
            for port in range(1000, 1800):
                await guest.send(udp(34000, port, CANARY))
                await guest.send(udp(34000, port, CANARY, "10.9.8.7"))
            for number in range(250):
                await guest.resolve(f"n{number}.blocked.test")
        for path in (f"/l2?token={KEY}x", f"/l2?apiKey={KEY}y"):
            for _ in range(60):
                with pytest.raises(RefusedError):
                    await proxy.tunnel(path=path).__aenter__()
        await audit.wait_session_over()
        await _resumed(proxy)
        await audit.wait_session_over(2)
        await until(lambda: _counted(proxy) == {kind: len(audit.lines(kind)) for kind in KINDS}, "its lines")
        proxy.terminate()
        assert proxy.wait() == 0
        text = audit.text()
        seen = {line["type"] for line in audit.lines()}
        assert set(KINDS) - seen == {"lost", "incomplete"}
        for secret in (CANARY, KEY.encode(), CANARY[:8], KEY[:12].encode()):
            assert secret not in text
            assert secret not in proxy.log.encode()
        assert json.loads(text.splitlines()[-1])["type"] == "log_close"


def _counted(proxy: Proxy) -> dict[str, float]:
    """Lines by kind, by the metric."""
    return {kind: proxy.metric(f'aero_l2_audit_lines_total{{kind="{kind}"}}') for kind in KINDS}


async def _resumed(proxy: Proxy) -> None:
    """A client loses its WebSocket and comes back."""
    first = proxy.tunnel(credential=KEY)
    assert first._offered is not None
    first._offered.append("aero-l2-resume")  # type: ignore[arg-type]
    secrets: asyncio.Queue[str] = asyncio.Queue()
    sort = first._sort

    def take(kind: int, payload: bytes) -> None:
        if kind == 0x10:
            secrets.put_nowait(payload.decode())
        elif kind != 0x11:
            sort(kind, payload)

    first._sort = take  # type: ignore[method-assign]
    async with first as tunnel:
        secret = await asyncio.wait_for(secrets.get(), 30)
        tunnel.abort()
        await tunnel.closed(30)
        second = proxy.tunnel(credential=KEY)
        assert second._offered is not None
        second._offered.append(f"aero-l2-resume.{secret}")  # type: ignore[arg-type]
        second._sort = take  # type: ignore[method-assign]
        async with second:
            await asyncio.wait_for(secrets.get(), 30)
