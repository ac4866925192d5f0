"""v86 as npm has it, with iPXE in it: a guest whose emulator knows nothing of the tunnel protocol."""

import time
from collections.abc import Iterator

import pytest
from support import addresses as at
from support.proxy import Proxy, RunAs, run_proxy
from support.v86 import boot_ipxe
from support.world import World
from support.zoo import Row, record

pytestmark = pytest.mark.slow

PAGE = "https://lab.example"
KEY = "a-key-of-the-test-0123456789"
_CHECK = "AERO-CHECK "
_SCRIPT = f"""#!ipxe
ifconf -c dhcp net0 && show net0/ip && show net0/gateway && show net0/dns || echo {_CHECK}no lease
chain http://web.example.test/second.ipxe || echo {_CHECK}no second stage
"""


@pytest.fixture(scope="module")
def raw_proxy(world: World, proxy_as: RunAs) -> Iterator[Proxy]:
    """A proxy with the endpoint for v86, for a page and who has the key."""
    settings = {
        "AERO_L2_RAW_FRAMES": "1",
        "AERO_L2_AUTH_MODE": "token",
        "AERO_L2_API_KEY": KEY,
        "AERO_L2_OPEN": "0",
        "AERO_L2_ALLOWED_ORIGINS": PAGE,
    }
    with run_proxy(world, proxy_as, settings) as proxy:
        yield proxy


def test_v86_gets_lease_dns_and_http_twice_in_a_row(raw_proxy: Proxy) -> None:
    for number, path in enumerate((f"/v86/{KEY}", f"/v86?token={KEY}"), 1):
        relay = f"ws://{at.LOOPBACK}:{raw_proxy.port}{path}"
        started = time.monotonic()
        screen = boot_ipxe(raw_proxy.world.host, relay, PAGE, _SCRIPT, _CHECK)
        seconds = time.monotonic() - started
        shown = f"{screen}\n--- proxy ---\n{raw_proxy.log}"
        lines = [line.strip() for line in screen.splitlines()]
        told = [line for line in lines if line.startswith(("net0.dhcp/", "http://", _CHECK))]
        assert told == [
            f"net0.dhcp/ip:ipv4 = {at.GUEST}",
            f"net0.dhcp/gateway:ipv4 = {at.GATEWAY}",
            f"net0.dhcp/dns:ipv4 = {at.GATEWAY}",
            "http://web.example.test/second.ipxe... ok",
            f"{_CHECK}the second stage came by name",
        ], shown
        raw_proxy.wait_settled()
        assert raw_proxy.metric("l2_sessions_total") == number
        assert raw_proxy.metric("l2_dns_queries_total") >= number
    assert KEY not in raw_proxy.log
    record(Row("iPXE in v86", "iPXE", "ne2k, WebSocket", "yes", "yes", "HTTP chain", "–", seconds))
