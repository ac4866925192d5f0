"""What a taken-over server can do: nothing beyond its own sockets, with and without the seccomp filter."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.launched import run_as_server
from support.ns import Namespace, namespace

from netns.ruleset import COUNTERS, LOST_COUNTERS

SERVERS = Path(__file__).parent / "servers"


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    with namespace("walls") as made:
        yield made


@pytest.fixture
def owned_by_root(tmp_path: Path) -> Path:
    """A file of root's that anyone may find and read."""
    file = tmp_path / "owned-by-root"
    file.write_text("untouched")
    tmp_path.chmod(0o755)
    return file


@pytest.mark.parametrize("wall", ["seccomp", "capabilities"])
def test_taken_over_server_gets_nowhere(host: Namespace, owned_by_root: Path, wall: str) -> None:
    outcomes = run_as_server(SERVERS / "taken_over.py", host, wall, str(owned_by_root))
    outcomes.pop("stderr")
    assert len(outcomes) >= 20
    got = {name: outcome for name, outcome in outcomes.items() if not outcome.startswith("refused")}
    assert got == {}
    for request in ("copy whole packets", "hear of another log", "list connections", "forget connections"):
        assert "not permitted" in outcomes[request], "an answer of the kernel, and no other failure"
    assert owned_by_root.read_text() == "untouched"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_netd_survives_any_nonsense_and_still_makes_tunnels(host: Namespace, seed: int) -> None:
    result = run_as_server(SERVERS / "hostile_to_netd.py", host, str(seed), "500")
    assert result["netd_restarted"] is False
    assert set(result["counters"]) == {*COUNTERS, *LOST_COUNTERS}
    assert "Traceback" not in result["stderr"]
