"""How commands that are clients learn of the server and of the secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aero_l2.cli.reach import MAX_TOKEN_BYTES

CANARY = "canary-5e3c.r3t"
SHOW = """
import sys, typer
from aero_l2.cli import program
from aero_l2.cli.reach import CaFile, Deliver, OpenTimeout, Origin, Token, TokenFile, Url, reach
from aero_l2.client import Delivery
def show(url: Url, token: Token = None, token_file: TokenFile = None, deliver: Deliver = Delivery.SUBPROTOCOL,
         origin: Origin = None, ca_file: CaFile = None, open_timeout: OpenTimeout = 10.0) -> None:
    found = reach(url, token, token_file, deliver, origin, ca_file, open_timeout)
    print(found.target, found.options, file=sys.stderr)
    print(found.target.origin, found.target.url, *found.target.subprotocols, *found.target.headers)
program.app.command()(show)
program.run()
"""


def run(
    *arguments: str, environment: dict[str, str] | None = None, stdin: bytes = b""
) -> tuple[int, str, str]:
    """The options read by a command: status, what it found, what it says."""
    done = subprocess.run(
        [sys.executable, "-c", SHOW, "show", *arguments],
        input=stdin,
        capture_output=True,
        env={"PATH": os.environ["PATH"], **(environment or {})},
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("way", ["option", "file", "stdin", "environment", "environment file"])
def test_secret_is_read_from_each_place_and_not_shown(tmp_path: Path, way: str) -> None:
    file = tmp_path / "token"
    file.write_text(f" {CANARY}\n")
    arguments, environment = {
        "option": (("--token", CANARY), {}),
        "file": (("--token-file", str(file)), {"AERO_L2_CLIENT_TOKEN": "other"}),
        "stdin": (("--token-file", "-"), {}),
        "environment": ((), {"AERO_L2_CLIENT_TOKEN": CANARY, "AERO_L2_CLIENT_TOKEN_FILE": " "}),
        "environment file": ((), {"AERO_L2_CLIENT_TOKEN_FILE": str(file)}),
    }[way]
    status, found, said = run("ws://h", *arguments, environment=environment, stdin=CANARY.encode())
    assert status == 0, said
    assert found.split() == ["http://h", "ws://h/l2", "aero-l2-tunnel-v1", f"aero-l2-token.{CANARY}"]
    assert CANARY not in said


def test_without_a_secret_none_is_sent() -> None:
    assert run("ws://h", environment={"AERO_L2_CLIENT_TOKEN": " "})[1].split() == [
        *("http://h", "ws://h/l2", "aero-l2-tunnel-v1"),
    ]


@pytest.mark.parametrize(
    ("deliver", "sent"),
    [
        ("query", f"ws://h/l2?token={CANARY}"),
        ("bearer", f"Bearer {CANARY}"),
        ("cookie", f"aero_session={CANARY}"),
        ("subprotocol", f"aero-l2-token.{CANARY}"),
    ],
)
def test_secret_travels_as_asked(deliver: str, sent: str) -> None:
    assert sent in run("ws://h", "--token", CANARY, "--deliver", deliver)[1]


def test_origin_is_settable() -> None:
    assert run("ws://h", "--origin", "https://app.example")[1].split()[0] == "https://app.example"
    assert run("ws://h", "--origin", "")[1].split()[0] == "None"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nonsense",), "not an address"),
        (("ws://h", "--token", CANARY, "--token-file", "x"), "both given: leave one out"),
        (("ws://h", "--token", " "), "--token is empty"),
        (("ws://h", "--token", CANARY + "/"), "deliver it in the query instead"),
        (("ws://h", "--token-file", "/nowhere/at\x1ball"), "--token-file=/nowhere/at?all: No such file"),
        (("ws://h", "--token-file", "/"), "Is a directory"),
        (("ws://h", "--token-file", "/dev/null"), "is empty"),
        (("ws://h", "--token-file", "/dev/zero"), f"more than {MAX_TOKEN_BYTES} bytes"),
        (("ws://h", "--token-file", sys.executable), "more than"),
        (("ws://h", "--origin", "h"), "not an Origin: h"),
        (("ws://h", "--ca-file", "/dev/null"), "--ca-file is for wss:// addresses"),
        (("wss://h", "--ca-file", "/nowhere"), "cannot read certificates from /nowhere"),
        (("ws://h", "--open-timeout", "nan"), "--open-timeout"),
        (("ws://h", "--open-timeout", "0"), "'--open-timeout'"),
        (("ws://h", "--deliver", "pigeon"), "'--deliver': 'pigeon' is not one of"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_status_2(arguments: tuple[str, ...], says: str) -> None:
    status, found, said = run(*arguments)
    assert (status, found) == (2, "")
    assert says in said
    assert said.startswith("aero-l2: ")
    assert said.count("\n") == 1
    assert CANARY not in said


def test_secrets_in_the_environment_that_contradict_are_refused() -> None:
    environment = {"AERO_L2_CLIENT_TOKEN": CANARY, "AERO_L2_CLIENT_TOKEN_FILE": "x"}
    status, _, said = run("ws://h", environment=environment)
    assert (status, "both set: unset one" in said) == (2, True)
    assert CANARY not in said
