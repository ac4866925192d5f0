"""Settings of the program: one table row each, a frozen value out.

`VARIABLES` is the one place a setting is declared in; parsing, help and documentation derive from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final, Literal

from aero_l2 import __version__
from aero_l2.config import values
from aero_l2.config.forwards import ForwardRule, dns_records, tcp_forwards, udp_forwards
from aero_l2.config.values import BadValue, ListenAddress, Number

NO_LIMIT: Final = "no limit"
THE_DEFAULT: Final = "the default"
_MANY: Final = 1_000_000
_DAY_MS: Final = 86_400_000
_MAX_TTL_S: Final = 2**31 - 1  # RFC 2181 §8
_AUTH_MODES_TO_COME: Final = frozenset(
    (
        "session",
        "cookie",
        "token",
        "api_key",
        "jwt",
        "cookie_or_jwt",
        "session_or_token",
        "cookie_or_api_key",
        "session_and_token",
        "cookie_and_api_key",
    )
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the program was told; units are in the names, `VARIABLES` says where 0 means no limit."""

    listen: ListenAddress
    auth_mode: Literal["none"]
    open: bool
    insecure_allow_no_auth: bool
    max_connections: int
    max_frame_payload: int
    max_control_payload: int
    shutdown_grace_ms: int
    send_stall_timeout_ms: int
    tcp_forward: tuple[ForwardRule, ...]
    udp_forward: tuple[ForwardRule, ...]
    dns_a: tuple[tuple[str, IPv4Address], ...]
    dns_lookup_timeout_ms: int
    dns_default_ttl_secs: int
    dns_max_ttl_secs: int
    max_pending_dns: int
    max_tcp_connections: int
    max_udp_flows: int
    udp_flow_idle_timeout_ms: int
    log_level: str
    log_format: str
    user: str | None
    receive_path: str
    version: str
    git_sha: str
    built_at: str

    @property
    def forwards(self) -> tuple[ForwardRule, ...]:
        """Forwards of both protocols."""
        return self.tcp_forward + self.udp_forward


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting: the field it fills, its variables (the first not blank counts), how to read it.

    `default` is text as one would write it. Numbers are parsed by a `Number`, which knows their range.
    """

    field: str
    name: str
    default: str
    parse: Callable[[str], Any]
    help: str
    aliases: tuple[str, ...] = ()
    unit: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Name and aliases, in order of precedence."""
        return (self.name, *self.aliases)

    @property
    def number(self) -> Number | None:
        """The range where the setting is a number."""
        return self.parse if isinstance(self.parse, Number) else None

    @property
    def zero_is_unset(self) -> bool:
        """Whether 0 means the default too."""
        return self.number is not None and self.number.zero == THE_DEFAULT


def _auth_mode(value: str) -> str:
    mode = value.lower()
    if mode in _AUTH_MODES_TO_COME:
        raise BadValue(
            "is not supported by this version", "only none is; keep the program off public networks"
        )
    return values.choice(mode, "none")


_limit = Number(0, _MANY, NO_LIMIT)
_duration_ms = Number(1, _DAY_MS)
_ttl = Number(1, _MAX_TTL_S)
_frame_payload = Number(64, 65535, THE_DEFAULT)
_control_payload = Number(8, 65535, THE_DEFAULT)

