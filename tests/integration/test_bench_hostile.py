"""`./dev bench --url` against servers that are no tunnel's: one line, exit status 1, and no token."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support.hostile import SWITCHING, Served, serving

from bench.beginning import LIMIT_S

pytestmark = pytest.mark.slow

TREE = Path(__file__).parents[2]
TOKEN = "very-secret-token"
WITH_PEER = ("--only", "latency", "--peer", "192.0.2.7")


def bench(port: int, *words: str, scheme: str = "ws") -> str:
    """What a run that fails says."""
    url = f"{scheme}://127.0.0.1:{port}/l2?token={TOKEN}"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--url", url, "--quick", *words],
        cwd=TREE,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 1, done.stderr
    assert TOKEN[:6] not in done.stdout + done.stderr
    said = [line for line in done.stderr.splitlines() if "without --peer nothing is sent" not in line]
    assert len(said) == 1, done.stderr
    assert said[0].isprintable()
    assert said[0].startswith("bench: ")
    return said[0]


def garbage(served: Served) -> None:
    """It repeats the request's first line, with the token at a place where it was cut once."""
    request = served.head()
    assert TOKEN.encode() in request.splitlines()[0]
    served.send(b"HTTP/1.1 404 \x1b]0;pwn\x07" + b"x" * 275 + TOKEN.encode() + b"\r\n\r\n")


@pytest.mark.parametrize("words", [WITH_PEER, ("--only", "opening")])
def test_server_that_is_none_is_said_in_a_line(words: tuple[str, ...]) -> None:
    with serving(garbage) as port:
        assert "HTTP/1.1 404 ?]0;pwn?" in bench(port, *words)


@pytest.mark.parametrize("words", [WITH_PEER, ("--only", "opening")])
def test_server_without_tls_is_said_in_a_line(words: tuple[str, ...]) -> None:
    def behave(served: Served) -> None:
        served.connection.recv(9)
        served.last(b"HTTP/1.1 400 no TLS here\r\n\r\n")

    with serving(behave) as port:
        assert "[SSL" in bench(port, *words, scheme="wss")


def test_refused_connection_is_said_in_a_line() -> None:
    with serving(garbage) as port:
        pass
    assert "Connection refused" in bench(port, *WITH_PEER)


def test_token_stands_in_no_command_line_of_ours() -> None:
    """But in the one that was typed."""
    seen: list[bytes] = []
    is_asked = threading.Event()

    def behave(served: Served) -> None:
        served.head()
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                seen.append((folder / "cmdline").read_bytes())
        is_asked.set()

    with serving(behave) as port:
        bench(port, "--only", "opening")
        assert is_asked.wait(10)
        mine = [line for line in seen if f":{port}/".encode() in line or b"bench.openings" in line]
    assert any(b"bench.openings" in line for line in mine)
    assert [line for line in mine if TOKEN.encode() in line and b"--url" not in line] == []


@pytest.mark.parametrize("data", [b"", SWITCHING, b"H"], ids=["silent", "no lease", "endless head"])
def test_hostile_server_does_not_keep_a_run(data: bytes) -> None:
    """Handshake and lease have one deadline."""

    def behave(served: Served) -> None:
        served.head()
        served.send(data)
        served.forever(b"\x82\x04\xa2\x03\0\0" if data == SWITCHING else data, 0.5)

    began = time.monotonic()
    with serving(behave) as port:
        assert f"within {LIMIT_S} s" in bench(port, *WITH_PEER)
    assert time.monotonic() - began < LIMIT_S + 10
