"""Each step of the probe against a server that does it right, wrongly, or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path

import dns.message
import dns.rcode
import pytest
from support import addresses as at
from support.lan import Lan, playing

from aero_l2.client import Credential, Delivery, Options, Target
from aero_l2.probe.outcome import Kind
from aero_l2.probe.report import Report
from aero_l2.probe.run import Plan, Watch, probe
from aero_l2.probe.targets import parse_target

SECRET = "canary-0123456789-secret"
WEB = at.WEB
SHORT_S = 0.6


async def run(
    url: str,
    *targets: str,
    name: str | None = None,
    credential: Credential | None = None,
    seconds: float = 0,
    timeout_s: float = 10,
) -> Report:
    options = Options(credential=credential, open_timeout_s=timeout_s, proxy=False)
    plan = Plan(
        Target.of(url, credential),
        options,
        name,
        tuple(parse_target(one) for one in targets),
        seconds,
        timeout_s,
    )
    async with asyncio.timeout(60):
        return await probe(plan)


def failure(report: Report) -> tuple[str, Kind | None, str]:
    """Step, kind and text of the failure; every text is one printable line."""
    assert all(step.text.isprintable() for step in report.steps)
    assert all(line.isprintable() for line in report.lines())
    assert report.failed is not None, list(report.lines())
    return report.failed.name, report.failed.kind, report.failed.text


def servfail(reply: dns.message.Message) -> bytes:
    reply.set_rcode(dns.rcode.SERVFAIL)
    return reply.to_wire()


def nxdomain(reply: dns.message.Message) -> bytes:
    reply.set_rcode(dns.rcode.NXDOMAIN)
    return reply.to_wire()


async def test_step_is_told_when_it_has_ended_and_not_at_the_end() -> None:
    told: list[tuple[str, str | None]] = []
    watch = Watch(lambda step: told.append((step.name, watch.doing)))
    async with playing(Lan()) as lan:
        report = await probe(Plan(Target.of(lan.url), Options(proxy=False)), watch)
    assert told == [(step.name, step.name) for step in report.steps]
    assert len(told) == 7


async def test_all_steps_in_order_with_their_times() -> None:
    async with playing(Lan()) as lan:
        report = await run(lan.url, f"http://{WEB}/", f"udp-echo://{WEB}:7", f"tcp://{WEB}:80")
    assert report.failed is None, list(report.lines())
    assert [step.name for step in report.steps] == [
        "open",
        "ping",
        "dhcp",
        "arp",
        "icmp",
        "dns",
        "http",
        "udp-echo",
        "tcp",
    ]
    assert all(step.duration_s > 0 for step in report.steps)
    assert report.duration_s >= sum(step.duration_s for step in report.steps)
    lease = report.steps[2]
    assert (lease.facts["address"], lease.facts["lease_s"], lease.facts["dns"]) == (
        at.GUEST,
        86400,
        [at.GATEWAY],
    )


@pytest.mark.parametrize(
    ("refusal", "kind", "text"),
    [
        ((401, "invalid token"), Kind.CREDENTIAL, "invalid token"),
        ((403, "Origin not allowed: http://x"), Kind.ORIGIN, "Origin not allowed: http://x"),
        ((403, "Host not allowed: x"), Kind.HOST, "Host not allowed: x"),
        ((429, "max connections exceeded"), Kind.LIMIT, "max connections exceeded"),
        ((503, "shutting down"), Kind.UNAVAILABLE, "shutting down"),
        ((404, "nothing\x1b[2J\nhere"), Kind.NOT_A_TUNNEL, "nothing?[2J here"),
    ],
)
async def test_refusal_ends_the_run_with_status_and_body(
    refusal: tuple[int, str], kind: Kind, text: str
) -> None:
    async with playing(Lan(refuse=refusal)) as lan:
        report = await run(lan.url)
    step, found, said = failure(report)
    assert (step, found) == ("open", kind)
    assert f"HTTP {refusal[0]}: {text}" in said
    assert report.failed is not None
    assert report.failed.facts == {"http_status": refusal[0], "body": text}


async def test_nobody_there_is_unreachable() -> None:
    with socket.socket() as free:
        free.bind((at.LOOPBACK, 0))
        report = await run(f"ws://{at.LOOPBACK}:{free.getsockname()[1]}/l2")
    step, kind, text = failure(report)
    assert (step, kind) == ("open", Kind.UNREACHABLE)
    assert "Connection refused" in text


async def test_silent_server_is_unreachable_in_time() -> None:
    with socket.socket() as silent:
        silent.bind((at.LOOPBACK, 0))
        silent.listen()
        report = await run(f"ws://{at.LOOPBACK}:{silent.getsockname()[1]}/l2", timeout_s=SHORT_S)
    step, kind, text = failure(report)
    assert (step, kind) == ("open", Kind.UNREACHABLE)
    assert "within 0.6 s" in text


async def test_no_tls_there_is_told_apart() -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, at.LOOPBACK, 0) as server:
        report = await run(f"wss://{at.LOOPBACK}:{server.sockets[0].getsockname()[1]}/l2")
    assert failure(report)[:2] == ("open", Kind.TLS)


@pytest.mark.parametrize(
    ("silent", "step", "kind", "text"),
    [
        ("pong", "ping", Kind.NO_PONG, "no PONG"),
        ("offer", "dhcp", Kind.NO_LEASE, "no answer to DHCPDISCOVER"),
        ("ack", "dhcp", Kind.NO_LEASE, f"{at.GUEST} was offered, but there is no answer to DHCPREQUEST"),
        ("arp", "arp", Kind.NO_ARP, f"{at.GATEWAY} does not answer ARP"),
        ("icmp", "icmp", Kind.NO_ECHO, f"{at.GATEWAY} does not answer ping"),
        ("dns", "dns", Kind.DNS, f"the DNS server {at.GATEWAY} does not answer"),
        ("udp", "udp-echo", Kind.TIMEOUT, f"udp-echo://{WEB}:7: no answer"),
        ("tcp", "http", Kind.TIMEOUT, f"http://{WEB}/: no answer"),
    ],
)
async def test_silence_ends_the_step_in_time_and_says_what_is_missing(
    silent: str, step: str, kind: Kind, text: str
) -> None:
    async with playing(Lan(silent={silent})) as lan:
        report = await run(lan.url, f"http://{WEB}/", f"udp-echo://{WEB}:7", timeout_s=SHORT_S)
    found = failure(report)
    assert found == (step, kind, f"{text} within 0.6 s")
    assert report.failed is not None
    assert SHORT_S * 0.9 <= report.failed.duration_s < 5


@pytest.mark.parametrize("at_", ["pong", "offer", "ack", "arp", "icmp", "dns", "udp", "tcp"])
async def test_tunnel_that_is_closed_in_the_middle_is_told_with_code_and_reason(at_: str) -> None:
    async with playing(Lan(close_at=at_)) as lan:
        report = await run(lan.url, f"udp-echo://{WEB}:7", f"http://{WEB}/")
    _, kind, text = failure(report)
    assert (kind, "shutting down (close code 1001)" in text) == (Kind.CLOSED, True)
    assert report.failed is not None
    assert report.failed.facts == {"close_code": 1001, "close_reason": "shutting down", "error_code": None}


async def test_question_whose_answer_is_lost_is_asked_again() -> None:
    lost: list[bytes] = []

    def once(reply: dns.message.Message) -> bytes:
        lost.append(b"")
        return b"rubbish" if len(lost) == 1 else reply.to_wire()

    async with playing(Lan(dns_reply=once)) as lan:
        report = await run(lan.url, f"udp-echo://{WEB}:7")
    assert report.failed is None, list(report.lines())
    assert len(lost) == 2


async def test_damaged_lease_and_nak_are_told() -> None:
    async with playing(Lan(lease=lambda wire: wire.replace(b"\x03\x04\x0a\0\x02\x02", b"\0" * 6))) as lan:
        step, kind, text = failure(await run(lan.url))
    assert (step, kind) == ("dhcp", Kind.NO_LEASE)
    assert "no router (option 3)" in text
    async with playing(Lan(lease=lambda wire: wire.replace(b"\x35\x01\x05", b"\x35\x01\x06"))) as lan:
        assert "NAK" in failure(await run(lan.url))[2]


async def test_ping_with_other_data_is_a_wrong_answer() -> None:
    async with playing(Lan(icmp_reply=lambda data: data[::-1])) as lan:
        assert failure(await run(lan.url))[:2] == ("icmp", Kind.WRONG_ANSWER)


async def test_servfail_fails_also_for_the_default_name() -> None:
    async with playing(Lan(dns_reply=servfail)) as lan:
        step, kind, text = failure(await run(lan.url))
    assert (step, kind) == ("dns", Kind.DNS)
    assert "SERVFAIL (its resolvers fail or cannot be reached" in text


async def test_nxdomain_is_an_answer_for_the_default_name_and_a_failure_for_a_given_one() -> None:
    async with playing(Lan(dns_reply=nxdomain)) as lan:
        assert (await run(lan.url, f"tcp://{WEB}:80")).failed is None
        step, kind, text = failure(await run(lan.url, name="a.example"))
    assert (step, kind) == ("dns", Kind.NAME_REFUSED)
    assert "AERO_L2_BLOCKED_DOMAINS" in text


async def test_name_without_an_address_is_told_apart() -> None:
    async with playing(Lan()) as lan:
        assert failure(await run(lan.url, name="a.example"))[1] is Kind.NO_ADDRESS
        assert failure(await run(lan.url, "tcp://a.example:1"))[:2] == ("resolve", Kind.NO_ADDRESS)


@pytest.mark.parametrize(
    ("said", "kind", "text"),
    [
        ((b"HTTP/1.1 404 Not Found\r\n\r\n", "FPA"), Kind.WRONG_ANSWER, "HTTP status 404"),
        ((b"HTTP/1.1 302 Found\r\n\r\n", "FPA"), None, ""),
        ((b"SSH-2.0-\x1b]0;x\x07\r\n", "PA"), Kind.WRONG_ANSWER, "no HTTP: SSH-2.0-?]0;x?"),
        ((b"HTTP/1.1 200 OK\r\n", "FPA"), Kind.BROKEN, "in the middle of its answer"),
        ((b"", "FA"), Kind.BROKEN, "before it answered"),
        ((b"", "RA"), Kind.BROKEN, "by a reset"),
    ],
)
async def test_http_answers_are_judged(said: tuple[bytes, str], kind: Kind | None, text: str) -> None:
    async with playing(Lan(said=said)) as lan:
        report = await run(lan.url, f"http://{WEB}/")
    if kind is None:
        assert report.failed is None
        return
    assert failure(report)[:2] == ("http", kind)
    assert text in failure(report)[2]


async def test_echo_that_differs_is_a_wrong_answer() -> None:
    async with playing(Lan(udp_reply=lambda data: data + b"x", said=(b"y" * 512, "PA"))) as lan:
        for target in (f"udp-echo://{WEB}:7", f"tcp-echo://{WEB}:7"):
            step, kind, text = failure(await run(lan.url, target))
            assert (step, kind) == (target.split(":")[0], Kind.WRONG_ANSWER)
            assert "differs" in text
    async with playing(Lan(said=(b"y" * 100, "FPA"))) as lan:
        step, kind, text = failure(await run(lan.url, f"tcp-echo://{WEB}:7"))
        assert (kind, "after 100 of 512 bytes" in text) == (Kind.BROKEN, True)


async def test_rubbish_on_the_lan_changes_nothing() -> None:
    noise = [os.urandom(size) for size in (0, 1, 14, 60, 1514, 9000)]
    async with playing(Lan(extra=noise)) as lan:
        report = await run(lan.url, f"http://{WEB}/", f"udp-echo://{WEB}:7")
    assert report.failed is None, list(report.lines())


async def test_throughput_that_stalls_fails_and_an_empty_answer_is_no_measure() -> None:
    async with playing(Lan(said=(b"HTTP/1.1 200 OK\r\n\r\nabc", "PA"))) as lan:
        step, kind, _ = failure(await run(lan.url, f"http://{WEB}/", seconds=30, timeout_s=SHORT_S))
        assert (step, kind) == ("throughput", Kind.TIMEOUT)
    async with playing(Lan()) as lan:
        step, kind, text = failure(await run(lan.url, f"http://{WEB}/", seconds=30))
        assert (step, kind, "empty" in text) == ("throughput", Kind.WRONG_ANSWER, True)


@pytest.mark.parametrize("delivery", Delivery)
@pytest.mark.parametrize("repeat", ["", "?token=", "Bearer "])
async def test_credential_that_a_server_repeats_is_not_shown(delivery: Delivery, repeat: str) -> None:
    secret = "canary/+ %0123456789" if delivery is Delivery.QUERY else SECRET
    credential = Credential(secret, delivery)
    sent = Target.of("ws://x", credential)
    for text in (secret, sent.url.partition("token=")[2] or secret):
        async with playing(Lan(refuse=(401, f"{'x' * 180} {repeat}{text} is wrong"))) as lan:
            report = await run(lan.url, credential=credential)
        assert lan.requests
        shown = "\n".join([*report.lines(), report.as_json(), repr(report)])
        assert failure(report)[1] is Kind.CREDENTIAL
        assert "canary" not in shown
        assert text[:8] not in shown


async def test_query_of_the_address_that_a_server_repeats_is_not_shown() -> None:
    async with playing(Lan(refuse=(404, f"Cannot GET /l2?apiKey={SECRET}"))) as lan:
        report = await run(f"{lan.url}?apiKey={SECRET}")
    assert failure(report)[2].startswith("HTTP 404: Cannot GET /l2?apiKey=*** ")
    assert "canary" not in "\n".join([*report.lines(), report.as_json()])


async def test_json_has_one_object_a_run_with_the_documented_keys() -> None:
    page = (Path(__file__).parents[2] / "docs/probe.md").read_text()
    async with playing(Lan()) as lan:
        good = json.loads((await run(lan.url, f"http://{WEB}/?secret=1")).as_json())
        bad = json.loads((await run(lan.url, "tcp://a.example:1")).as_json())
    for shown in (good, bad):
        assert all(f"`{key}`" in page for key in shown), shown.keys()
        assert all(f"`{key}`" in page for step in shown["steps"] for key in (*step, *step["facts"]))
        assert (shown["version"], shown["server"], shown["throughput"]) == (1, lan.url, [])
    assert (good["ok"], good["exit_status"], good["kind"], good["failed_step"], good["reason"]) == (
        True,
        0,
        None,
        None,
        None,
    )
    assert (bad["ok"], bad["exit_status"], bad["kind"], bad["failed_step"]) == (
        False,
        18,
        "no-address",
        "resolve",
    )
    assert bad["reason"] == bad["steps"][-1]["text"]
    assert "secret=1" not in json.dumps(good)
