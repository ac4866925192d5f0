"""Which resolvers are asked: those given, or those of a resolv.conf that changes."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from aero_l2.config import load
from aero_l2.config.nameservers import NameServer, name_servers
from aero_l2.config.show import shown
from aero_l2.errors import ConfigError
from aero_l2.services.dns.nameservers import LOOK_EVERY_S, MAX_FILE_BYTES, GivenServers, HostServers


@pytest.mark.parametrize(
    ("value", "servers"),
    [
        ("", ()),
        ("192.0.2.53", (NameServer("192.0.2.53", 53),)),
        (" 192.0.2.53:5353 ,, ", (NameServer("192.0.2.53", 5353),)),
        ("2001:DB8::53", (NameServer("2001:db8::53", 53),)),
        ("[2001:db8::53]", (NameServer("2001:db8::53", 53),)),
        ("[::1]:5353,127.0.0.1", (NameServer("::1", 5353), NameServer("127.0.0.1", 53))),
        ("fe80::1%eth0", (NameServer("fe80::1%eth0", 53),)),
        ("127.0.0.1,127.0.0.1:54", (NameServer("127.0.0.1", 53), NameServer("127.0.0.1", 54))),
    ],
)
def test_dns_servers_are_read(value: str, servers: tuple[NameServer, ...]) -> None:
    assert name_servers(value) == servers


@pytest.mark.parametrize("value", ["192.0.2.53", "192.0.2.53:5353,2001:db8::53", "[2001:db8::53]:5353"])
def test_servers_are_shown_as_they_are_written(value: str) -> None:
    assert shown(name_servers(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        "dns.example",
        "192.0.2.53:",
        "192.0.2.53:0",
        "192.0.2.53:65536",
        "192.0.2.53:dns",
        "192.0.2.053",
        "192.0.2.53 192.0.2.54",
        "[192.0.2.53]:53",
        "[2001:db8::53",
        "[2001:db8::53]5353",
        "2001:db8::53::1",
        "0.0.0.0",
        "::",
        "224.0.0.251",
        "255.255.255.255",
        "ff02::fb",
        "127.0.0.1,127.0.0.1:53",
        "127.0.0.1,127.0.0.2,127.0.0.3,127.0.0.4",
        ",",
    ],
)
def test_bad_dns_servers_refuse_to_start(value: str) -> None:
    given = {"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1", "AERO_L2_DNS_SERVERS": value}
    with pytest.raises(ConfigError) as caught:
        load(given)
    assert [fault.startswith("AERO_L2_DNS_SERVERS=") for fault in caught.value.faults] == [True]


def test_given_servers_keep_their_order_and_ports() -> None:
    servers = GivenServers(name_servers("[::1]:5353,127.0.0.54"))
    assert [str(server) for server in servers.current()] == ["Do53:::1@5353", "Do53:127.0.0.54@53"]


class Followed:
    """A resolv.conf and a clock that the test moves."""

    def __init__(self, path: Path, content: str | None) -> None:
        self.path = path
        if content is not None:
            path.write_text(content)
        self.now = 100.0
        self.servers = HostServers(path, lambda: self.now)

    def names(self, later_s: float = LOOK_EVERY_S) -> list[str]:
        self.now += later_s
        return [str(server) for server in self.servers.current()]


ONE, OTHER = ["Do53:127.0.0.53@53"], ["Do53:127.0.0.54@53"]


@pytest.fixture
def followed(tmp_path: Path) -> Followed:
    return Followed(tmp_path / "resolv.conf", "nameserver 127.0.0.53\n")


def test_changed_resolv_conf_is_read_again_at_most_once_a_second(followed: Followed) -> None:
    assert followed.names(0) == ONE
    followed.path.write_text("nameserver 127.0.0.54\n")
    assert followed.names(LOOK_EVERY_S / 2) == ONE
    assert followed.names(LOOK_EVERY_S / 2) == OTHER


def test_resolv_conf_that_is_replaced_is_seen_whatever_its_time_and_size(followed: Followed) -> None:
    before = os.stat(followed.path)
    new = followed.path.with_name("new")
    new.write_text("nameserver 127.0.0.54\n")
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.rename(followed.path)
    assert followed.names() == OTHER


def test_link_that_moves_to_another_file_is_seen(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).write_text(f"nameserver 127.0.0.5{3 if name == 'one' else 4}\n")
    link = tmp_path / "resolv.conf"
    link.symlink_to("one")
    followed = Followed(link, None)
    assert followed.names() == ONE
    link.unlink()
    link.symlink_to("other")
    assert followed.names() == OTHER


@pytest.mark.parametrize("content", [None, "", "# none\n", "x" * (MAX_FILE_BYTES + 1)])
def test_unusable_resolv_conf_keeps_the_servers_and_says_so_once(
    followed: Followed, content: str | None
) -> None:
    with capture_logs() as lines:
        for _ in range(3):
            followed.path.unlink()
            if content is not None:
                followed.path.write_text(content)
                assert followed.names() == ONE
            else:
                assert followed.names() == ONE
                followed.path.touch()
        assert [line["log_level"] for line in lines] == ["warning"]
        followed.path.write_text("nameserver 127.0.0.54\n")
        assert followed.names() == OTHER


def test_resolv_conf_that_comes_later_is_found(tmp_path: Path) -> None:
    with capture_logs() as lines:
        followed = Followed(tmp_path / "resolv.conf", None)
        assert followed.names() == []
    assert [line["log_level"] for line in lines] == ["warning"]
    followed.path.write_text("nameserver 127.0.0.53\n")
    assert followed.names() == ONE


def test_change_beside_the_servers_keeps_the_same_value(followed: Followed) -> None:
    before = followed.servers.current()
    followed.path.write_text("search lab.test\nnameserver 127.0.0.53\n")
    followed.names()
    assert followed.servers.current() is before


def test_three_servers_of_resolv_conf_are_asked(followed: Followed) -> None:
    followed.path.write_text("".join(f"nameserver 127.0.0.{number}\n" for number in range(1, 6)))
    assert followed.names() == [f"Do53:127.0.0.{number}@53" for number in (1, 2, 3)]
