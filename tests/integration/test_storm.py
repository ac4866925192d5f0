"""Who cannot get in keeps nobody out: half-open requests and garbage while real clients open tunnels."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import pytest
from support.proxy import RunAs, run_proxy
from support.world import World

HALF_OPEN, GARBAGE_PER_SECOND, SECONDS = 500, 200, 10
DEADLINE_S = 5.0
KEY = "a-key-0123456789abcdef"
STORM = Path(__file__).resolve().parents[1] / "support" / "storm.py"


@pytest.mark.slow
async def test_real_clients_get_in_during_a_storm(world: World, proxy_as: RunAs) -> None:
    with run_proxy(world, proxy_as, {"AERO_L2_AUTH_MODE": "token", "AERO_L2_API_KEY": KEY}) as proxy:
        server = proxy.one("server")
        before = len(os.listdir(f"/proc/{server}/fd"))
        numbers = (proxy.port, HALF_OPEN, GARBAGE_PER_SECOND, SECONDS)
        command = world.host.enter(sys.executable, str(STORM), *map(str, numbers))
        storm = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        times: list[float] = []
        await asyncio.sleep(0.5)
        while storm.returncode is None and len(times) < 200:
            start = time.monotonic()
            async with asyncio.timeout(DEADLINE_S), proxy.tunnel(credential=KEY):
                times.append(time.monotonic() - start)
            await asyncio.sleep(0.1)
        output, _ = await asyncio.wait_for(storm.communicate(), 30)
        answers = json.loads(output)
        times.sort()
        median = times[len(times) // 2]
        print(f"{len(times)} tunnels: p50 {median:.3f} s, longest {times[-1]:.3f} s; {answers}")
        assert len(times) >= 20
        assert sum(answers.values()) == GARBAGE_PER_SECOND * SECONDS
        assert set(answers) <= {"400", "401", "403", "404", "408", "413", "431", "closed", "reset"}
        async with proxy.tunnel(credential=KEY):
            pass
        await asyncio.sleep(2)
        assert len(os.listdir(f"/proc/{server}/fd")) <= before + 5
        assert "Traceback" not in proxy.log
        tunnels = ('"tunnel opened"', '"tunnel closed"')  # as many as the machine is quick
        lines = [line for line in proxy.log.splitlines() if not any(event in line for event in tunnels)]
        assert len(lines) < 200
