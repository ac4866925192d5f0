"""Guests that are programs: a network stack straight on the WebSocket, built by ``./dev interop``.

They run in the namespace of the world's third machine, which reaches the host and nothing else: what they
see of the internet came through the tunnel.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import addresses as at
from support import guests
from support.hostile import Behaviour, Served, serving
from support.proxy import AS_USER, Proxy, RunAs, run_proxy
from support.wait import wait_until
from support.world import World
from support.zoo import Row, record

_BUILT = Path(__file__).resolve().parents[2] / ".cache/interop"
_RUN_S = 180  # the programs give up after 170 s, about fifty times what they take on an idle machine
_PAGE = "https://lab.example"
_KEY = "a-key-of-the-test-0123456789"


@contextmanager
def closed_proxy(world: World, run_as: RunAs) -> Iterator[Proxy]:
    """A proxy that listens on every address of the host, for one Origin and who has the key."""
    settings = {
        "AERO_L2_AUTH_MODE": "token",
        "AERO_L2_API_KEY": _KEY,
        "AERO_L2_OPEN": "0",
        "AERO_L2_ALLOWED_ORIGINS": _PAGE,
    }
    with run_proxy(world, run_as, settings, ready=False, options=("--bind", "0.0.0.0:0")) as proxy:
        wait_until(lambda: proxy.get("/readyz")[0] == 200, "it can make tunnels", 60)
        yield proxy


@dataclass(frozen=True)
class Outcome:
    """How a program's run ended."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def checks(self) -> tuple[str, ...]:
        """What it saw, line by line; compare with ``guests.EXPECTED``."""
        return guests.checks(self.stdout)


def _program(name: str) -> Path:
    program = _BUILT / name
    assert program.is_file(), f"{program.name} is not built: run ./dev interop"
    return program


def run(name: str, proxy: Proxy) -> Outcome:
    """Run a program on a tunnel of the proxy, as a user with no rights."""
    program = _program(name)
    url = f"ws://{at.HOST_PRIVATE}:{proxy.port}/l2?token={_KEY}"
    began = time.monotonic()
    done = subprocess.run(
        proxy.world.other.enter(*AS_USER, str(program), url, _PAGE, at.WEB),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_RUN_S,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr, time.monotonic() - began)


def prove(name: str, guest: str, stack: str, world: World, run_as: RunAs) -> None:
    """Run a program twice behind a proxy of its own, and record what it was seen to do."""
    with closed_proxy(world, run_as) as proxy:
        outcome = run_twice(name, proxy)
    lists = {"lease": "yes, renewed", "dns": "over UDP, TCP", "tcp": "16 MiB each way", "udp": "echo"}
    record(Row(guest=guest, stack=stack, card="WebSocket", **lists, seconds=outcome.seconds))


def run_twice(name: str, proxy: Proxy) -> Outcome:
    """Run a program and hold it to what every guest has to show; twice, so that a tunnel leaves nothing to
    the next."""
    for number in (1, 2):
        outcome = run(name, proxy)
        shown = f"{outcome.stdout}{outcome.stderr}--- proxy ---\n{proxy.log}"
        assert outcome.checks == guests.EXPECTED, shown
        assert (outcome.status, outcome.stderr) == (0, ""), shown
        proxy.wait_settled()
        carried = (proxy.metric("l2_bytes_rx_total"), proxy.metric("l2_bytes_tx_total"))
        assert min(carried) > number * at.PAYLOAD_BYTES, f"{carried}: it went another way\n{shown}"
        assert proxy.metric("l2_sessions_total") == number, shown
    assert _KEY not in proxy.log
    return outcome


def _half_of_a_head(served: Served) -> None:
    served.head()
    served.send(b"HTTP/1.1 101 Switching Protocols\r\nX: ")
    served.forever(b"x", 0.1)


def _dribble(served: Served) -> None:
    """A tunnel on which nothing comes but PINGs, and no answer to a close."""
    served.upgrade()
    served.forever(b"\x82\x04\xa2\x03\x01\0", 0.1)


HOSTILE: dict[str, Behaviour] = {
    "silence": Served.silence,
    "endless head": _half_of_a_head,
    "no lease": _dribble,
}


def prove_it_ends(name: str, behaviour: Behaviour) -> None:
    """Run a program, with a few seconds for it, against a server that is none."""
    with serving(behaviour) as port:
        done = _run_alone(name, port, "3")
    assert done.returncode == 1, done.stderr
    assert "not done after 3s" in done.stderr
    assert _KEY not in done.stdout + done.stderr


def prove_it_hides_the_token(name: str) -> None:
    """Run a program where nothing listens any more."""
    with serving(Served.silence) as port:
        pass
    done = _run_alone(name, port)
    assert done.returncode == 1, done.stderr
    assert "refused" in done.stderr
    assert _KEY not in done.stdout + done.stderr


def _run_alone(name: str, port: int, *seconds: str) -> subprocess.CompletedProcess[str]:
    url = f"ws://127.0.0.1:{port}/l2?token={_KEY}"
    command = (str(_program(name)), url, _PAGE, at.WEB, *seconds)
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_RUN_S)
