"""The examples of docs/auth.md, run as they stand: each proxy with its settings, then its client."""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import addresses as at
from support.proxy import run_proxy
from support.world import World

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(
    r"^\#+[ ](?P<heading>[^\n]+)$ | ^```sh\n\#[ ](?P<kind>settings|client)\n(?P<script>.*?)^```$",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_FROM_OUTSIDE = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Example:
    """One heading's pair of blocks."""

    heading: str
    settings: str
    client: str


def examples() -> list[Example]:
    """Every pair in the document."""
    heading, settings, found = "", "", []
    for match in _BLOCK.finditer((ROOT / "docs/auth.md").read_text()):
        if match["heading"]:
            heading = match["heading"]
        elif match["kind"] == "settings":
            settings = match["script"]
        else:
            found.append(Example(heading, settings, match["script"]))
    return found


def exported(script: str) -> dict[str, str]:
    """What a block of settings adds to the environment. It is run once: it makes random keys."""
    done = subprocess.run(
        ["sh", "-euc", f"{script}\nenv -0"],
        cwd=ROOT,
        env=_FROM_OUTSIDE,
        capture_output=True,
        text=True,
        check=True,
    )
    variables = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)
    return {name: value for name, value in variables.items() if name.startswith(("AERO_", "SESSION_"))}


def as_client(
    world: World, script: str, environment: Mapping[str, str]
) -> "subprocess.CompletedProcess[str]":
    """Run a client's block on the proxy's host."""
    return subprocess.run(
        world.host.enter("sh", "-euc", script),
        cwd=ROOT,
        env={**_FROM_OUTSIDE, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_mode_has_an_example() -> None:
    text = " ".join(example.heading + example.settings for example in examples())
    modes = ("none", "session", "token", "jwt", "cookie_or_jwt", "session_or_token", "session_and_token")
    assert [mode for mode in modes if f"`{mode}`" not in text] == []
    assert "POST /session" in text


@pytest.mark.slow
@pytest.mark.parametrize("example", examples(), ids=lambda example: example.heading)
def test_example_opens_a_tunnel(world: World, example: Example) -> None:
    settings = exported(example.settings)
    here = ("--bind", f"{at.LOOPBACK}:8090")  # where the document says
    with run_proxy(world, "user", {"AERO_L2_OPEN": "", **settings}, options=here) as proxy:
        environment = {**settings, "AERO_URL": f"ws://{at.LOOPBACK}:{proxy.port}"}
        done = as_client(world, example.client, environment)
        assert done.returncode == 0, done.stderr
        assert set(done.stdout.split()) == {"open"}
        opened = proxy.metric("l2_sessions_total")
        assert opened >= 1
        without = as_client(world, example.client, {**environment, **dict.fromkeys(settings, "x" * 40)})
        refused = proxy.metric("l2_sessions_total") == opened
        anyone = "`none`" in example.heading or "POST /session" in example.heading
        assert refused != anyone, without.stdout + without.stderr
