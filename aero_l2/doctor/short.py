"""The short form, in the server: what is cheap to look at, when it starts and while it cannot make tunnels.

It adds to the trial session of `aero_l2.session.readiness`: a problem makes /readyz answer 503 with its line.
Resolvers are asked too, but nobody waits for them: without names a tunnel is worth little, yet a resolver
that is slow, or comes up later, must keep nobody out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

import structlog

from aero_l2.config import Settings, Sources
from aero_l2.doctor import advice, host, limits, names, surroundings
from aero_l2.doctor.finding import Finding, note
from aero_l2.doctor.subject import Subject
from aero_l2.services.dns.nameservers import NoUpstream

_log = structlog.get_logger(component="doctor")
Look = Callable[[Subject], Iterable[Finding]]
_LOOKS: tuple[Look, ...] = (host.clock, limits.unsaid, limits.sysctls, host.pings_of_this)


class ShortForm:
    """Looks at the host; each finding that is not well is in the log once, until it has changed."""

    def __init__(self, settings: Settings, sources: Sources, looks: Iterable[Look] = _LOOKS) -> None:
        # Who types is not the server, which is root of its own namespace only.
        place = replace(surroundings.look(), is_root=False)
        self._subject = Subject(settings, sources, "", "", place, is_root=False)
        self._looks = tuple(looks)
        self._told: frozenset[str] = frozenset()

    async def verdict(self) -> str:
        """The first problem in one line, empty without one. Reads files, on a thread; some 10 ms."""
        try:
            found = await asyncio.to_thread(self._look)
        except OSError as error:  # a /proc that cannot be read keeps nobody out
            found = [note("doctor", f"the host cannot be looked at: {error}")]
        self._tell(found)
        return next((one.line for one in found if one.status == "problem"), "")

    def fix(self, reason: str) -> str:
        """What to type where no tunnel can be made for that reason; empty where nothing is known to help."""
        return next(iter(advice.advice(reason, self._subject.place)), "")

    async def ask_resolvers(self) -> None:
        """Ask each once, and say in the log which do not answer."""
        try:
            servers = await asyncio.to_thread(names.servers_of, self._subject.settings)
        except NoUpstream:
            return  # said by the resolver already
        for one in names.judged(
            await names.ask(servers, self._subject.settings.dns_lookup_timeout_ms / 1000)
        ):
            if one.status != "ok":
                _say(replace(one, status="note"))  # nobody is kept out for it

    def _look(self) -> list[Finding]:
        return [one for look in self._looks for one in look(self._subject) if one.status != "ok"]

    def _tell(self, found: Iterable[Finding]) -> None:
        lines = {one.line: one for one in found}
        for line, one in lines.items():
            if line not in self._told:
                _say(one)
        self._told = frozenset(lines)


def _say(one: Finding) -> None:
    fix = "; ".join(one.fix[:1])
    if one.status == "problem":
        _log.error("the host needs a look", text=one.text, check=one.check, fix=fix)
    else:
        _log.warning("the host needs a look", text=one.text, check=one.check, fix=fix)
