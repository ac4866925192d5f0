"""What a refused upgrade costs at most, and a reload that hangs."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from support.door import settings

from aero_l2.door.handshake import DoorRules, Refusal, Upgrade, accept, judge
from aero_l2.door.http import MAX_ELEMENTS, HeadReader

BASE = (
    b"GET /l2%s HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\nOrigin: http://evil.example\r\n"
)
FULL = 15_500
PLAIN = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
OFFER = b"Sec-WebSocket-Protocol: aero-l2-tunnel-v1\r\n"
MOST_MS = 5.0  # under 1 ms here; 15 when lists were left to a library
HEADS = {
    "connection": (b"", b"Upgrade: websocket\r\n" + OFFER + b"Connection: Upgrade" + b",a" * (FULL // 2)),
    "upgrade": (b"", b"Connection: Upgrade\r\n" + OFFER + b"Upgrade: a,a,a,a,a,a,a,a\r\n" * 100),
    "commas": (b"", PLAIN + b"Sec-WebSocket-Protocol: aero-l2-tunnel-v1" + b"," * FULL),
    "query": (b"?" + b"&" * FULL, PLAIN + OFFER),
    "escapes": (b"?token=" + b"%41" * (FULL // 3), PLAIN + OFFER),
    "cookies": (b"", PLAIN + OFFER + b"Cookie: " + b";" * FULL),
    "forwarded": (b"", PLAIN + OFFER + b"Forwarded: " + b"for=1.2.3.4," * (FULL // 12)),
    "hops": (b"", PLAIN + OFFER + b"X-Forwarded-For: " + b"1.2.3.4," * (FULL // 8)),
    "origin": (b"", PLAIN + OFFER + b"Origin: http://" + b"a." * (FULL // 2)),
    "jwt": (
        b"",
        PLAIN + OFFER + b"Authorization: Bearer " + b"A" * 4000 + b"." + b"A" * 11_000 + b"." + b"A" * 43,
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_no_head_costs_much(name: str) -> None:
    rules = DoorRules.of(
        settings(
            AERO_L2_OPEN="0",
            AERO_L2_AUTH_MODE="cookie_or_jwt",
            AERO_L2_SESSION_SECRET="s" * 32,
            AERO_L2_JWT_SECRET="j" * 32,
            AERO_L2_JWT_SECRET_PREVIOUS="\n".join(str(number) * 32 for number in range(4)),
            AERO_L2_TRUSTED_PROXIES="192.0.2.1",
            AERO_L2_TRUST_PROXY_HOST="1",
        )
    )
    query, fields = HEADS[name]
    data = BASE % query + fields + b"\r\n\r\n"
    assert len(data) <= 16 * 1024
    costs = []
    for _ in range(5):
        start = time.process_time()
        found = HeadReader().feed(data)
        assert found is not None
        head = found[0]
        how = rules.via("192.0.2.1", head)
        head.tokens("Connection")
        accept(head)
        judged = judge(Upgrade(head, how), rules)
        costs.append((time.process_time() - start) * 1000)
        assert isinstance(judged, Refusal)
    assert min(costs) < MOST_MS, f"{min(costs):.2f} ms"


def test_lists_are_read_up_to_a_number_of_elements() -> None:
    for lines in (b"X: " + b"a," * 200, b"X: a\r\n" * 100 + b"X: b", b"X: " + b"," * 200):
        found = HeadReader().feed(b"GET / HTTP/1.1\r\n" + lines + b"\r\n\r\n")
        assert found is not None
        assert len(found[0].elements("X")) <= MAX_ELEMENTS


def test_reading_that_hangs_does_not_keep_the_process() -> None:
    program = (
        "import asyncio, time\n"
        "from aero_l2.door.reload import _on_a_thread\n"
        "async def main():\n"
        "    await asyncio.wait((_on_a_thread(lambda: time.sleep(60)),), timeout=0.1)\n"
        "asyncio.run(main())\n"
    )
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)
    assert time.monotonic() - start < 20
