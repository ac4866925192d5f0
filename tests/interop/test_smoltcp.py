"""smoltcp as a Rust program on the WebSocket, with the DHCP and DNS clients that it brings."""

import tomllib
from pathlib import Path

import pytest
from support.hostile import Behaviour
from support.programs import HOSTILE, prove, prove_it_ends, prove_it_hides_the_token
from support.proxy import RunAs
from support.world import World


def test_smoltcp_gets_all_the_network_it_is_promised(world: World, proxy_as: RunAs) -> None:
    locked = tomllib.loads((Path(__file__).parent / "smoltcp/Cargo.lock").read_text())
    (version,) = [crate["version"] for crate in locked["package"] if crate["name"] == "smoltcp"]
    prove("smoltcp", f"smoltcp {version}, a Rust program", "smoltcp", world, proxy_as)


@pytest.mark.parametrize("behaviour", HOSTILE.values(), ids=HOSTILE)
def test_smoltcp_ends_whatever_the_server_does(behaviour: Behaviour) -> None:
    prove_it_ends("smoltcp", behaviour)


def test_smoltcp_shows_no_token_where_nobody_listens() -> None:
    prove_it_hides_the_token("smoltcp")
