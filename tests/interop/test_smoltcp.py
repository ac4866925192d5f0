"""smoltcp as a Rust program on the WebSocket, with the DHCP and DNS clients that it brings."""

from support.programs import closed_proxy, run_twice
from support.proxy import RunAs
from support.world import World
from support.zoo import Row, record


def test_smoltcp_gets_all_the_network_it_is_promised(world: World, proxy_as: RunAs) -> None:
    with closed_proxy(world, proxy_as) as proxy:
        outcome = run_twice("smoltcp", proxy)
    record(
        Row(
            guest="smoltcp 0.12, a Rust program",
            stack="smoltcp",
            card="WebSocket",
            lease="yes, renewed",
            dns="over UDP, TCP",
            tcp="16 MiB each way",
            udp="echo",
            seconds=outcome.seconds,
        )
    )
