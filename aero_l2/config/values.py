"""Parsers of setting values: text → value, or `BadValue` with what is wrong and what to write instead."""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

_WHOLE = re.compile(r"-?[0-9]+", re.ASCII)
_MAX_LENGTH = 18
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_TRUE = frozenset(("1", "true", "yes", "on"))
_FALSE = frozenset(("0", "false", "no", "off"))
_MAX_NAME = 253
_MAX_SOCKET_PATH = 107


class BadValue(ValueError):
    """A value that cannot be used; `fix` says what to write instead."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix


class ListenAddress(NamedTuple):
    """Where to listen; `host` is an IP address or `localhost`, port 0 lets the kernel pick one."""

    host: str
    port: int


def text(value: str) -> str:
    """The value as it is."""
    return value


def optional_text(value: str) -> str | None:
    """The value, None where it is empty."""
    return value or None


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number from `low` to `high`, decimal digits only; `zero`: what a 0 means if more."""

    low: int
    high: int
    zero: str = ""

    def __call__(self, value: str) -> int:
        """Parse. Raises BadValue."""
        if not _WHOLE.fullmatch(value):
            raise BadValue("is not a whole number", f"give one from {self}")
        if value[0] == "-" or len(value) > _MAX_LENGTH or not self.low <= int(value) <= self.high:
            raise BadValue("is out of range", f"give a whole number from {self}")
        return int(value)

    def __str__(self) -> str:
        return f"{self.low} to {self.high}" + (f", 0 = {self.zero}" if self.zero else "")


class ZeroOr(Number):
    """0, or a whole number from `low`."""

    def __call__(self, value: str) -> int:
        """Parse. Raises BadValue."""
        return 0 if value and not value.strip("0") else super().__call__(value)


def count(value: str) -> int:
    """A whole number of 0 or more."""
    return Number(0, 10**18 - 1)(value)


def boolean(value: str) -> bool:
    """1/true/yes/on or 0/false/no/off, in any case."""
    word = value.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise BadValue("is not a yes or no", "write 1, true, yes, on or 0, false, no, off")


def exactly_one(value: str) -> bool:
    """True for exactly `1`; anything else counts as not given, so that no typing error opens a door."""
    return value == "1"


def choice(value: str, *choices: str) -> str:
    """One of `choices`, in any case."""
    word = value.lower()
    if word not in choices:
        raise BadValue("is not known", "choose one of " + ", ".join(choices))
    return word


def optional_socket_path(value: str) -> str | None:
    """An absolute path that fits the address of a Unix socket (unix(7)), or None where blank."""
    if not value:
        return None
    if not value.startswith("/") or value.endswith("/"):
        raise BadValue("is no absolute path of a file", "write one like /run/aero-l2/admin.sock")
    if len(value.encode()) > _MAX_SOCKET_PATH:
        raise BadValue(f"is longer than {_MAX_SOCKET_PATH} bytes", "name a shorter path")
    return os.path.normpath(value)


def listen_address(value: str) -> ListenAddress:
    """`host:port`, an IPv6 host in brackets. Names other than localhost are not looked up."""
    fix = "write HOST:PORT with an IP address, for example 127.0.0.1:8090 or [::1]:8090"
    host, colon, port = value.rpartition(":")
    if not colon:
        raise BadValue("has no port", fix)
    if host.startswith("[") and host.endswith("]"):
        try:
            return ListenAddress(str(IPv6Address(host[1:-1])), port_number(port, low=0))
        except AddressValueError:
            raise BadValue("has no IPv6 address in its brackets", fix) from None
    if host.lower() == "localhost":
        return ListenAddress("localhost", port_number(port, low=0))
    try:
        return ListenAddress(str(IPv4Address(host)), port_number(port, low=0))
    except AddressValueError:
        raise BadValue("does not start with an IP address", fix) from None


def optional_listen_address(value: str) -> ListenAddress | None:
    """`listen_address`, or None where blank."""
    return listen_address(value) if value else None


def port_number(value: str, *, low: int = 1) -> int:
    """A port, `low` to 65535."""
    try:
        return Number(low, 65535)(value)
    except BadValue:
        raise BadValue(f"has {value!r} for a port", f"a port is a number from {low} to 65535") from None


def host_name(value: str) -> str:
    """A host name in lower case without its final dot (RFC 1123 §2.1, underscores tolerated).

    A name whose last label is a number is refused: it is a mistyped address.
    """
    name = value.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > _MAX_NAME or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadValue(f"has {value!r}, which is no host name", "use letters, digits, hyphens and dots")
    if labels[-1].isdigit():
        raise BadValue(f"has {value!r}, which is no IPv4 address", "write four numbers from 0 to 255")
    return name
