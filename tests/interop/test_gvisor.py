"""gVisor's network stack as a Go program on the WebSocket, with a WebSocket, DHCP and DNS of others."""

import pytest
from support.hostile import Behaviour
from support.programs import HOSTILE, prove, prove_it_ends, prove_it_hides_the_token
from support.proxy import RunAs
from support.world import World


def test_gvisor_gets_all_the_network_it_is_promised(world: World, proxy_as: RunAs) -> None:
    prove("gvisor", "gVisor netstack, a Go program", "gVisor", world, proxy_as)


@pytest.mark.parametrize("behaviour", HOSTILE.values(), ids=HOSTILE)
def test_gvisor_ends_whatever_the_server_does(behaviour: Behaviour) -> None:
    prove_it_ends("gvisor", behaviour)


def test_gvisor_shows_no_token_where_nobody_listens() -> None:
    prove_it_hides_the_token("gvisor")
