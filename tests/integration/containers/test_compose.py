"""compose.yaml under docker-compose 1.29: the first start, the edge, its reload, the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from support import addresses as at
from support.containers.compose import Stack
from support.containers.compose import stack as make_stack
from support.containers.docker import DockerHost
from support.edge import NAME, ORIGIN, SECRET
from support.nsguest import ns_guest
from support.rawguest import RawGuest
from support.tunnel import RefusedError
from support.wait import until

pytestmark = pytest.mark.slow

HERE = "localhost:8443"
SITE = f"""\
AERO_L2_ALLOWED_ORIGINS={ORIGIN}
AERO_L2_ALLOWED_HOSTS={NAME}
AERO_L2_DNS_SERVERS={at.NAMESERVER}
SESSION_SECRET={SECRET}
EDGE_BIND=0.0.0.0
EDGE_NAMES=localhost 127.0.0.1
"""


@pytest.fixture(scope="module")
def stack(docker_host: DockerHost, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with make_stack(docker_host, tmp_path_factory.mktemp("compose")) as made:
        yield made


async def test_without_configuration_it_serves_this_machine_alone_and_who_has_the_key(stack: Stack) -> None:
    stack.up()
    stack.visitors, stack.address = stack.world.host, at.LOOPBACK
    with pytest.raises(RefusedError, match="401"):
        async with stack.tunnel(None, origin=f"https://{HERE}"):
            pass
    key = stack.compose("exec", "-T", "aero-l2-proxy", "cat", "/var/lib/aero-l2/api-key").strip()
    offered = {"Sec-WebSocket-Protocol": f"aero-l2-token.{key}"}
    async with stack.tunnel(None, offered, f"https://{HERE}") as tunnel:
        lease = await RawGuest(tunnel).dhcp()
        assert lease["address"] == at.GUEST
    said = stack.logs()
    assert "guests are kept away from this machine's addresses: " in said
    assert at.HOST_PUBLIC in said
    assert key not in said
    with pytest.raises(ConnectionRefusedError):
        stack.world.other.connect(at.HOST_PRIVATE, 8443)


async def test_with_its_file_a_page_with_the_gateways_cookie_gets_dns_and_http(stack: Stack) -> None:
    (stack.folder / "deploy/.env").write_text(SITE)
    stack.up()
    stack.name, stack.visitors, stack.address = NAME, stack.world.other, at.HOST_PRIVATE
    async with stack.tunnel("alice") as tunnel, ns_guest(tunnel, static=False) as guest:
        await guest.lease()
        assert await guest.run("curl", "-sS", "http://web.example.test/hello") == at.HELLO
        status, _, _ = await guest.attempt("curl", "-sS", "-m", "5", f"http://{at.HOST_PUBLIC}:80/")
        assert status == 7, "the machine's own address is within reach"


def test_commands_of_the_checklist_answer_and_leave_the_stack_alone(stack: Stack) -> None:
    run = ("run", "--rm", "aero-l2-proxy")
    denied = stack.attempt(*run, "policy", "explain", f"{at.HOST_PUBLIC}:443")
    assert (denied.returncode, "AERO_L2_DENIED_CIDRS" in denied.stdout) == (1, True), denied
    assert stack.attempt(*run, "policy", "explain", f"{at.WEB}:22").returncode == 1
    assert stack.attempt(*run, "policy", "explain", f"{at.WEB}:443").returncode == 0
    assert "AERO_L2_MAX_CONNECTIONS_PER_IP" in stack.compose(*run, "serve", "--check")
    zeros = stack.compose("exec", "-T", "aero-l2-proxy", "grep", "CapEff", "/proc/1/status").split()[1]
    assert int(zeros, 16) == 0


async def test_forged_headers_do_not_fool_the_limit(stack: Stack) -> None:
    async with AsyncExitStack() as tunnels:
        for number in range(5):
            forged = {"X-Forwarded-For": f"9.9.9.{number}", "Forwarded": f"for=9.9.8.{number}"}
            tunnel = stack.tunnel(f"forger-{number}", forged)
            if number < 4:
                await tunnels.enter_async_context(tunnel)
                continue
            with pytest.raises(RefusedError, match="max connections per ip exceeded"):
                await tunnels.enter_async_context(tunnel)
    assert f'"client": "{at.OTHER}"' in stack.logs()
    assert "9.9.9." not in stack.logs()


async def test_reload_of_the_edge_keeps_tunnels_and_stop_says_goodbye(stack: Stack) -> None:
    async with stack.tunnel("alice") as tunnel:
        guest = RawGuest(tunnel)
        await guest.dhcp()
        stack.compose("kill", "-s", "HUP", "aero-l2-edge")
        async with stack.tunnel("bob") as newer:
            await newer.ping(b"after the reload")
        assert (await guest.resolve("web.example.test")).ancount == 1
        stack.compose("stop")
        await until(lambda: not tunnel.is_open, "the tunnel is closed")
    assert (tunnel.close_code, tunnel.close_reason) == (1001, "shutting down")
    ended = {one.name: one.attrs["State"]["ExitCode"] for one in stack.host.client.containers.list(all=True)}
    assert set(ended.values()) == {0}, ended


def test_down_leaves_nothing(stack: Stack) -> None:
    stack.compose("down", "-v")
    client = stack.host.client
    assert client.containers.list(all=True) == []
    assert client.volumes.list() == []
    assert {one.name for one in client.networks.list()} == {"bridge", "host", "none"}
