"""How many tunnels fit, and what runs out first."""

from hypothesis import given
from hypothesis import strategies as st

from aero_l2.observe.metrics.host import CAPACITY_LIMITS
from aero_l2.quota.capacity import LIMITS, MIB, OUR_OWN, PER_TUNNEL, Limit, Room, Stock, capacity

GIB = 1024 * MIB


def test_setting_binds_on_an_ordinary_host() -> None:
    room = Room(
        pids=Stock(32_768, 32_000, "kernel.pid_max"),
        memory=Stock(4 * GIB, 3 * GIB, "MemAvailable"),
        conntrack=Stock(262_144, 262_000, "net.netfilter.nf_conntrack_max"),
    )
    found = capacity(64, 1375, room, active=0)
    assert found.binding == "setting"
    assert found.text == "at most 64 tunnels at once, by AERO_L2_MAX_CONNECTIONS"
    assert found.exhausted(64) is None  # that is the permits' to say


def test_memory_binds_in_a_small_container() -> None:
    memory = Stock(256 * MIB, 200 * MIB, "memory.max of cgroup /docker/abc")
    found = capacity(64, 1375, Room(memory=memory), active=7)
    assert found.binding == "setting"
    memory = Stock(128 * MIB, 100 * MIB, "memory.max of cgroup /docker/abc")
    found = capacity(64, 1375, Room(memory=memory), active=7)
    assert found.binding == "memory"
    assert found.shares["memory"].tunnels == 7 + (100 - 64) // 2
    assert found.exhausted(24) is None
    assert found.exhausted(25) == (
        "the host has no memory left for another tunnel (memory.max of cgroup /docker/abc)"
    )


def test_large_hosts_keep_a_part_for_others() -> None:
    """A twentieth of the memory, a tenth of the connections."""
    found = capacity(0, 0, Room(memory=Stock(100 * GIB, 5 * GIB, "MemAvailable")), active=3)
    assert found.exhausted(3) is not None
    found = capacity(0, 0, Room(conntrack=Stock(100_000, 10_063, "conntrack")), active=3)
    assert found.shares["conntrack"].tunnels == 3


def test_no_tunnel_more_while_the_kernel_presses_tcp() -> None:
    found = capacity(0, 0, Room(tcp=Stock(100 * MIB, MIB, "net.ipv4.tcp_mem")), active=3)
    assert found.shares["tcp"].tunnels == 3 + 8
    found = capacity(0, 0, Room(tcp=Stock(100 * MIB, -MIB, "net.ipv4.tcp_mem")), active=3)
    assert found.exhausted(3) == (
        "the host has no memory for TCP connections left for another tunnel (net.ipv4.tcp_mem)"
    )


def test_nothing_limits_where_nothing_is_known() -> None:
    found = capacity(0, 0, Room(), active=9)
    assert (found.binding, found.text) == (None, "any number of tunnels")
    assert found.exhausted(1_000_000) is None


def test_ports_bind_where_guests_hold_them() -> None:
    ports = Stock(28_232, 28_232 - 67 * 384, "net.ipv4.ip_local_port_range")
    found = capacity(0, 0, Room(ports=ports), active=67)
    assert found.exhausted(67) == (
        "the host has no UDP ports left for another tunnel (net.ipv4.ip_local_port_range)"
    )
    idle = capacity(0, 0, Room(ports=Stock(28_232, 28_200, "net.ipv4.ip_local_port_range")), active=1000)
    assert idle.exhausted(1000) is None


def test_descriptors_are_the_hosts_to_give() -> None:
    found = capacity(0, 29, Room(), active=0)
    assert found.binding == "files"
    assert found.exhausted(29) == "the host has no file descriptors left for another tunnel (RLIMIT_NOFILE)"


def test_metrics_know_every_limit() -> None:
    assert CAPACITY_LIMITS == LIMITS


STOCKED: list[Limit] = ["pids", "memory", "conntrack", "ports", "tcp"]


@given(
    st.sampled_from(STOCKED), st.integers(1, 1 << 40), st.integers(-(1 << 30), 1 << 40), st.integers(0, 5000)
)
def test_what_is_let_in_leaves_our_own_share(name: Limit, total: int, left: int, active: int) -> None:
    stock = Stock(total, min(left, total), "x")
    share = capacity(0, 0, Room(**{name: stock}), active).shares[name].tunnels
    assert share is not None
    assert share >= active
    more = share - active
    assert more == 0 or stock.left - more * PER_TUNNEL[name] >= OUR_OWN[name]
