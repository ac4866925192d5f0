"""`aero-l2 probe` against the real proxy: the whole run, each way to fail, and what monitoring gets of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support import addresses as at
from support.lan import Lan, playing
from support.proxy import AS_USER, Proxy, run_proxy
from support.wait import wait_until
from support.world import World

from aero_l2.auth.jwt import JwtClaims, mint_jwt
from aero_l2.auth.session_token import SessionClaims, mint_session_token

PROGRAM = Path(__file__).resolve().parents[2] / ".venv/bin/aero-l2"
SECRET = "canary-0123456789-of-the-operator"
NOWHERE = "93.184.217.77"
ORIGIN = "http://lab.example"


@dataclass(frozen=True)
class Outcome:
    """How a run of the program ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def last(self) -> str:
        """The step that ended it, in one line."""
        return next((line for line in self.stdout.splitlines() if line.startswith("FAILED ")), "")

    @property
    def everything(self) -> str:
        """All that it wrote."""
        return self.stdout + self.stderr


def command(world: World, url: str, *options: str) -> list[str]:
    """The command line, on the proxy's host as an ordinary user."""
    return world.host.enter(*AS_USER, str(PROGRAM), "probe", url, *options)


def environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **more}


def run(world: World, url: str, *options: str, stdin: str = "", **variables: str) -> Outcome:
    """Run it to its end; it never shows a traceback, and every line is one that can be printed."""
    done = subprocess.run(
        command(world, url, *options),
        env=environment(**variables),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    assert all(line.isprintable() for line in done.stdout.splitlines())
    return Outcome(done.returncode, done.stdout, done.stderr)


def fails(outcome: Outcome, status: int, step: str, *texts: str) -> None:
    """That it ended so, at that step, and says these."""
    assert outcome.status == status, outcome.everything
    assert outcome.last.split()[1] == step, outcome.stdout
    for text in texts:
        assert text in outcome.last


@contextmanager
def keyed(world: World, **more: str) -> Iterator[Proxy]:
    """A proxy that asks for an API key, and for an Origin."""
    settings = {"AERO_L2_AUTH_MODE": "token", "AERO_L2_API_KEY": SECRET, "AERO_L2_OPEN": ""}
    with run_proxy(world, "user", {**settings, **more}) as proxy:
        yield proxy


# -- the good run


def test_default_run_proves_what_every_server_has(proxy: Proxy) -> None:
    outcome = run(proxy.world, proxy.url)
    assert (outcome.status, outcome.stderr) == (0, "")
    first, *steps, last = outcome.stdout.splitlines()
    assert first == proxy.url
    assert [re.sub(r"\d+\.\d ms", "T", " ".join(step.split())) for step in steps] == [
        "ok open T the server opens a tunnel",
        "ok ping T the server answers a PING",
        "ok dhcp T 10.0.2.15/24, router 10.0.2.2, DNS 10.0.2.2, server 10.0.2.2, for 86400 s, MTU 1500",
        f"ok arp T 10.0.2.2 is at {at.GATEWAY_MAC}",
        "ok icmp T 10.0.2.2 answers ping",
        "ok dns T 10.0.2.2 answers: NXDOMAIN without an address for example.com",
        "ok tcp T 10.0.2.2:53 answers DNS over TCP",
    ]
    assert last.startswith("ok: 7 steps in ")


def test_targets_of_every_kind_are_reached_by_address_and_by_name(proxy: Proxy) -> None:
    given = [
        f"tcp-echo://{at.WEB}:{at.ECHO_PORT}",
        "http://web.example.test/hello",
        f"udp-echo://cdn.example.test:{at.ECHO_PORT}",
        f"tcp://{at.CDN}:{at.DISCARD_PORT}",
        f"tcp-discard://{at.WEB}:{at.DISCARD_PORT}",
    ]
    targets = [word for target in given for word in ("--target", target)]
    outcome = run(proxy.world, proxy.url, "--name", "web.example.test", *targets)
    assert (outcome.status, outcome.stderr) == (0, "")
    names = [line.split()[1] for line in outcome.stdout.splitlines()[1:-1]]
    assert names[5:] == ["dns", "tcp-echo", "resolve", "http", "resolve", "udp-echo", "tcp", "tcp-discard"]
    assert "HTTP status 200" in outcome.stdout
    assert f"10.0.2.2 answers: web.example.test is {at.WEB}" in outcome.stdout


@pytest.mark.slow
def test_throughput_is_measured_up_down_and_both_ways(proxy: Proxy) -> None:
    given = [f"http://{at.WEB}/16MiB", f"tcp-discard://{at.WEB}:9", f"tcp-echo://{at.WEB}:7"]
    targets = [word for target in given for word in ("--target", target)]
    outcome = run(proxy.world, proxy.url, *targets, "--seconds", "2", "--json")
    report = json.loads(outcome.stdout)
    assert report["ok"], outcome.stdout
    rates = report["throughput"]
    assert [(rate["direction"], rate["target"]) for rate in rates] == [
        ("down", given[0]),
        ("up", given[1]),
        ("both", given[2]),
    ]
    assert all(1.9 < rate["seconds"] < 4 for rate in rates)
    assert all(rate["mbit_per_s"] > 2 for rate in rates), rates


# -- who is let in


def test_credentials_that_are_missing_or_wrong_are_401_with_the_body(world: World) -> None:
    with keyed(world) as proxy:
        assert run(world, proxy.url, AERO_L2_CLIENT_TOKEN=SECRET).status == 0
        for variables in ({}, {"AERO_L2_CLIENT_TOKEN": "wrong-0123456789"}):
            outcome = run(world, proxy.url, **variables)
            fails(outcome, 5, "open", "HTTP 401: invalid token", "AERO_L2_AUTH_MODE")
        fails(
            run(world, proxy.url, "--origin", ORIGIN, AERO_L2_CLIENT_TOKEN=SECRET),
            6,
            "open",
            "HTTP 403",
            ORIGIN,
        )
        outcome = run(world, proxy.url, "--origin", "", AERO_L2_CLIENT_TOKEN=SECRET)
        fails(outcome, 6, "open", "HTTP 403: missing Origin header", "AERO_L2_ALLOWED_ORIGINS")


@pytest.mark.slow
def test_host_path_and_tls_that_are_wrong_are_told_apart(world: World) -> None:
    with run_proxy(world, "user", {"AERO_L2_ALLOWED_HOSTS": "lab.example"}) as proxy:
        fails(run(world, proxy.url), 7, "open", "Host not allowed: 127.0.0.1", "AERO_L2_ALLOWED_HOSTS")
        fails(run(world, proxy.url.replace("/l2", "/other")), 10, "open", "HTTP 404")
        fails(run(world, proxy.url.replace("ws:", "wss:")), 4, "open", "no TLS there")
        port = proxy.port
    fails(run(world, f"ws://{at.LOOPBACK}:{port}/l2"), 3, "open", "Connection refused")


@pytest.mark.slow
async def test_limits_are_429(world: World) -> None:
    with run_proxy(world, "user", {"AERO_L2_MAX_CONNECTIONS": "1"}) as proxy:
        async with proxy.tunnel():
            outcome = await asyncio.to_thread(run, world, proxy.url)
            fails(outcome, 8, "open", "HTTP 429: max connections exceeded")


@pytest.mark.slow
def test_server_that_makes_no_tunnels_is_503_with_the_reason(world: World) -> None:
    with run_proxy(world, "user") as proxy:
        (proxy.programs / "slirp4netns").unlink()
        fails(run(world, proxy.url), 9, "open", "HTTP 503: ")


# -- what the policy and the network refuse


@pytest.mark.slow
def test_names_that_are_unknown_blocked_broken_or_without_address(world: World) -> None:
    with run_proxy(world, "user", {"AERO_L2_BLOCKED_DOMAINS": "cdn.example.test"}) as proxy:
        for name in ("nope.example.test", "cdn.example.test"):
            fails(
                run(world, proxy.url, "--name", name), 17, "dns", name, "NXDOMAIN", "AERO_L2_BLOCKED_DOMAINS"
            )
        outcome = run(world, proxy.url, "--target", "http://cdn.example.test/")
        fails(outcome, 17, "resolve", "cdn.example.test", "NXDOMAIN")
        fails(run(world, proxy.url, "--name", "private.test"), 18, "dns", "private.test")
        fails(run(world, proxy.url, "--name", "broken.example.test"), 16, "dns", "SERVFAIL")


@pytest.mark.slow
def test_targets_that_are_denied_closed_or_wrong(world: World) -> None:
    with run_proxy(world, "user") as proxy:

        def attempt(target: str) -> Outcome:
            return run(world, proxy.url, "--target", target)

        for denied in (f"tcp://{at.PRIVATE_SITE}:{at.SERVICE_PORT}", f"tcp://{at.WEB}:25"):
            fails(attempt(denied), 19, "tcp", denied, "RST", "nobody listens", "policy")
        fails(attempt(f"tcp-echo://{at.WEB}:4"), 19, "tcp-echo", "RST", "nobody listens", "policy")
        denied = f"udp-echo://{at.PRIVATE_SITE}:{at.SERVICE_PORT}"
        fails(attempt(denied), 20, "udp-echo", denied, at.GATEWAY, "policy prohibits")
        fails(attempt(f"udp-echo://{at.WEB}:4"), 21, "udp-echo", "a port that cannot be reached")
        fails(attempt(f"http://{at.WEB}/nope"), 23, "http", "HTTP status 404")
        fails(attempt(f"http://{at.WEB}:{at.ECHO_PORT}/"), 23, "http", "no HTTP: GET / HTTP/1.1")


@pytest.mark.slow
def test_target_in_a_black_hole_is_a_time_out(world: World) -> None:
    world.internet.run("ip", "route", "add", "blackhole", NOWHERE)
    try:
        with run_proxy(world, "user", {"AERO_L2_TCP_CONNECT_TIMEOUT_MS": "2500"}) as proxy:
            outcome = run(world, proxy.url, "--target", f"tcp://{NOWHERE}:80")
            fails(outcome, 22, "tcp", "reset after 2.", "AERO_L2_TCP_CONNECT_TIMEOUT_MS")
            outcome = run(world, proxy.url, "--target", f"tcp://{NOWHERE}:80", "--timeout", "1")
            fails(outcome, 22, "tcp", "no answer within 1 s")
            outcome = run(world, proxy.url, "--target", f"udp-echo://{NOWHERE}:7", "--timeout", "1")
            fails(outcome, 22, "udp-echo", "no answer within 1 s")
    finally:
        world.internet.run("ip", "route", "del", "blackhole", NOWHERE)


@pytest.mark.slow
def test_server_that_stops_in_the_middle_is_told_with_code_and_reason(world: World) -> None:
    options = ("--target", f"tcp-discard://{at.WEB}:9", "--seconds", "60", "--json")
    with (
        run_proxy(world, "user") as proxy,
        subprocess.Popen(
            command(world, proxy.url, *options), env=environment(), stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        wait_until(lambda: proxy.metric("l2_bytes_rx_total") > 2e6, "data goes up", 60)
        proxy.terminate()
        stdout, _ = process.communicate(timeout=60)
    report = json.loads(stdout)
    assert (process.returncode, report["exit_status"], report["kind"]) == (11, 11, "closed")
    assert report["failed_step"] == "throughput"
    assert report["steps"][-1]["facts"] == {
        "close_code": 1001,
        "close_reason": "shutting down",
        "error_code": None,
    }


# -- monitoring


@pytest.mark.slow
def test_several_runs_are_several_reports_and_the_last_failure_decides(world: World) -> None:
    with run_proxy(world, "user") as proxy:
        began = time.monotonic()
        outcome = run(world, proxy.url, "--json", "--count", "3", "--interval", "1.5")
        reports = [json.loads(line) for line in outcome.stdout.splitlines()]
        assert (outcome.status, [report["ok"] for report in reports]) == (0, [True] * 3)
        assert time.monotonic() - began > 3
        assert 1.4 < reports[1]["started_at"] - reports[0]["started_at"] < 10
    assert run(world, proxy.url, "--count", "2", "--interval", "0").status == 3


@pytest.mark.slow
def test_nagios_gets_one_line_with_performance_data_and_its_own_statuses(world: World) -> None:
    with run_proxy(world, "user") as proxy:
        outcome = run(world, proxy.url, "--nagios")
        assert outcome.status == 0
        (line,) = outcome.stdout.splitlines()
        text, _, performance = line.partition(" | ")
        assert text.startswith("AERO-L2 OK - 7 steps in ")
        assert re.fullmatch(r"total=[\d.]+ms( (open|ping|dhcp|arp|icmp|dns|tcp)=[\d.]+ms){7}", performance)
        slow = run(world, proxy.url, "--nagios", "--warn-ms", "0.1")
        assert (slow.status, slow.stdout[:17]) == (1, "AERO-L2 WARNING -")
        refused = run(world, proxy.url, "--nagios", "--target", f"tcp://{at.WEB}:4")
        assert (refused.status, "AERO-L2 CRITICAL - tcp: " in refused.stdout) == (2, True)
    for options in (("--target", "nonsense"), ("--json",), ("--count", "0")):
        unknown = run(world, "ws://127.0.0.1:1/l2", "--nagios", *options)
        assert (unknown.status, unknown.stdout[:17]) == (3, "AERO-L2 UNKNOWN -")
        assert "--" in unknown.stdout, "the status line says what is wrong, as monitoring shows nothing else"
        assert unknown.stderr == ""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user may write to."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_textfile_is_what_prometheus_reads(proxy: Proxy, shared: Path) -> None:
    file = shared / "probe.prom"
    for target, status in ((f"http://{at.WEB}/hello", 0), (f"tcp://{at.WEB}:4", 19)):
        assert run(proxy.world, proxy.url, "--textfile", str(file), "--target", target).status == status
        families = {family.name: family for family in text_string_to_metric_families(file.read_text())}
        success = families["aero_l2_probe_success"].samples[0]
        assert (success.value, success.labels) == (status == 0, {"server": proxy.url})
        steps = families["aero_l2_probe_step_success"].samples
        assert {sample.labels["step"]: sample.value for sample in steps}["dhcp"] == 1
        assert families["aero_l2_probe_exit_status"].samples[0].value == status
        stamp = families["aero_l2_probe_timestamp_seconds"].samples[0].value
        assert time.time() - 120 < stamp <= time.time()
        assert file.stat().st_mode & 0o7777 == 0o644
    assert os.listdir(shared) == ["probe.prom"]


def test_textfile_that_cannot_be_written_is_one_line(proxy: Proxy) -> None:
    outcome = run(proxy.world, proxy.url, "--textfile", "/nowhere/probe.prom")
    assert (outcome.status, outcome.stdout) == (2, "")
    assert outcome.stderr.splitlines() == [
        "aero-l2: --textfile=/nowhere/probe.prom: No such file or directory: name a file that can be written"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--target", "nonsense"), "--target: nonsense is no target"),
        (("--name", "a b"), "--name"),
        (("--seconds", "3"), "--seconds needs something to measure with"),
        (("--timeout", "nan"), "--timeout"),
        (("--timeout", "0"), "--timeout"),
        (("--interval", "nan"), "--interval"),
        (("--ca-file", "/nowhere"), "/nowhere"),
    ],
)
def test_options_that_cannot_be_used_are_one_line_and_status_2(
    world: World, options: tuple[str, ...], text: str
) -> None:
    outcome = run(world, "wss://127.0.0.1:1/l2", *options)
    assert (outcome.status, outcome.stdout) == (2, "")
    (line,) = outcome.stderr.splitlines()
    assert line.startswith("aero-l2: ")
    assert text in line


# -- secrets


def credentials() -> list[tuple[str, Mapping[str, str], str]]:
    """Delivery, settings of the proxy, and the credential."""
    end = int(time.time()) + 3600
    token = mint_session_token(SessionClaims("me", end), SECRET.encode())
    jwt = mint_jwt(JwtClaims(iat=end - 3600, exp=end, sid="me"), SECRET.encode())
    key = {"AERO_L2_AUTH_MODE": "token", "AERO_L2_API_KEY": SECRET}
    return [
        ("subprotocol", key, SECRET),
        ("query", key, SECRET),
        ("cookie", {"AERO_L2_AUTH_MODE": "session", "AERO_L2_SESSION_SECRET": SECRET}, token),
        ("bearer", {"AERO_L2_AUTH_MODE": "jwt", "AERO_L2_JWT_SECRET": SECRET}, jwt),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4), ids=["subprotocol", "query", "cookie", "bearer"])
def test_no_credential_is_seen_however_it_is_given_and_whatever_fails(
    world: World, shared: Path, number: int
) -> None:
    """In no output, in no file, and in no process's title; --token, which every user can see, is not used."""
    deliver, settings, secret = credentials()[number]
    file, prom = shared / "token", shared / "probe.prom"
    file.write_text(secret + "\n")
    file.chmod(0o644)
    shown = []
    with run_proxy(world, "user", {**settings, "AERO_L2_MAX_CONNECTIONS_PER_IP": "1"}) as proxy:
        base = ("--deliver", deliver, "--textfile", str(prom))
        for options, stdin, variables in (
            (("--token-file", str(file)), "", {}),
            (("--token-file", "-"), secret, {}),
            ((), "", {"AERO_L2_CLIENT_TOKEN": secret}),
            (("--json",), "", {"AERO_L2_CLIENT_TOKEN_FILE": str(file)}),
        ):
            outcome = run(world, proxy.url, *base, *options, stdin=stdin, **variables)
            assert outcome.status == 0, outcome.everything
            shown += [outcome.everything, prom.read_text()]
        held = {"AERO_L2_CLIENT_TOKEN": secret}
        with subprocess.Popen(
            command(world, proxy.url, *base, "--target", f"tcp-discard://{at.WEB}:9", "--seconds", "60"),
            env=environment(**held),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            wait_until(lambda: proxy.metric("l2_bytes_rx_total") > 1e6, "it is under way", 60)
            shown.append(
                subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
            )
            busy = run(world, proxy.url, *base, "--nagios", **held)
            assert (busy.status, "429" in busy.stdout) == (2, True)
            proxy.kill(*proxy.with_role("nat"))
            shown += [busy.everything, process.communicate(timeout=60)[0]]
            assert process.returncode == 11
        wrong = secret[:-3] + ("AAA" if not secret.endswith("AAA") else "BBB")
        outcome = run(world, proxy.url, *base, AERO_L2_CLIENT_TOKEN=wrong)
        assert outcome.status == 5, outcome.everything
        shown += [outcome.everything, prom.read_text()]
    assert not [text for text in shown if secret[:12] in text]


@pytest.mark.slow
async def test_credential_that_is_no_use_is_not_repeated_by_usage_errors(world: World) -> None:
    for options in (("--token-file", "/nowhere/x"), ("--deliver", "subprotocol")):
        outcome = await asyncio.to_thread(
            run, world, "ws://127.0.0.1:1/l2", *options, AERO_L2_CLIENT_TOKEN=f"{SECRET} with a blank"
        )
        assert outcome.status == 2
        assert "canary" not in outcome.everything


@pytest.mark.slow
async def test_server_that_never_gives_a_lease_is_told(tmp_path: Path) -> None:
    async with playing(Lan(silent={"offer"})) as lan:
        process = await asyncio.create_subprocess_exec(
            str(PROGRAM), "probe", lan.url, "--timeout", "1.5", stdout=asyncio.subprocess.PIPE, cwd=tmp_path
        )
        stdout, _ = await asyncio.wait_for(process.communicate(), 60)
    fails(
        Outcome(process.returncode or 0, stdout.decode(), ""),
        13,
        "dhcp",
        "no answer to DHCPDISCOVER within 1.5 s",
    )


def test_reader_that_goes_away_is_no_traceback(proxy: Proxy) -> None:
    script = '"$@" --count 20 --interval 0 | head -n 1'
    line = ["sh", "-c", script, "sh", *command(proxy.world, proxy.url)]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout.strip(), done.stderr) == (proxy.url, "")
