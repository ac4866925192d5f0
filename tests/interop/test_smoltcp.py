"""smoltcp as a Rust program on the WebSocket, with the DHCP and DNS clients that it brings."""

import tomllib
from pathlib import Path

from support.programs import prove
from support.proxy import RunAs
from support.world import World


def test_smoltcp_gets_all_the_network_it_is_promised(world: World, proxy_as: RunAs) -> None:
    locked = tomllib.loads((Path(__file__).parent / "smoltcp/Cargo.lock").read_text())
    (version,) = [crate["version"] for crate in locked["package"] if crate["name"] == "smoltcp"]
    prove("smoltcp", f"smoltcp {version}, a Rust program", "smoltcp", world, proxy_as)
