"""What can be wrong with a deployment, and the exit status of each: the one table. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from aero_l2.client import (
    ClientError,
    CredentialRefused,
    HostRefused,
    LimitReached,
    OriginRefused,
    Refused,
    TlsFailed,
    TunnelClosed,
    Unavailable,
)

Fact = str | int | float | bool | None | list[str]
Facts = Mapping[str, Fact]

EXIT_OK: Final = 0


class Kind(enum.Enum):
    """A kind of failure: its word, its exit status, and what it means. Status 1 and 2 are the program's."""

    UNREACHABLE = ("unreachable", 3, "no connection to the server: name, route, port, or no answer in time")
    TLS = ("tls", 4, "the server's certificate is not accepted, or there is no TLS")
    CREDENTIAL = ("credential", 5, "401: no credential, a wrong or an expired one")
    ORIGIN = ("origin", 6, "403: the Origin is not allowed")
    HOST = ("host", 7, "403: the Host is not allowed")
    LIMIT = ("limit", 8, "429: too many tunnels or attempts")
    UNAVAILABLE = ("unavailable", 9, "503: the server makes no tunnels now")
    NOT_A_TUNNEL = ("not-a-tunnel", 10, "something else answers: another path, another service")
    CLOSED = ("closed", 11, "the tunnel was closed, or lost, before the end")
    NO_PONG = ("no-pong", 12, "a PING of the protocol is not answered")
    NO_LEASE = ("no-lease", 13, "DHCP gives no usable lease")
    NO_ARP = ("no-arp", 14, "the gateway does not answer ARP")
    NO_ECHO = ("no-echo", 15, "the gateway does not answer ping")
    DNS = ("dns", 16, "the DNS server does not answer, or fails (SERVFAIL)")
    NAME_REFUSED = ("name-refused", 17, "NXDOMAIN: no such name, or the policy denies it")
    NO_ADDRESS = ("no-address", 18, "the name has no IPv4 address, or none that the policy lets guests see")
    REFUSED = ("refused", 19, "the connection was reset: nobody listens, or the policy denies it")
    PROHIBITED = ("prohibited", 20, "ICMP: the policy denies it")
    NO_ROUTE = ("no-route", 21, "ICMP: host, network or port unreachable")
    TIMEOUT = ("timeout", 22, "the target does not answer in time")
    WRONG_ANSWER = ("wrong-answer", 23, "the target answers something else than it should")
    BROKEN = ("broken", 24, "the target ended the connection in the middle")

    def __init__(self, word: str, status: int, meaning: str) -> None:
        self.word = word
        self.status = status
        self.meaning = meaning


class StepFailed(Exception):
    """A step came to nothing; the text is one line for people.

    facts: what a program may want to know of it, as in a `Step` (report.py).
    """

    def __init__(self, kind: Kind, reason: str, facts: Facts | None = None) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.facts: Facts = facts or {}


_BY_ERROR: Final[tuple[tuple[type[ClientError], Kind], ...]] = (
    (TunnelClosed, Kind.CLOSED),
    (TlsFailed, Kind.TLS),
    (CredentialRefused, Kind.CREDENTIAL),
    (OriginRefused, Kind.ORIGIN),
    (HostRefused, Kind.HOST),
    (LimitReached, Kind.LIMIT),
    (Unavailable, Kind.UNAVAILABLE),
    (Refused, Kind.NOT_A_TUNNEL),
    (ClientError, Kind.UNREACHABLE),
)


def of_client_error(error: ClientError) -> StepFailed:
    """The failure that an error of the client library is."""
    kind = next(kind for cause, kind in _BY_ERROR if isinstance(error, cause))
    facts: dict[str, Fact] = {}
    if isinstance(error, Refused):
        facts = {"http_status": error.status, "body": error.body}
    elif isinstance(error, TunnelClosed):
        code = error.error.code if error.error is not None else None
        facts = {"close_code": error.close_code, "close_reason": error.reason, "error_code": code}
    text = str(error)
    if isinstance(error, CredentialRefused) and error.is_without_credential:
        text += ": AERO_L2_CLIENT_TOKEN or --token-file gives one"
    return StepFailed(kind, text, facts)
