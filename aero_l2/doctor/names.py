"""The resolvers that guests' names are asked of: each is asked once, for real.

The question is the one that every resolver asks when it starts: who serves the root zone (RFC 8109). It names
nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import dns.asyncbackend
import dns.exception
import dns.flags
import dns.message
import dns.rcode
from dns.nameserver import Nameserver
from dns.rcode import Rcode

from aero_l2.config import Settings
from aero_l2.config.nameservers import DNS_PORT
from aero_l2.doctor.finding import Fact, Finding, note, ok, problem
from aero_l2.doctor.subject import Subject
from aero_l2.door.listening import shown
from aero_l2.services.dns.nameservers import GivenServers, NoUpstream, read_nameservers
from aero_l2.services.dns.resolver import RESOLV_CONF

DNS: Final = "DNS"
_FIX: Final = "export AERO_L2_DNS_SERVERS=…  # addresses of resolvers that serve this host"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a resolver said. rcode: None where it said nothing; why: then, for people."""

    server: str
    seconds: float
    rcode: Rcode | None
    why: str = ""

    @property
    def text(self) -> str:
        """In words."""
        if self.rcode is None:
            return f"{self.server}: {self.why}"
        return f"{self.server} answers {dns.rcode.to_text(self.rcode)} in {self.seconds * 1000:.0f} ms"


def resolvers(subject: Subject) -> Iterator[Finding]:
    """Ask as the service user."""
    subject.become_user()
    try:
        servers = servers_of(subject.settings)
    except NoUpstream as error:
        yield problem(DNS, f"no resolver to ask: {error}", _FIX)
        return
    yield from judged(asyncio.run(ask(servers, subject.settings.dns_lookup_timeout_ms / 1000)))


def servers_of(settings: Settings) -> tuple[Nameserver, ...]:
    """Those of the settings, else of resolv.conf. Raises NoUpstream."""
    if settings.dns_servers:
        return GivenServers(settings.dns_servers).current()
    return read_nameservers(RESOLV_CONF)


async def ask(servers: Sequence[Nameserver], timeout_s: float) -> list[Answer]:
    """Ask all of them at once."""
    return list(await asyncio.gather(*(_ask(server, timeout_s) for server in servers)))


def judged(answers: Sequence[Answer]) -> Iterator[Finding]:
    """One that answers is enough; any answer shows that it is there. Pure."""
    serving = [one for one in answers if one.rcode is not None and one.rcode != dns.rcode.REFUSED]
    for one in answers:
        facts: dict[str, Fact] = {"server": one.server, "ms": round(one.seconds * 1000, 1)}
        if one.rcode == dns.rcode.NOERROR:
            yield ok(DNS, one.text, **facts, rcode="NOERROR")
        elif one in serving and one.rcode is not None:
            name = dns.rcode.to_text(one.rcode)
            yield note(
                DNS, f"{one.text} to the question for the root zone; is it on line?", rcode=name, **facts
            )
        elif serving:
            yield note(DNS, f"{one.text}; the others are asked in its place", _FIX, **facts)
        else:
            yield problem(DNS, f"{one.text}: guests' names cannot be looked up", _FIX, **facts)


def _shown(server: Nameserver) -> str:
    """Its address, and the port where it is another than DNS's."""
    address, number = str(server.answer_nameserver()), server.answer_port()
    return address if number == DNS_PORT else shown((address, number))


async def _ask(server: Nameserver, timeout_s: float) -> Answer:
    request = dns.message.make_query(".", "NS", flags=int(dns.flags.RD))
    backend = dns.asyncbackend.get_backend("asyncio")
    began, name = time.monotonic(), _shown(server)
    try:
        async with asyncio.timeout(timeout_s):
            try:
                said = await server.async_query(request, timeout_s, None, 0, False, backend)
            except dns.message.Truncated:
                said = await server.async_query(request, timeout_s, None, 0, True, backend)
    except (TimeoutError, dns.exception.Timeout):
        return Answer(name, time.monotonic() - began, None, f"no answer within {timeout_s:g} s")
    except (dns.exception.DNSException, OSError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return Answer(name, time.monotonic() - began, None, f"no answer ({reason or type(error).__name__})")
    return Answer(name, time.monotonic() - began, said.rcode())
