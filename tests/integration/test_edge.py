"""The TLS edge of deploy/edge in front of the real proxy with the settings of deploy/production.env."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
from support import addresses as at
from support import procfs
from support.edge import NAME, ORIGIN, SECRET, TREE, Edge, cookie, edge_network, production, run_edge
from support.nsguest import ns_guest
from support.proxy import Proxy, run_proxy
from support.rawguest import RawGuest
from support.tunnel import PONG, RefusedError, encode
from support.wait import until, wait_until
from support.world import World

KEY = "the-key-of-the-test-0123456789abcdef"
CANARY = "canary-of-a-token-0123456789"
NOT_FOUND = (404, "not found\n")


@pytest.fixture(scope="module")
def net(world: World) -> Iterator[Edge]:
    with edge_network(world) as made:
        yield made


@pytest.fixture(scope="module")
def lab(world: World, net: Edge) -> Iterator[Proxy]:
    """A proxy with production's values; without the limits of rates, which are not the edge's."""
    site = {
        "AERO_L2_ALLOWED_ORIGINS": ORIGIN,
        "AERO_L2_ALLOWED_HOSTS": NAME,
        "AERO_L2_TRUSTED_PROXIES": f"{net.inside}.2",
        "AERO_L2_DENIED_CIDRS": at.HOST_PUBLIC,
        "SESSION_SECRET": SECRET,
        "AERO_L2_API_KEY": KEY,
    }
    rates = ("BYTES_PER_SECOND", "PACKETS_PER_SECOND", "FRAMES_PER_SECOND", "UPGRADES_PER_MINUTE_PER_IP")
    faster = {f"AERO_L2_MAX_{name}": "0" for name in rates} | {"AERO_L2_PING_INTERVAL_MS": "300"}
    closed = {"AERO_L2_OPEN": "0", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "0"}
    settings = {**production(), **site, **faster, **closed}
    with run_proxy(world, "root", settings, ready=False, options=("--bind", "0.0.0.0:8090")) as proxy:
        wait_until(lambda: proxy.get("/readyz")[0] == 200, "it can make tunnels", 60)
        yield proxy


@pytest.fixture(scope="module")
def edge(world: World, net: Edge, lab: Proxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with run_edge(world, net, tmp_path_factory.mktemp("edge")) as made:
        yield made


@pytest.fixture
def hasty(world: World, lab: Proxy, tmp_path: Path) -> Iterator[Edge]:
    """Another edge, whose times are short."""
    changes = {
        "client_header_timeout 10s;": "client_header_timeout 1s;",
        "proxy_read_timeout 180s;": "proxy_read_timeout 800ms;",
    }
    with edge_network(world) as net, run_edge(world, net, tmp_path, changes=changes) as made:
        yield made


# --- What passes -------------------------------------------------------------------------------------------


async def test_page_with_the_gateways_cookie_gets_lease_dns_and_http(edge: Edge) -> None:
    async with edge.tunnel("alice") as tunnel, ns_guest(tunnel, static=False) as guest:
        await guest.lease()
        assert await guest.run("curl", "-sS", "http://web.example.test/hello") == at.HELLO


async def test_both_paths_and_a_key_as_subprotocol_pass(edge: Edge) -> None:
    offered = {"Sec-WebSocket-Protocol": f"aero-l2-token.{KEY}"}
    for path in ("/l2", "/l2/", "/eth", "/eth/"):
        async with edge.tunnel(None, path=f"{path}?token={KEY}", headers=offered) as tunnel:
            await tunnel.ping(b"through")


async def test_large_transfers_arrive_whole_and_at_speed(edge: Edge, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(at.payload())
    url = "http://web.example.test"
    async with edge.tunnel("alice") as tunnel, ns_guest(tunnel) as guest:
        began = time.monotonic()
        down = await guest.run("sh", "-c", f"curl -sS {url}/16MiB | sha256sum", timeout_s=120)
        up = await guest.run("curl", "-sS", "-T", str(upload), f"{url}/upload", timeout_s=120)
        seconds = time.monotonic() - began
    assert down.decode().split()[0] == at.payload_sha256()
    assert at.payload_sha256() in up.decode()
    print(f"16 MiB each way through TLS in {seconds:.1f} s: {32 * 8.4 / seconds:.0f} Mbit/s")
    assert seconds < 60


def test_health_is_served_and_answers_carry_what_browsers_need(edge: Edge) -> None:
    answer = edge.ask("/healthz")
    assert answer.status == 200
    assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Server"] == "nginx"


@pytest.mark.parametrize(
    ("sid", "origin", "refusal"),
    [
        (None, ORIGIN, (401, "missing or invalid auth")),
        ("alice", "https://other.example", (403, "Origin not allowed: https://other.example")),
    ],
)
async def test_refusals_are_the_proxys_own_words(
    edge: Edge, sid: str | None, origin: str, refusal: tuple[int, str]
) -> None:
    with pytest.raises(RefusedError) as refused:
        async with edge.tunnel(sid, origin=origin):
            pass
    assert (refused.value.status, refused.value.body.strip()) == refusal


# --- Who the client is -------------------------------------------------------------------------------------

FORGED = [
    {"X-Forwarded-For": "8.8.8.8"},
    {"X-Forwarded-For": "8.8.4.4, 1.1.1.1", "X-Real-IP": "1.1.1.1"},
    {"Forwarded": "for=9.9.9.9;host=lab.example;proto=https"},
    {"Forwarded": 'for="[2001:db8::9]"', "X-Forwarded-For": "9.9.9.10", "X-Forwarded-Proto": "http"},
    {"x-forwarded-for": "172.30.90.2", "X_Forwarded_For": "1.2.3.4", "Client-IP": "1.2.3.4"},
]


async def test_forged_headers_do_not_fool_the_limit_of_an_address(edge: Edge, lab: Proxy) -> None:
    """Four tunnels for an address, whatever it says of itself; another address has its own four."""
    async with AsyncExitStack() as stack:
        for number, headers in enumerate(FORGED[:4]):
            tunnel = edge.tunnel(f"forger-{number}", visitor=11, headers=headers)
            await stack.enter_async_context(tunnel)
        for headers in FORGED:
            with pytest.raises(RefusedError) as refused:
                async with edge.tunnel("forger-5", visitor=11, headers=headers):
                    pass
            assert refused.value.status == 429
            assert refused.value.body.strip() == "max connections per ip exceeded"
        async with edge.tunnel("neighbour", visitor=12) as tunnel:
            await tunnel.ping(b"own limit")
        clients = {line["client"] for line in _events(lab) if str(line.get("principal")).startswith("forger")}
    assert clients == {f"{edge.outside}.11"}


@pytest.mark.parametrize("header", ["X-Forwarded-Host", "Forwarded"])
def test_forged_host_opens_nothing(edge: Edge, header: str) -> None:
    """ALLOWED_HOSTS judges the host that the browser asked the edge for."""
    value = NAME if header == "X-Forwarded-Host" else f"host={NAME};proto=https"
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Protocol": "aero-l2-tunnel-v1"}
    handshake = {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    said = {"Host": "rebound.example", header: value, "Origin": ORIGIN, **cookie("mallory")}
    answer = edge.ask("/l2", headers={**upgrade, **handshake, **said})
    assert answer.status == 403
    assert str(answer.msg.get_payload()).strip() == "Host not allowed: rebound.example"


def _events(proxy: Proxy) -> list[dict[str, object]]:
    return [json.loads(line) for line in proxy.log.splitlines() if line.startswith("{")]


def _talk(edge: Edge, request: str, visitor: int = 10) -> str:
    """The head of the answer to bytes; empty if the edge hangs up."""
    with edge.encrypted(visitor) as connection:
        connection.sendall(request.encode())
        answer = b""
        while b"\r\n\r\n" not in answer and (data := connection.recv(65536)):
            answer += data
    return answer.decode()


# --- What is served ----------------------------------------------------------------------------------------


OTHERS = [
    *(
        "/",
        "/metrics",
        "/readyz",
        "/version",
        "/v86",
        "/v86/a-token",
        "/demo/",
        "/l2/x",
        "/healthzz",
        "/METRICS",
    ),
    *("/healthz/", "/healthz/../metrics", "//metrics", "/%6detrics", "/l2/%2e%2e/version"),
]


@pytest.mark.parametrize("target", OTHERS)
def test_nothing_else_is_served(edge: Edge, target: str) -> None:
    answer = edge.ask(target, visitor=13)
    assert (answer.status, answer.msg.get_payload()) == NOT_FOUND


def test_a_path_that_only_looks_like_ours_asks_the_proxy_for_ours(edge: Edge) -> None:
    """The edge takes /x/../healthz for /healthz; the proxy is asked for just that."""
    assert edge.ask("/metrics/../healthz", visitor=14).status == 200
    assert edge.ask("/%68ealthz", visitor=14).status == 200


def test_session_is_the_proxys_unless_a_gateway_is_named(
    edge: Edge, world: World, tmp_path: Path, lab: Proxy
) -> None:
    answer = edge.ask("/session", "POST", visitor=14)
    assert answer.status == 404
    assert answer.msg.get_payload() != NOT_FOUND[1], "the edge answered, and not the proxy"
    with ExitStack() as stack:
        net = stack.enter_context(edge_network(world))
        where = (f"{net.inside}.3", 9000)
        other = stack.enter_context(run_edge(world, net, tmp_path, {"EDGE_SESSION": f"{where[0]}:9000"}))
        gateway = stack.enter_context(world.host.call(lambda: socket.create_server(where)))
        assert _session_answered_by(gateway, other) == (201, "by the gateway")


def _session_answered_by(gateway: socket.socket, edge: Edge) -> tuple[int, str]:
    def serve() -> None:
        connection, _ = gateway.accept()
        with connection:
            assert connection.recv(65536).startswith(b"POST /session HTTP/1.1\r\n")
            connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 14\r\n\r\nby the gateway")

    thread = threading.Thread(target=serve)
    thread.start()
    answer = edge.ask("/session", "POST")
    thread.join(10)
    return answer.status, str(answer.msg.get_payload())


@pytest.mark.parametrize(("port", "shown"), [("443", ""), ("8443", ":8443")])
def test_http_redirects_to_https(world: World, lab: Proxy, tmp_path: Path, port: str, shown: str) -> None:
    with edge_network(world) as net, run_edge(world, net, tmp_path, {"EDGE_HTTPS_PORT": port}) as edge:
        answer = edge.ask("/l2?x=1", plain=True)
    assert (answer.status, answer.headers["Location"]) == (308, f"https://{NAME}{shown}/l2?x=1")


# --- Floods and oddities -----------------------------------------------------------------------------------


def test_large_head_is_refused(edge: Edge) -> None:
    many = "".join(f"X-{number}: {'x' * 2000}\r\n" for number in range(20))
    for head in (many, f"X: {'x' * 9000}\r\n"):
        answer = _talk(edge, f"GET /healthz HTTP/1.1\r\nHost: {NAME}\r\n{head}\r\n", 15)
        assert answer.startswith("HTTP/1.1 400 "), answer[:200]
    assert _talk(edge, f"GET /healthz?{'x' * 9000} HTTP/1.1\r\nHost: {NAME}\r\n\r\n", 15).startswith(
        "HTTP/1.1 414 "
    )


def test_large_body_is_refused(edge: Edge) -> None:
    request = f"POST /session HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 20000\r\n\r\n"
    assert _talk(edge, request, 15).startswith("HTTP/1.1 413 ")


def test_slow_head_is_hung_up_on(hasty: Edge) -> None:
    began = time.monotonic()
    _talk(hasty, f"GET /healthz HTTP/1.1\r\nHost: {NAME}\r\nX-Slow: ")
    assert time.monotonic() - began < 5


def test_flood_of_requests_is_answered_429_and_others_are_served(edge: Edge) -> None:
    statuses = [edge.ask("/nothing", visitor=16).status for _ in range(80)]
    assert statuses[0] == 404
    assert statuses.count(429) >= 10
    assert edge.ask("/healthz", visitor=17).status == 200


# --- Time --------------------------------------------------------------------------------------------------


async def test_pings_keep_a_quiet_tunnel_through_the_edges_time_out(hasty: Edge) -> None:
    """A PING each 300 ms where the edge waits for 800; unanswered, they come each second, and it is cut."""
    async with hasty.tunnel("quiet") as tunnel:
        for count in range(1, 9):
            await until(lambda count=count: len(tunnel.pings) >= count or not tunnel.is_open, "a PING")
            assert tunnel.is_open
            await tunnel.send_message(encode(PONG, tunnel.pings[-1]))
    async with hasty.tunnel("gone") as tunnel:
        assert await tunnel.closed() == (1006, "")


# --- Reload ------------------------------------------------------------------------------------------------


async def test_reload_brings_a_new_certificate_and_keeps_tunnels(edge: Edge) -> None:
    async with edge.tunnel("alice", visitor=18) as tunnel:
        guest = RawGuest(tunnel)
        await guest.dhcp()
        old = edge.workers()
        before = await asyncio.to_thread(_served, edge)
        await asyncio.to_thread(_new_certificate, edge.state)
        await asyncio.to_thread(edge.reload)
        await until(lambda: _served(edge) != before, "the new certificate is served")
        assert (await guest.resolve("web.example.test")).ancount == 1
        async with edge.tunnel("bob", visitor=18) as newer:
            await newer.ping(b"by the new workers")
        assert set(old) & set(edge.workers()), "the old workers have ended, and the tunnel lives?"
    await until(lambda: not set(old) & set(edge.workers()), "the old workers end with their last tunnel")


def _served(edge: Edge) -> bytes | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(edge.connect(visitor=19)) as connection:
        return connection.getpeercert(binary_form=True)


def _new_certificate(state: Path) -> None:
    made = [
        "-keyout",
        state / "privkey.pem",
        "-out",
        state / "fullchain.pem",
        "-subj",
        "/CN=new",
        "-days",
        "2",
    ]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-addext", f"subjectAltName=DNS:{NAME}"]
    subprocess.run(["openssl", "req", "-x509", *kind, *made, *names], check=True, capture_output=True)


# --- Logs and privileges -----------------------------------------------------------------------------------


async def test_no_log_has_a_token(edge: Edge, lab: Proxy) -> None:
    targets = [
        f"/l2?token={CANARY}",
        f"/v86/{CANARY}",
        f"/{CANARY}?apiKey={CANARY}",
        f"/session?token={CANARY}",
    ]
    for target in targets:
        assert edge.ask(target, headers={"Cookie": CANARY, "Referer": CANARY}, visitor=20).status in (
            400,
            404,
        )
    for _ in range(60):  # until the edge complains of a flood
        edge.ask(f"/l2?token={CANARY}", visitor=20)
    await asyncio.to_thread(_talk, edge, f"GET /l2?token={CANARY} HTTP/1.1\r\nX: {'x' * 9000}\r\n\r\n", 20)
    async with edge.tunnel(None, path=f"/l2?token={KEY}", visitor=21):
        pass
    await until(lambda: any(line["status"] == "101" for line in edge.requests()), "the tunnel's line")
    statuses = {line["status"] for line in edge.requests() if line["client"] == f"{edge.outside}.20"}
    assert {"400", "404", "429"} <= statuses
    for log in (edge.log, lab.log, "".join(lab.stdout)):
        assert CANARY not in log
        assert KEY not in log
        assert "token=" not in log


def test_a_proxy_that_is_away_is_502_and_no_token_is_logged(world: World, lab: Proxy, tmp_path: Path) -> None:
    with ExitStack() as stack:
        net = stack.enter_context(edge_network(world))
        edge = stack.enter_context(run_edge(world, net, tmp_path, {"EDGE_UPSTREAM": f"{net.inside}.3:1"}))
        assert edge.ask(f"/l2?token={CANARY}").status == 502
        wait_until(edge.requests, "the line of the request")
        assert CANARY not in edge.log
        assert [line["upstream_status"] for line in edge.requests()] == ["502"]


def test_it_runs_without_privilege_on_a_read_only_file_system(edge: Edge) -> None:
    for pid in (edge.process.pid, *edge.workers()):
        status = procfs.status(pid)
        assert set(status["Uid"].split()) == {"61235"}
        assert {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
    root = next(
        line for line in Path(f"/proc/{edge.process.pid}/mounts").read_text().splitlines() if " / " in line
    )
    assert "ro" in root.split()[3].split(",")


@pytest.mark.parametrize(("version", "works"), [("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)])
def test_only_tls_1_2_and_1_3_are_spoken(edge: Edge, version: str, *, works: bool) -> None:
    ciphers = () if version == "-tls1_3" else ("-cipher", "ALL:@SECLEVEL=0")
    done = subprocess.run(
        edge.visitors.enter(
            "openssl", "s_client", "-connect", f"{edge.address}:8443", version, *ciphers, "-brief"
        ),
        input="",
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert ("CONNECTION ESTABLISHED" in done.stderr) is works, done.stderr


# --- The demo ----------------------------------------------------------------------------------------------


def test_demo_page_walks_through_a_tunnel_of_its_own(world: World, lab: Proxy, tmp_path: Path) -> None:
    """Its code, as the edge serves it, with the ws of npm for a browser's WebSocket."""
    with ExitStack() as stack:
        net = stack.enter_context(edge_network(world))
        edge = stack.enter_context(run_edge(world, net, tmp_path, {"EDGE_DEMO": str(TREE / "deploy/demo")}))
        page = edge.ask("/demo/")
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
        for name in ("demo.js", "stack.js"):
            script = edge.ask(f"/demo/{name}")
            assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"
            (tmp_path / name.replace(".js", ".mjs")).write_text(
                str(script.msg.get_payload()).replace("./stack.js", "./stack.mjs")
            )
        (tmp_path / "ca.pem").write_text((edge.state / "fullchain.pem").read_text())
        command = ["node", "demo-guest.mjs", str(tmp_path), edge.address, ORIGIN, KEY, "web.example.test"]
        done = subprocess.run(
            edge.visitors.enter(*command), cwd=TREE / "tests/js", capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "lease  10.0.2.15, router 10.0.2.2, DNS 10.0.2.2, 86400 s"
    assert lines[1].startswith("ping   10.0.2.2 in ")
    assert lines[2] == f"DNS    web.example.test is {at.WEB}"
    assert lines[3].startswith("HTTP   HTTP/1.")
