"""A storm at a door: half-open requests that are held, and garbage at a rate. A program of its own.

    storm.py PORT HALF_OPEN PER_SECOND SECONDS

Prints one JSON object at the end: how many of each were sent, and how they were answered.
"""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable

_HEAD = (
    "GET /l2{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
)
_OFFER = "Sec-WebSocket-Protocol: aero-l2-tunnel-v1\r\n"
_JWT = "eyJhbGciOiJIUzI1NiJ9." + "A" * 8000 + "." + "A" * 43
_random = random.Random(4)

GARBAGE: tuple[Callable[[], bytes], ...] = (
    lambda: (
        _HEAD.format(query="", more=_OFFER)
        .replace("Upgrade\r\nU", "Upgrade" + ",a" * 7000 + "\r\nU")
        .encode()
    ),
    lambda: _HEAD.format(query="", more=_OFFER + "Upgrade: a,a,a,a,a,a,a\r\n" * 100).encode(),
    lambda: _random.randbytes(200),
    lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + _random.randbytes(100),
    lambda: _HEAD.format(query="", more="").encode(),
    lambda: _HEAD.format(query="?token=" + "%41" * 2000, more=_OFFER).encode(),
    lambda: _HEAD.format(query="", more=_OFFER + f"Authorization: Bearer {_JWT}\r\n").encode(),
    lambda: _HEAD.format(query="", more=_OFFER + "Cookie: " + "a=b; " * 1500 + "\r\n").encode(),
    lambda: _HEAD.format(query="", more=_OFFER + "Forwarded: " + "for=1.2.3.4," * 800 + "\r\n").encode(),
    lambda: _HEAD.format(query="", more=_OFFER + "Origin: http://evil.example\r\n").encode(),
    lambda: b"GET /l2 HTTP/1.1\r\n" + b"X: y\r\n" * 3000,
    lambda: b"POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n" + bytes(20_000),
)


async def hold(port: int, until: float) -> None:
    """Half a request; whoever is dropped comes again, until the end."""
    while time.monotonic() < until:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /l2 HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            async with asyncio.timeout(until - time.monotonic()):
                await reader.read()
            writer.close()
        except (OSError, TimeoutError):
            pass
        await asyncio.sleep(0.5)


async def throw(port: int, what: bytes, answers: Counter[str]) -> None:
    """One piece of garbage, and what was answered."""
    try:
        async with asyncio.timeout(15):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(what)
            line = await reader.readline()
            answers[line[9:12].decode("latin-1") or "closed"] += 1
            writer.close()
    except TimeoutError:
        answers["none"] += 1
    except OSError:
        answers["reset"] += 1


async def storm(port: int, half_open: int, per_second: int, seconds: float) -> Counter[str]:
    """Everything at once; returns how the garbage was answered."""
    answers: Counter[str] = Counter()
    start = time.monotonic()
    until = start + seconds
    tasks = [asyncio.create_task(hold(port, until)) for _ in range(half_open)]
    for number in range(int(per_second * seconds)):
        await asyncio.sleep(max(0.0, start + number / per_second - time.monotonic()))
        what = GARBAGE[number % len(GARBAGE)]()
        tasks.append(asyncio.create_task(throw(port, what, answers)))
    await asyncio.gather(*tasks)
    return answers


if __name__ == "__main__":
    arguments = sys.argv[1:]
    counted = asyncio.run(storm(int(arguments[0]), int(arguments[1]), int(arguments[2]), float(arguments[3])))
    print(json.dumps(counted))
