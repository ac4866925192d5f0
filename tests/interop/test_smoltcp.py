"""smoltcp as a Rust program on the WebSocket, with the DHCP and DNS clients that it brings."""

from support.programs import prove
from support.proxy import RunAs
from support.world import World


def test_smoltcp_gets_all_the_network_it_is_promised(world: World, proxy_as: RunAs) -> None:
    prove("smoltcp", "smoltcp 0.12, a Rust program", "smoltcp", world, proxy_as)