VARIABLES: Final[tuple[Variable, ...]] = (
    Variable(
        "listen", "AERO_L2_PROXY_LISTEN_ADDR", "0.0.0.0:8090", values.listen_address,
        "Where to listen; port 0 picks one.", ("AERO_L2_PROXY_BIND_ADDR",), "host:port",
    ),
    Variable("auth_mode", "AERO_L2_AUTH_MODE", "none", _auth_mode, "Who may open a tunnel: none = anyone."),
    Variable(
        "open", "AERO_L2_OPEN", "0", values.exactly_one,
        "Exactly 1: the Origin of a request is not checked.",
    ),
    Variable(
        "insecure_allow_no_auth", "AERO_L2_INSECURE_ALLOW_NO_AUTH", "0", values.exactly_one,
        "Exactly 1: running without authentication is meant.",
    ),
    Variable("max_connections", "AERO_L2_MAX_CONNECTIONS", "64", _limit, "Tunnels of the process."),
    Variable(
        "max_frame_payload", "AERO_L2_MAX_FRAME_PAYLOAD", "2048", _frame_payload,
        "Largest Ethernet frame in a message; guests send up to 1514.", ("AERO_L2_MAX_FRAME_SIZE",), "bytes",
    ),
    Variable(
        "max_control_payload", "AERO_L2_MAX_CONTROL_PAYLOAD", "256", _control_payload,
        "Largest payload of every other message.", unit="bytes",
    ),
    Variable(
        "shutdown_grace_ms", "AERO_L2_SHUTDOWN_GRACE_MS", "3000", Number(0, _DAY_MS),
        "How long a shutdown may wait for tunnels to close.", unit="ms",
    ),
    Variable(
        "send_stall_timeout_ms", "AERO_L2_SEND_STALL_TIMEOUT_MS", "10000",
        Number(0, _DAY_MS, NO_LIMIT),
        "A client that takes nothing for so long while data waits is closed.", unit="ms",
    ),
    Variable(
        "tcp_forward", "AERO_L2_TCP_FORWARD", "", tcp_forwards,
        "ip:port=host:port,…: guests' TCP connections to the left go to the right.",
    ),
    Variable(
        "udp_forward", "AERO_L2_UDP_FORWARD", "", udp_forwards,
        "ip:port=host:port,…: guests' datagrams to the left go to the right.",
    ),
    Variable(
        "dns_a", "AERO_L2_DNS_A", "", dns_records,
        "name=ip,…: answered as given, ahead of every filter.",
    ),
    Variable(
        "dns_lookup_timeout_ms", "AERO_L2_DNS_LOOKUP_TIMEOUT_MS", "2000", _duration_ms,
        "After so long without an answer from upstream the guest gets SERVFAIL.", unit="ms",
    ),
    Variable(
        "dns_default_ttl_secs", "AERO_L2_DNS_DEFAULT_TTL_SECS", "60", _ttl,
        "TTL of answers out of AERO_L2_DNS_A.", unit="s",
    ),
    Variable(
        "dns_max_ttl_secs", "AERO_L2_DNS_MAX_TTL_SECS", "300", _ttl,
        "Largest TTL of an A, CNAME or DNAME record in an answer.", unit="s",
    ),
    Variable(
        "max_pending_dns", "AERO_L2_STACK_MAX_PENDING_DNS", "1024", _limit,
        "DNS queries of the whole process under way at once. One tunnel has at most 128 of them, and half of "
        "what is free; four it may have while any is free.",
    ),
    Variable(
        "max_tcp_connections", "AERO_L2_STACK_MAX_TCP_CONNECTIONS", "1024", _limit,
        "TCP flows of a tunnel.",
    ),
    Variable(
        "max_udp_flows", "AERO_L2_MAX_UDP_FLOWS_PER_TUNNEL", "256", _limit,
        "UDP flows of a tunnel.",
    ),
    Variable(
        "udp_flow_idle_timeout_ms", "AERO_L2_UDP_FLOW_IDLE_TIMEOUT_MS", "60000", _duration_ms,
        "A UDP flow without packets for so long is forgotten.", unit="ms",
    ),
    Variable(
        "log_level", "AERO_L2_LOG_LEVEL", "info",
        lambda value: values.choice(value, "debug", "info", "warning", "error"),
        "Least important lines to log: debug, info, warning, error.",
    ),
    Variable(
        "log_format", "AERO_L2_LOG_FORMAT", "auto",
        lambda value: values.choice(value, "auto", "console", "json"),
        "auto = console on a terminal, json elsewhere.",
    ),
    Variable(
        "user", "AERO_L2_USER", "", values.optional_text,
        "The user to become when started by root: aero-l2 if unset. No effect otherwise.",
    ),
    Variable(
        "receive_path", "AERO_L2_RECEIVE_PATH", "own",
        lambda value: values.choice(value, "own", "library"),
        "own = the fast parser; library = websockets alone, for measurements.",
    ),
    Variable(
        "version", "AERO_L2_PROXY_VERSION", __version__, values.text,
        "What /version says as version.", ("VERSION",),
    ),
    Variable(
        "git_sha", "AERO_L2_PROXY_GIT_SHA", "dev", values.text,
        "What /version says as gitSha.", ("GIT_SHA",),
    ),
    Variable(
        "built_at", "AERO_L2_PROXY_BUILD_TIMESTAMP", "", values.text,
        "What /version says as builtAt.", ("BUILD_TIMESTAMP",),
    ),
)  # fmt: skip
