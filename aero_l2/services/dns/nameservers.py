"""Which resolvers to ask: those of the settings, or those of the host's resolv.conf as it changes."""

import os
import time
from collections.abc import Callable, Sequence
from os import PathLike
from typing import Final, Protocol

import dns.asyncresolver
import dns.exception
import dns.inet
import dns.resolver
import structlog
from dns.nameserver import Do53Nameserver, Nameserver

from aero_l2.config.nameservers import MAX_SERVERS, NameServer

_log = structlog.get_logger(component="dns")

# How long a change of the file may go unseen.
LOOK_EVERY_S: Final = 1.0
# More is no resolv.conf; reading it happens on the loop.
MAX_FILE_BYTES: Final = 64 * 1024

_Mark = tuple[int, int, int, int, int]


class NoUpstream(Exception):
    """There is no resolver to ask; the text says which file was read and what is wrong with it."""


class Servers(Protocol):
    """Where the resolvers come from."""

    def current(self) -> tuple[Nameserver, ...]:
        """The resolvers to ask now, in order; empty if none is known. A change makes another tuple."""


class GivenServers:
    """The same resolvers forever."""

    def __init__(self, servers: Sequence[NameServer]) -> None:
        """`servers` in the order to ask them in."""
        self._servers: tuple[Nameserver, ...] = tuple(
            Do53Nameserver(one.address, one.port) for one in servers
        )

    def current(self) -> tuple[Nameserver, ...]:
        """See `Servers.current`."""
        return self._servers


class HostServers:
    """The resolvers of a resolv.conf, which is read again when it has changed.

    The file is looked at when somebody asks, at most once in `LOOK_EVERY_S`. While it is missing or unusable
    the last good resolvers stay, and one log line says so.
    """

    def __init__(self, path: str | PathLike[str], clock: Callable[[], float] = time.monotonic) -> None:
        """Read the file; `clock` gives seconds that never go back."""
        self._path = path
        self._clock = clock
        self._servers: tuple[Nameserver, ...] = ()
        self._texts: list[str] = []
        self._usable = True
        self._mark = _mark(path)
        self._looked = clock()
        self._read()

    def current(self) -> tuple[Nameserver, ...]:
        """See `Servers.current`. Looks at the file if it is time to."""
        now = self._clock()
        if now - self._looked >= LOOK_EVERY_S:
            self._looked = now
            mark = _mark(self._path)
            if mark != self._mark:
                self._mark = mark
                self._read()
        return self._servers

    def _read(self) -> None:
        try:
            found = read_nameservers(self._path)
        except NoUpstream as error:
            if self._usable:
                self._usable = False
                kept = "the DNS servers from before stay" if self._servers else "guests get SERVFAIL"
                _log.warning("no DNS server in resolv.conf", text=f"{error}; {kept}")
            return
        texts = [str(server) for server in found]
        if self._texts and texts != self._texts:
            _log.info("DNS servers changed", servers=texts)
        elif not self._usable:
            _log.info("resolv.conf is usable again", servers=texts)
        self._usable = True
        if texts != self._texts:
            self._servers, self._texts = found, texts


def read_nameservers(path: str | PathLike[str]) -> tuple[Nameserver, ...]:
    """Read the resolvers of a file in resolv.conf's format (resolv.conf(5)), the first three in its order.

    Raises NoUpstream if the file is missing, cannot be read as such, or names no resolver.
    """
    try:
        if os.stat(path).st_size > MAX_FILE_BYTES:
            raise NoUpstream(f"{path}: longer than {MAX_FILE_BYTES} bytes")
        found = dns.asyncresolver.Resolver(path).nameservers
    except dns.resolver.NoResolverConfiguration as error:
        raise NoUpstream(f"{path}: {error}") from error
    except (dns.exception.DNSException, ValueError, OSError) as error:
        raise NoUpstream(f"{path}: {error or type(error).__name__}") from error
    # dnspython takes a URL for DNS over HTTPS; resolv.conf knows no such thing.
    addresses = [server for server in found if isinstance(server, str) and dns.inet.is_address(server)]
    if not addresses:
        raise NoUpstream(f"{path}: no nameserver")
    return tuple(Do53Nameserver(address) for address in addresses[:MAX_SERVERS])


def _mark(path: str | PathLike[str]) -> _Mark | None:
    """What tells one state of the file from another, symbolic links followed; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
