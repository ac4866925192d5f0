"""The recipes of docs/policy.md, run as they stand: what the program says then, and its rules."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
_RECIPE = re.compile(r"^(?P<title>[^\n]+:)\n\n```sh\n(?P<script>export .*?)^```$", re.MULTILINE | re.DOTALL)
_ENVIRONMENT = {
    "PATH": f"{ROOT}/.venv/bin:{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin",
    "LANG": "C.UTF-8",
    "AERO_L2_API_KEY": "a-key-0123456789abcdef",
}
_LOAD = "for tap in tap0 tap1; do ip tuntap add $tap mode tap; done; exec nft -f -"
# By the words a recipe begins with: what it lets pass and what it does not, as arguments of `explain`.
VERDICTS: dict[str, tuple[list[str], list[str]]] = {
    "Only the web": (
        ["8.8.8.8:80", "8.8.8.8:443", "8.8.8.8:443 --udp", "10.0.2.2:53 --udp", "10.0.2.2 --ping"],
        ["8.8.8.8:22", "8.8.8.8:25", "8.8.8.8:53 --udp", "8.8.8.8 --ping", "192.168.50.7:443"],
    ),
    "A lab whose machines": (
        ["192.168.50.7:22", "10.98.255.255:80", "10.100.0.1:80", "172.16.0.1 --ping", "8.8.8.8:443"],
        ["10.99.0.1:80", "169.254.169.254:80", "127.0.0.1:80", "10.0.3.2:80", "240.0.0.1:80"],
    ),
    "One private network": (
        ["192.168.50.1:22", "192.168.50.254:53 --udp", "8.8.8.8:443"],
        ["192.168.49.255:22", "192.168.51.0:22", "10.0.0.1:80", "8.8.8.8:25"],
    ),
    "One service of the host": (
        ["10.0.2.2:8080", "8.8.8.8:443"],
        ["10.0.2.2:8081", "127.0.0.1:8080", "10.0.3.2:8080", "10.0.2.2:8080 --udp"],
    ),
    "Forwards only": (
        ["10.0.2.2:8080", "10.0.2.2:53 --udp"],
        ["8.8.8.8:443", "8.8.8.8:53 --udp", "8.8.8.8 --ping", "192.168.50.7:80"],
    ),
}


@dataclass(frozen=True)
class Recipe:
    """The sentence above a block, and the block."""

    title: str
    script: str


def recipes() -> list[Recipe]:
    """Every block of exports in the document."""
    text = (ROOT / "docs/policy.md").read_text()
    return [Recipe(match["title"], match["script"]) for match in _RECIPE.finditer(text)]


def run(recipe: Recipe, command: str) -> "subprocess.CompletedProcess[str]":
    """A command line of the program after the lines of a recipe."""
    script = f"{recipe.script}\naero-l2 {command}"
    return subprocess.run(
        ["sh", "-euc", script], env=_ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )


def test_every_verdict_belongs_to_a_recipe() -> None:
    titles = [recipe.title for recipe in recipes()]
    assert [start for start in VERDICTS if not any(title.startswith(start) for title in titles)] == []


@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.title)
def test_recipe_does_what_it_says(recipe: Recipe) -> None:
    checked = run(recipe, "serve --check")
    assert (checked.returncode, checked.stderr) == (0, "")
    shown = run(recipe, "policy show")
    assert shown.returncode == 0
    judged = subprocess.run(
        ["unshare", "--net", "sh", "-euc", _LOAD],
        input=shown.stdout,
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert judged.returncode == 0, judged.stderr
    passing, refused = next((v for start, v in VERDICTS.items() if recipe.title.startswith(start)), ([], []))
    got = {words: run(recipe, f"policy explain {words}") for words in (*passing, *refused)}
    wrong = [
        f"{words}: {done.stdout}{done.stderr}"
        for words, done in got.items()
        if done.returncode != (0 if words in passing else 1)
    ]
    assert wrong == []
