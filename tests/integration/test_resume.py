"""A guest's TCP connections survive its WebSocket: `aero-l2 connect`, the real proxy, its NAT process."""

import hashlib
import json
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support import addresses as at
from support.attached import Client, Connect, client
from support.proxy import Proxy, run_proxy
from support.relay import Relay, relay
from support.wait import wait_until
from support.world import World

ECHO = f"""
import socket, sys
connection = socket.create_connection(({at.WEB!r}, {at.ECHO_PORT}), 60)
for line in sys.stdin:
    connection.sendall(line.encode())
    print(connection.makefile("r").readline(), end="", flush=True)
"""
PYTHON = "/usr/bin/python3"
DEADLINE_S = 90


@pytest.fixture(scope="module")
def keeper(world: World) -> Iterator[Proxy]:
    """A proxy that keeps what is lost."""
    with run_proxy(world, "root", {"AERO_L2_RESUME_SECONDS": "60"}) as proxy:
        yield proxy


@pytest.fixture
def wire(keeper: Proxy) -> Iterator[Relay]:
    """What is between client and proxy."""
    with relay(keeper.world.host, keeper.port) as made:
        yield made
    wait_until(lambda: not keeper.with_role("nat"), "every tunnel is undone", DEADLINE_S)


@pytest.fixture(scope="module")
def desk(world: World) -> Iterator[Client]:
    """A machine next to the proxy."""
    with client(world.host, world.resolv_conf) as made:
        yield made


class Echo:
    """A program at the end of the tunnel that has one TCP connection, and says what comes back over it."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._said = ""

    def says(self, line: str) -> None:
        stdin = self._connect.process.stdin
        assert stdin is not None
        stdin.write(f"{line}\n")
        stdin.flush()
        self._said += f"{line}\n"
        ended = self._connect.process.poll
        wait_until(
            lambda: self._connect.output == self._said or ended() is not None, "it comes back", DEADLINE_S
        )
        assert self._connect.output == self._said, self._connect.log


@contextmanager
def echo(desk: Client, wire: Relay, *options: str) -> Iterator[tuple[Connect, Echo]]:
    with desk.connect(wire.url, *options, "--", PYTHON, "-c", ECHO, run_as="root") as connect:
        yield connect, Echo(connect)


def test_a_tcp_connection_survives_its_websocket(keeper: Proxy, desk: Client, wire: Relay) -> None:
    local = f"{at.WEB}:{at.ECHO_PORT}"
    before = len(keeper.world.internet_services.reached(local))
    with echo(desk, wire) as (connect, program):
        program.says("before")
        namespaces = keeper.namespaces()
        nat = keeper.with_role("nat")
        for turn in range(1, 4):
            wire.cut()
            connect.wait_said("tunnel resumed", turn, DEADLINE_S)
            program.says(f"after {turn}")
        assert wire.count == 4
        assert keeper.namespaces() == namespaces
        assert keeper.with_role("nat") == nat
        assert len(keeper.world.internet_services.reached(local)) == before + 1
        assert keeper.metric("l2_sessions_active") == 1
    assert '"event": "tunnel kept"' in keeper.log
    assert '"event": "tunnel resumed"' in keeper.log
    assert "Traceback" not in keeper.log
    assert "Traceback" not in connect.log


def test_a_connection_that_is_dead_and_not_closed_is_taken_over(
    keeper: Proxy, desk: Client, wire: Relay
) -> None:
    with echo(desk, wire, "--keepalive", "1") as (connect, program):
        program.says("before")
        wire.silence()
        connect.wait_said("it does not answer any more", 1, DEADLINE_S)
        connect.wait_said("tunnel resumed", 1, DEADLINE_S)
        program.says("after")
        assert keeper.metric("aero_l2_sessions_kept") == 0
    [line] = [line for line in keeper.get("/metrics")[1].splitlines() if "taken_over" in line]
    assert line == 'aero_l2_resumes_total{result="taken_over"} 1.0'


@pytest.mark.slow
def test_a_download_arrives_intact_over_a_wire_that_breaks_again_and_again(
    keeper: Proxy, desk: Client, wire: Relay
) -> None:
    fetch = f"curl -sS --max-time 80 --limit-rate 4M http://{at.WEB}/16MiB | sha256sum"
    with desk.connect(wire.url, "--", "sh", "-c", fetch, run_as="root") as connect:
        connect_is_on = connect.process.poll
        for turn in range(1, 4):
            received = keeper.metric("l2_frames_tx_total")
            wait_until(
                lambda seen=received: keeper.metric("l2_frames_tx_total") > seen + 500,  # type: ignore[misc]
                "it goes on",
                DEADLINE_S,
            )
            assert connect_is_on() is None
            wire.cut()
            connect.wait_said("tunnel resumed", turn, DEADLINE_S)
        assert connect.wait(DEADLINE_S) == 0
    assert connect.output.split()[0] == at.payload_sha256()
    assert hashlib.sha256(at.payload()).hexdigest() == at.payload_sha256()


def test_a_client_that_ends_properly_leaves_nothing_kept(keeper: Proxy, desk: Client, wire: Relay) -> None:
    with echo(desk, wire) as (connect, program):
        program.says("before")
        connect.end(signal.SIGTERM)
        wait_until(lambda: keeper.metric("l2_sessions_active") == 0, "it is released", DEADLINE_S)
    assert keeper.metric("aero_l2_sessions_kept") == 0


@pytest.mark.slow
def test_the_process_ends_at_once_with_what_it_keeps(world: World, desk: Client) -> None:
    with run_proxy(world, "root", {"AERO_L2_RESUME_SECONDS": "600"}) as proxy:
        with relay(world.host, proxy.port) as wire, echo(desk, wire) as (connect, program):
            program.says("before")
            connect.process.send_signal(signal.SIGSTOP)
            try:
                wire.cut()
                wait_until(lambda: proxy.metric("aero_l2_sessions_kept") == 1, "it is kept", DEADLINE_S)
                proxy.terminate()
                assert proxy.wait(DEADLINE_S) == 0
            finally:
                connect.process.send_signal(signal.SIGCONT)
        closed = [json.loads(line) for line in proxy.log.splitlines() if '"tunnel closed"' in line]
        assert [line["reason"] for line in closed] == ["shutdown"]
        assert not re.search(r"[0-9A-Za-z_-]{32}", "".join(map(str, closed)))
