"""The image's health check: where it asks, and what it makes of the answer."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from aero_l2.cli.health import address
from aero_l2.config.values import BadValue

_LISTEN = "AERO_L2_PROXY_LISTEN_ADDR"


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, ("127.0.0.1", 8090)),
        ({_LISTEN: " "}, ("127.0.0.1", 8090)),
        ({_LISTEN: "0.0.0.0:9000"}, ("127.0.0.1", 9000)),
        ({_LISTEN: "[::]:9000"}, ("::1", 9000)),
        ({_LISTEN: "192.0.2.7:80"}, ("192.0.2.7", 80)),
        ({_LISTEN: "localhost:81"}, ("localhost", 81)),
        ({"AERO_L2_PROXY_BIND_ADDR": "127.0.0.2:82"}, ("127.0.0.2", 82)),
        ({_LISTEN: "127.0.0.1:83", "AERO_L2_PROXY_BIND_ADDR": "127.0.0.2:82"}, ("127.0.0.1", 83)),
    ],
)
def test_it_asks_where_serve_listens(environment: dict[str, str], asked: tuple[str, int]) -> None:
    assert address(environment) == asked


@pytest.mark.parametrize("value", ["127.0.0.1:0", "8090", "example.test:80"])
def test_what_cannot_be_asked_is_refused(value: str) -> None:
    with pytest.raises(BadValue):
        address({_LISTEN: value})


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that gives this answer to one request, whatever it is; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


def run(listen: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aero_l2.cli.health"]
    environment = {"PATH": os.environ["PATH"], _LISTEN: listen}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 0, "ok"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", 1, "status 503"),
        (b"SSH-2.0-x\r\n", 1, "SSH-2.0-x"),
    ],
)
def test_its_exit_status_says_whether_the_proxy_lives(answer: bytes, status: int, said: str) -> None:
    with answering(answer) as port:
        done = run(f"0.0.0.0:{port}")
    assert done.returncode == status, done.stderr
    assert done.stdout.strip() == f"/healthz of 127.0.0.1 port {port}: {said}"


def test_nobody_there_is_not_alive() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = run(f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert "refused" in done.stdout


def test_address_that_is_none_is_status_2_and_one_line() -> None:
    done = run("here")
    assert done.returncode == 2
    assert done.stderr.startswith("aero-l2: AERO_L2_PROXY_LISTEN_ADDR has no port: ")
    assert len(done.stderr.splitlines()) == 1
