"""Quotas and times of the real proxy, from its settings to its log; the exact rules have unit tests."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from support.proxy import Proxy, RunAs, run_proxy
from support.tunnel import ErrorMessage, RefusedError, encode
from support.wait import until
from support.world import World

from aero_l2.auth.session_token import SessionClaims, mint_session_token

SECRET = "a-session-secret-0123456789"
FRAME = b"\xff" * 6 + b"\x02\x00\x00\x00\x00\x15" + b"\x88\xb5" + bytes(46)
MESSAGE = len(FRAME) + 4


def ends(proxy: Proxy) -> list[dict[str, Any]]:
    """The lines about tunnels that ended."""
    lines = [json.loads(line) for line in proxy.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "tunnel closed"]


def cookie(sid: str) -> dict[str, str]:
    claims = SessionClaims(sid, time.time() + 600)
    return {"Cookie": f"aero_session={mint_session_token(claims, SECRET.encode())}"}


async def test_quota_of_bytes_ends_a_tunnel_and_no_other(world: World, proxy_as: RunAs) -> None:
    env = {"AERO_L2_MAX_BYTES_PER_CONNECTION": str(20 * MESSAGE)}
    with run_proxy(world, proxy_as, env) as proxy:
        async with proxy.tunnel() as other, proxy.tunnel() as tunnel:
            for _ in range(21):
                await tunnel.send(FRAME)
            assert await tunnel.closed() == (1008, "byte quota exceeded")
            assert tunnel.errors == [ErrorMessage(6, "byte quota exceeded")]
            await other.ping(b"still here")
        proxy.wait_settled()
        assert proxy.metric("l2_sessions_closed_quota_bytes_total") == 1
        await until(lambda: len(ends(proxy)) == 2, "both are logged")
        line = next(line for line in ends(proxy) if line["reason"] == "byte_quota")
        assert line["client"] == "127.0.0.1"
        assert (line["frames_rx"], line["bytes_rx"]) == (20, 20 * len(FRAME))
        assert line["seconds"] > 0


async def test_hour_of_a_session_is_one_over_its_tunnels(world: World, proxy_as: RunAs) -> None:
    env = {
        "AERO_L2_SESSION_SECRET": SECRET,
        "AERO_L2_AUTH_MODE": "session",
        "AERO_L2_MAX_BYTES_PER_PRINCIPAL_HOUR": str(10 * MESSAGE),
    }
    with run_proxy(world, proxy_as, env) as proxy:
        async with proxy.tunnel(headers=cookie("me")) as first, proxy.tunnel(headers=cookie("me")) as second:
            for _ in range(11):
                await first.send(FRAME)
            for tunnel in (first, second):
                assert await tunnel.closed() == (1008, "hourly byte quota exceeded")
                assert tunnel.errors == [ErrorMessage(6, "hourly byte quota exceeded")]
        with pytest.raises(RefusedError) as refused:
            await proxy.tunnel(headers=cookie("me")).__aenter__()
        assert (refused.value.status, refused.value.body) == (429, "quota_bytes: hourly byte quota exceeded")
        async with proxy.tunnel(headers=cookie("you")) as other:
            await other.ping(b"another")


async def test_times_end_tunnels_and_pings_measure_them(world: World, proxy_as: RunAs) -> None:
    env = {"AERO_L2_IDLE_TIMEOUT_MS": "600", "AERO_L2_PING_INTERVAL_MS": "100"}
    with run_proxy(world, proxy_as, env) as proxy:
        async with proxy.tunnel() as tunnel:
            await until(lambda: bool(tunnel.pings), "a PING")
            await tunnel.send_message(encode(2, tunnel.pings[0]))
            assert await tunnel.closed() == (1008, "idle timeout")
            assert tunnel.errors == []
        assert tunnel.pings[0] == (1).to_bytes(8, "big")
        assert proxy.metric("aero_l2_idle_timeouts_total") == 1
        assert proxy.metric("l2_ping_rtt_ms_count") == 1


async def test_sighup_changes_the_limits_of_new_tunnels(world: World, proxy_as: RunAs, outside: Path) -> None:
    config = outside.parent / "aero-l2.toml"
    config.write_text("")
    config.chmod(0o644)
    with run_proxy(world, proxy_as, options=("--config", str(config))) as proxy:
        async with proxy.tunnel() as old:
            config.write_text("max_frames_per_second = 5\nmax_session_seconds = 3600\n")
            said = proxy.reload()
            assert '"changed": ["AERO_L2_MAX_FRAMES_PER_SECOND", "AERO_L2_MAX_SESSION_SECONDS"]' in said
            async with proxy.tunnel() as new:
                for tunnel in (old, new):
                    for _ in range(20):
                        await tunnel.send(FRAME)
                assert await new.closed() == (1008, "frame rate quota exceeded")
                assert new.errors == [ErrorMessage(7, "frame rate quota exceeded")]
            await old.ping(b"still here")
