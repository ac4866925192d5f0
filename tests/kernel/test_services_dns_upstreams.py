"""Which upstreams are asked: those of the settings, or those of the host's file as it changes."""

from collections.abc import Iterator
from pathlib import Path

import dns.rcode
import pytest
from kernel.test_services_dns_lab import FIRST, SECOND, WEB, Lab, Upstream, lab, says
from support.wait import retry

from aero_l2.config.nameservers import name_servers
from aero_l2.services.dns.resolver import ResolverSettings
from aero_l2.services.dns.server import DnsServer

OTHER_WEB = "93.184.216.35"


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("given", "place"),
    [
        (SECOND, SECOND),
        (f"{FIRST}:5353", f"{FIRST}#5353"),
        ("::1", "::1"),
        ("[::1]:5353", "::1#5353"),
        (f"127.0.0.99,{SECOND}", SECOND),
    ],
)
def test_given_servers_are_asked_instead_of_the_hosts(ground: Lab, given: str, place: str) -> None:
    hosts, asked = Upstream(says("60 A 6.6.6.6")), Upstream(says(f"60 A {WEB}"))
    ground.settings = ResolverSettings(servers=name_servers(given))
    ground.resolv_conf = f"nameserver {FIRST}\n"

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert (await ground.ask("x.test.")).answer[0][0].to_text() == WEB
        assert len(asked.asked) == 1
        assert hosts.asked == []

    ground.play({FIRST: hosts, place: asked}, scenario)


@pytest.mark.slow
def test_changed_resolv_conf_is_followed_while_it_serves(ground: Lab) -> None:
    ground.resolv_conf = f"nameserver {FIRST}\n"

    async def address(ground: Lab) -> str:
        return (await ground.ask("x.test.")).answer[0][0].to_text()

    async def new_address(ground: Lab) -> str | None:
        found = await address(ground)
        return found if found != WEB else None

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert await address(ground) == WEB
        conf = ground.folder / "resolv.conf"
        conf.unlink()
        assert await address(ground) == WEB
        conf.write_text(f"nameserver {SECOND}\n")
        assert await retry(lambda: new_address(ground), "the new server is asked") == OTHER_WEB

    ground.play({FIRST: Upstream(says(f"60 A {WEB}")), SECOND: Upstream(says(f"60 A {OTHER_WEB}"))}, scenario)


@pytest.mark.slow
def test_resolv_conf_that_comes_after_the_start_is_used(ground: Lab) -> None:
    ground.resolv_conf = "# not yet\n"

    async def answer(ground: Lab) -> str | None:
        found = await ground.ask("x.test.")
        return found.answer[0][0].to_text() if found.rcode() == dns.rcode.NOERROR else None

    async def scenario(ground: Lab, server: DnsServer) -> None:
        assert await answer(ground) is None
        (ground.folder / "resolv.conf").write_text(f"nameserver {FIRST}\n")
        assert await retry(lambda: answer(ground), "the server is found") == WEB

    ground.play({FIRST: Upstream(says(f"60 A {WEB}"))}, scenario)
