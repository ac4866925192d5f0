"""gVisor's network stack as a Go program on the WebSocket, with a WebSocket, DHCP and DNS of others."""

from support.programs import prove
from support.proxy import RunAs
from support.world import World


def test_gvisor_gets_all_the_network_it_is_promised(world: World, proxy_as: RunAs) -> None:
    prove("gvisor", "gVisor netstack, a Go program", "gVisor", world, proxy_as)
