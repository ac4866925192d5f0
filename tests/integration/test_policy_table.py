"""The egress policy through the whole proxy, with targets that really listen: what a guest is told, and
whether anything arrived at the far end."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import pytest
from support import addresses as at
from support.proxy import Proxy, RunAs, run_proxy
from support.rawguest import raw_guest
from support.registry import OF_HOST, ROWS, Row
from support.wait import DeadlineError, until
from support.world import Services, World, serve

pytestmark = pytest.mark.slow

_PORT = 8099
_KINDS = ("tcp-echo", "udp-echo")
_LISTED = [row for row in ROWS if not row.fixed and row not in OF_HOST]
_FAR = {row.network[-min(2, row.network.num_addresses)]: row for row in _LISTED}
_HERE = [IPv4Address(address) for address in (at.LOOPBACK, at.HOST_PUBLIC, at.HOST_PRIVATE)]
_LOOPBACK = IPv4Network("127.0.0.0/8")
_PING = "net.ipv4.ping_group_range"
_ALL_NAMED = ",".join(str(row.network) for row in _FAR.values())
POLICIES = {
    "default": {},
    "private addresses": {"AERO_L2_ALLOW_PRIVATE_IPS": "1"},
    "every prefix allowed by name": {"AERO_L2_ALLOWED_CIDRS": _ALL_NAMED},
}


@dataclass(frozen=True)
class Targets:
    """What listens on every address of the table, in the internet and on the host."""

    far: Services
    here: Services

    def reached(self, address: IPv4Address, marker: bytes) -> list[str]:
        """Kinds and sources of what arrived."""
        events = [event for services in (self.far, self.here) for event in services.events]
        found = [e for e in events if e.local == f"{address}:{_PORT}" and (not e.data or marker in e.data)]
        return sorted(f"{event.kind} from {event.peer.partition(':')[0]}" for event in found)


@contextmanager
def _pings_permitted(world: World) -> Iterator[None]:
    before = world.host.run("sysctl", "-n", _PING).strip()
    world.host.run("sysctl", "-w", f"{_PING}=0 2147483647")
    try:
        yield
    finally:
        world.host.run("sysctl", "-w", f"{_PING}={before}")


@pytest.fixture(scope="module")
def targets(world: World) -> Iterator[Targets]:
    """Every prefix of the table has somebody who answers."""
    with ExitStack() as stack:
        stack.enter_context(_pings_permitted(world))
        for address in _FAR:
            world.internet.run("ip", "address", "replace", f"{address}/32", "dev", "lo")
            keep = str(address) == at.METADATA
            delete = ("ip", "address", "del", f"{address}/32", "dev", "lo")
            stack.callback(world.internet.run, *(("true",) if keep else delete))
        far = stack.enter_context(
            serve(world.internet, [(kind, str(a), _PORT) for a in _FAR for kind in _KINDS])
        )
        here = stack.enter_context(
            serve(world.host, [(kind, str(a), _PORT) for a in _HERE for kind in _KINDS])
        )
        yield Targets(far, here)


async def _tried(proxy: Proxy, address: IPv4Address, marker: bytes) -> tuple[str, str, str]:
    """On a tunnel of its own: the kernel refuses a guest six times at once by ICMP, then once a second."""
    async with raw_guest(proxy) as guest:
        await guest.echo(b"the NAT is up")
        to = str(address)
        met = (
            await guest.try_tcp(to, _PORT),
            await guest.try_udp(to, _PORT, marker),
            await guest.try_icmp(to),
        )
        await guest.echo(b"what was sent before has arrived, too")
    return met


def _passes(row: Row, policy: str) -> bool:
    return (
        policy.startswith("every") or (row.private if policy.startswith("private") else row.default) is None
    )


def _marker(policy: str, proxy_as: RunAs, address: IPv4Address) -> bytes:
    return f"{policy} {proxy_as} {address}".encode()


@pytest.mark.parametrize("name", POLICIES)
async def test_what_is_denied_reaches_nobody_and_what_is_allowed_arrives(
    world: World, proxy_as: RunAs, targets: Targets, name: str
) -> None:
    denied: dict[IPv4Address, Counter[str]] = {}
    with run_proxy(world, proxy_as, POLICIES[name]) as proxy:

        async def judge(address: IPv4Address, passes: bool) -> list[str]:
            marker = _marker(name, proxy_as, address)
            before = Counter(targets.reached(address, marker))
            if not passes:
                denied[address] = before
            met = await _tried(proxy, address, marker)
            if met != (("answered",) * 3 if passes else ("reset", "prohibited", "prohibited")):
                return [f"{address}: met {met}"]
            expected = Counter(f"{kind} from {at.HOST_PUBLIC}" for kind in _KINDS if passes)
            with suppress(DeadlineError):  # a service tells a little later what reached it
                await until(lambda: Counter(targets.reached(address, marker)) - before == expected, "arrived")
            arrived = Counter(targets.reached(address, marker)) - before
            return [] if arrived == expected else [f"{address}: arrived {sorted(arrived)}"]

        cases = [(address, _passes(row, name)) for address, row in _FAR.items()]
        # An allowed prefix opens what of the host is in it (docs/policy.md): that is test_policy.py's.
        cases += [
            (a, False)
            for a in _HERE
            if not (name.startswith("every") and a.is_private and a not in _LOOPBACK)
        ]
        wrong = []
        for start in range(0, len(cases), 6):
            found = await asyncio.gather(*(judge(*case) for case in cases[start : start + 6]))
            wrong += [line for lines in found for line in lines]
    late = {
        a: Counter(targets.reached(a, _marker(name, proxy_as, a))) - before for a, before in denied.items()
    }
    assert (wrong, {address: found for address, found in late.items() if found}) == ([], {})
