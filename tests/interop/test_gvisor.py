"""gVisor's network stack as a Go program on the WebSocket, with a WebSocket, DHCP and DNS of others."""

from support.programs import closed_proxy, run_twice
from support.proxy import RunAs
from support.world import World
from support.zoo import Row, record


def test_gvisor_gets_all_the_network_it_is_promised(world: World, proxy_as: RunAs) -> None:
    with closed_proxy(world, proxy_as) as proxy:
        outcome = run_twice("gvisor", proxy)
    record(
        Row(
            guest="gVisor netstack, a Go program",
            stack="gVisor",
            card="WebSocket",
            lease="yes, renewed",
            dns="over UDP, TCP",
            tcp="16 MiB each way",
            udp="echo",
            seconds=outcome.seconds,
        )
    )
