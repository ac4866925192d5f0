"""Ordinary programs on Linux's own network stack, through a tunnel at full speed."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import addresses as at
from support import images, zone
from support.nsguest import NamespaceGuest, ns_guest
from support.proxy import Proxy
from support.rawguest import raw_guest


@pytest.fixture
async def guest(proxy: Proxy) -> AsyncIterator[NamespaceGuest]:
    """A Linux guest with the static address, which works without DHCP."""
    async with proxy.tunnel() as tunnel, ns_guest(tunnel) as ready:
        yield ready


async def _curl(guest: NamespaceGuest, *arguments: str) -> bytes:
    return await guest.run("curl", "-sS", "--fail", "--max-time", "50", *arguments)


async def test_dhcp_client_gets_the_lease_and_a_working_network(proxy: Proxy) -> None:
    async with proxy.tunnel() as tunnel, ns_guest(tunnel, static=False) as guest:
        await guest.lease()
        assert f"inet {at.GUEST}/24" in guest.namespace.run("ip", "-4", "address", "show", "eth0")
        assert await _curl(guest, "http://web.example.test/hello") == at.HELLO


async def test_datagram_right_behind_the_upgrade_arrives(proxy: Proxy) -> None:
    """It is sent once, while the tunnel's NAT process still starts."""
    for turn in range(5):
        async with raw_guest(proxy) as guest:
            text = f"at once {turn}".encode()
            assert await guest.udp(at.WEB, at.ECHO_PORT, text, again_s=15) == text


async def test_download_arrives_intact(guest: NamespaceGuest) -> None:
    body = await _curl(guest, f"http://{at.WEB}/16MiB")
    assert hashlib.sha256(body).hexdigest() == at.payload_sha256()


async def test_upload_arrives_intact(guest: NamespaceGuest, tmp_path: Path) -> None:
    (tmp_path / "16MiB").write_bytes(at.payload())
    answer = await _curl(guest, "-T", str(tmp_path / "16MiB"), f"http://{at.WEB}/upload")
    assert answer.decode().strip() == at.payload_sha256()


async def test_half_close_lets_the_answer_come(guest: NamespaceGuest) -> None:
    output = await guest.run(str(images.guestnet()), "half-close", at.WEB, str(at.ECHO_PORT), "20000")
    assert output.decode() == f"{at.TRAILER.decode().strip()} intact 20000 of 20000\n"


async def test_large_datagram_comes_back_whole(guest: NamespaceGuest) -> None:
    """Bigger than the MTU: it travels in fragments both ways."""
    text = "0123456789" * 400
    assert (
        await guest.run(str(images.guestnet()), "udp-echo", at.WEB, str(at.ECHO_PORT), text)
    ).decode() == text + "\n"


async def test_big_answers_are_truncated_over_udp_and_whole_over_tcp(guest: NamespaceGuest) -> None:
    helper, name = str(images.guestnet()), "big.example.test"
    over_udp = (await guest.run(helper, "dns", "udp", at.GATEWAY, name, "TXT")).decode()
    over_tcp = (await guest.run(helper, "dns", "tcp", at.GATEWAY, name, "TXT")).decode()
    assert over_udp.startswith("rcode 0 tc 1 ")
    assert over_tcp.startswith(f"rcode 0 tc 0 answers {len(zone.BIG_TEXT)} ")


@pytest.mark.parametrize("name", ["private.test", "loopback.test", "host.test"])
async def test_names_do_not_lead_to_denied_addresses(guest: NamespaceGuest, name: str) -> None:
    answer = (await guest.run(str(images.guestnet()), "dns", "udp", at.GATEWAY, name, "A")).decode()
    assert answer.startswith("rcode 0 tc 0 answers 0 ")


async def test_denied_addresses_are_removed_from_an_answer_with_others(guest: NamespaceGuest) -> None:
    answer = (await guest.run(str(images.guestnet()), "dns", "udp", at.GATEWAY, "mixed.test", "A")).decode()
    assert answer.startswith("rcode 0 tc 0 answers 1 ")
    assert answer.strip().endswith(at.WEB)


async def test_closed_port_of_the_internet_is_refused_at_once(guest: NamespaceGuest) -> None:
    status, _, errors = await guest.attempt("curl", "-sS", "--max-time", "30", f"http://{at.WEB}:4711/")
    assert status == 7, errors  # curl(1): failed to connect, not a time-out (28)
