"""The door of the real proxy: fresh secrets without a restart, expiry, and secrets that nobody sees."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import addresses as at
from support import procfs
from support.proxy import Proxy, RunAs, run_proxy
from support.tunnel import RefusedError
from support.wait import until
from support.world import World

from aero_l2.auth.session_token import SessionClaims, mint_session_token

PROGRAM = Path(sys.executable).with_name("aero-l2")
OLD, NEW, OTHER = ("an-old-key-0123456789", "a-new-key-0123456789", "another-key-0123456789")


@pytest.fixture
def secrets(outside: Path) -> Path:
    """A folder whose files the proxy may read, whoever it runs as."""
    return outside.parent


@contextmanager
def keyed(world: World, run_as: RunAs, secrets: Path, **more: str) -> Iterator[Proxy]:
    """A proxy whose API key comes from a file."""
    (secrets / "key").write_text(OLD + "\n")
    (secrets / "previous").write_text(OTHER + "\n")
    files = {
        "AERO_L2_AUTH_MODE": "token",
        "AERO_L2_API_KEY_FILE": str(secrets / "key"),
        "AERO_L2_API_KEY_PREVIOUS_FILE": str(secrets / "previous"),
    }
    with run_proxy(world, run_as, {**files, **more}) as proxy:
        yield proxy


async def verdict(proxy: Proxy, key: str) -> str:
    """`open`, or the body of the refusal."""
    try:
        async with proxy.tunnel(credential=key):
            return "open"
    except RefusedError as refused:
        return refused.body


async def test_keys_are_rotated_by_sighup_while_tunnels_stay_open(
    world: World, proxy_as: RunAs, secrets: Path
) -> None:
    with keyed(world, proxy_as, secrets) as proxy:
        assert [await verdict(proxy, key) for key in (OLD, NEW, OTHER)] == ["open", "invalid token", "open"]
        async with proxy.tunnel(credential=OLD) as tunnel:
            (secrets / "key").write_text(NEW)
            (secrets / "previous").write_text(OLD)
            assert await verdict(proxy, NEW) == "invalid token"
            said = proxy.reload()
            assert "AERO_L2_API_KEY" in said
            assert "AERO_L2_API_KEY_PREVIOUS" in said
            assert [await verdict(proxy, key) for key in (OLD, NEW, OTHER)] == [
                "open",
                "open",
                "invalid token",
            ]
            assert tunnel.is_open


async def test_reload_with_a_fault_changes_nothing(world: World, proxy_as: RunAs, secrets: Path) -> None:
    with keyed(world, proxy_as, secrets) as proxy:
        (secrets / "key").write_text(NEW)
        (secrets / "previous").write_text(f"{OTHER}\n\n{OLD}\n")
        said = proxy.reload()
        assert "reload failed, settings stay" in said
        assert "AERO_L2_API_KEY_PREVIOUS_FILE" in said
        assert [await verdict(proxy, key) for key in (OLD, NEW)] == ["open", "invalid token"]


@pytest.mark.slow
async def test_secret_that_only_root_may_read_is_read_once(
    world: World, proxy_as: RunAs, secrets: Path
) -> None:
    """Root reads it before it becomes the service user; a reload keeps what it had and says why."""
    if proxy_as == "user":
        (secrets / "key").write_text(OLD)
        (secrets / "key").chmod(0o600)
        with (
            pytest.raises(AssertionError, match="AERO_L2_API_KEY_FILE"),
            keyed(world, proxy_as, secrets),
        ):
            pass
        return
    (secrets / "key").write_text(OLD)
    (secrets / "key").chmod(0o600)
    with keyed(world, proxy_as, secrets) as proxy:
        assert await verdict(proxy, OLD) == "open"
        assert str(secrets / "key") in proxy.reload()
        assert await verdict(proxy, OLD) == "open"


async def test_configuration_file_is_read_again_and_says_what_needs_a_restart(
    world: World, proxy_as: RunAs, secrets: Path
) -> None:
    config = secrets / "aero-l2.toml"
    config.write_text("max_connections_per_ip = 1\ndns_lookup_timeout_ms = 1000\n")
    config.chmod(0o644)
    with run_proxy(world, proxy_as, options=("--config", str(config))) as proxy:
        async with proxy.tunnel():
            with pytest.raises(RefusedError) as refused:
                await proxy.tunnel().__aenter__()
            assert (refused.value.status, refused.value.body) == (429, "max connections per ip exceeded")
            config.write_text("max_connections_per_ip = 2\ndns_lookup_timeout_ms = 1500\n")
            said = proxy.reload()
            assert '"changed": ["AERO_L2_MAX_CONNECTIONS_PER_IP"]' in said
            assert '"need_restart": ["AERO_L2_DNS_LOOKUP_TIMEOUT_MS"]' in said
            async with proxy.tunnel():
                pass


@pytest.mark.slow
async def test_tunnel_ends_with_its_credential(world: World, proxy_as: RunAs) -> None:
    secret = "a-session-secret-0123456789"
    env = {"AERO_L2_SESSION_SECRET": secret, "AERO_L2_CLOSE_ON_EXPIRY": "1"}
    with run_proxy(world, proxy_as, env) as proxy:
        end = time.time() + 2
        cookie = {"Cookie": f"aero_session={mint_session_token(SessionClaims('me', end), secret.encode())}"}
        async with proxy.tunnel(headers=cookie) as tunnel:
            assert tunnel.is_open
            await until(lambda: not tunnel.is_open, "it is closed")
            assert (tunnel.close_code, tunnel.close_reason) == (1008, "session expired")
            assert time.time() >= end
            assert tunnel.errors == []


CANARIES = {
    "AERO_L2_SESSION_SECRET": "canary-session-0123456789",
    "AERO_L2_SESSION_SECRET_PREVIOUS": "canary-session-previous-0123456789",
    "AERO_L2_API_KEY": "canary-key-0123456789",
    "AERO_L2_API_KEY_PREVIOUS": "canary-key-previous-0123456789",
    "AERO_L2_JWT_SECRET": "canary-jwt-0123456789",
    "AERO_L2_JWT_SECRET_PREVIOUS": "canary-jwt-previous-0123456789",
}


QUERIES = (
    "token=canary-query",
    "apiKey=canary-query",
    "x=canary-query",
    "a=b&token=canary-query&apiKey=canary-query",
    "TOKEN=canary-query",
    "token=%63anary-query",
    "canary-query",
    "=canary-query",
    "?token=canary-query",
)
MALFORMED = (
    "POST {} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n",
    "GET {} HTTP/9.9\r\n\r\n",
    "GET {} HTTP/1.1 more\r\n\r\n",
    "GET {} HTTP/1.1\r\nno colon {}\r\n\r\n".replace("{}", "{0}"),
    "GET {} HTTP/1.1\r\nUpgrade: websocket\r\nReferer: http://x{}\r\n\r\n".replace("{}", "{0}"),
    "GET http://x{} HTTP/1.1\r\n\r\n",
)


@pytest.mark.slow
async def test_secrets_are_nowhere_to_be_seen(world: World, proxy_as: RunAs) -> None:
    env = {**CANARIES, "AERO_L2_LOG_LEVEL": "debug", "AERO_L2_OPEN": "1", "AERO_L2_RAW_FRAMES": "1"}
    with run_proxy(world, proxy_as, env) as proxy:
        for query in QUERIES:
            with pytest.raises(RefusedError):
                await proxy.tunnel(f"/l2?{query}").__aenter__()
            for path in ("/readyz", "/metrics", "/version", "/healthz", "/session", "/l2", "/nowhere"):
                proxy.get(f"{path}?{query}")
            for request in MALFORMED:
                await asyncio.to_thread(said_to, proxy, request.format(f"/l2?{query}"))
        for path in ("/v86/canary-path", "/v86?token=canary-query", "/v86/canary-path?apiKey=canary-query"):
            with pytest.raises(RefusedError):
                await proxy.raw_tunnel(path).__aenter__()
            proxy.get(path)
            proxy.get(f"{path}/nowhere")
        cookie = {"Cookie": "aero_session=canary.query", "Authorization": "Bearer canary.canary.canary"}
        with pytest.raises(RefusedError):
            await proxy.tunnel(headers=cookie, credential="canary-query").__aenter__()
        async with proxy.tunnel(f"/l2?token={CANARIES['AERO_L2_API_KEY']}"):
            proxy.reload()
        async with proxy.raw_tunnel(f"/v86/{CANARIES['AERO_L2_API_KEY']}"):
            proxy.reload()
        seen = {path: proxy.get(path)[1] for path in ("/version", "/metrics", "/readyz", "/healthz")}
        seen |= what_processes_show(proxy)
        seen["log"] = proxy.log
    for options in (["serve", "--check"], ["settings"], ["serve", "--check", "--bind", "nonsense"]):
        seen[" ".join(options)] = await asyncio.to_thread(output, options, env)
    assert "upgrade refused" in seen["log"]
    assert {place: text for place, text in seen.items() if "canary" in text.lower()} == {}


def said_to(proxy: Proxy, request: str) -> None:
    """Send what is no good request, and wait for the answer."""
    with proxy.world.host.connect(at.LOOPBACK, proxy.port) as connection:
        connection.settimeout(30)
        connection.sendall(request.encode())
        assert connection.recv(65536)


def what_processes_show(proxy: Proxy) -> dict[str, str]:
    """Titles and environments of all its processes."""
    seen = {}
    for pid in proxy.processes():
        seen[f"command line of {pid}"] = procfs.command(pid)
        seen[f"name of {pid}"] = procfs.status(pid).get("Name", "")
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except ProcessLookupError:  # a program that netd runs for a moment
            continue
        seen[f"environment of {pid}"] = environment.decode("utf-8", "replace")
    return seen


def output(options: list[str], env: dict[str, str]) -> str:
    """What the program prints with these options and settings."""
    done = subprocess.run(
        [str(PROGRAM), *options], env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr
