"""The syntax of `Forwarded` and of the nodes that it and `X-Forwarded-For` list (RFC 7239 §4, §6). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

Address = IPv4Address | IPv6Address
Element = dict[str, str]

# No real chain of proxies is as long; what is longer is not read.
MAX_HOPS: Final = 64
_MAX_NODE_CHARS: Final = 128

_TOKEN = r"-!#$%&'*+.^_`|~0-9A-Za-z"
# A value without quotes may contain : and [ ], as some proxies write IPv6 and ports; the RFC wants quotes.
_PAIR = re.compile(
    rf'[ \t;]*([{_TOKEN}]+)=(?:([{_TOKEN}:\[\]]+)|"([^"\\]*(?:\\.[^"\\]*)*)")[ \t]*(?=[;,]|\Z)'
)
_END = re.compile(r"[ \t;]*(?:,|\Z)")
_ESCAPED = re.compile(r"\\(.)")
_PORT = re.compile(r":(?:[0-9]{1,5}|_[-._0-9A-Za-z]+)")


def parse_forwarded(lines: Sequence[str]) -> list[Element | None]:
    """The elements of all `Forwarded` headers of a request in their order; parameter names in lower case.

    None stands for what is malformed: one element where it is plain that the next comma ends it, or the rest
    of its line where it contains a quote. A client could otherwise open a quoted string that swallows, or
    splits, the element that a proxy appends to its line. More than `MAX_HOPS` elements count as one malformed
    one. Never raises; time is linear in the size of the lines.
    """
    if sum(line.count(",") + 1 for line in lines) > MAX_HOPS:
        return [None]
    return [element for line in lines for element in _parse_line(line)]


def _parse_line(line: str) -> Iterator[Element | None]:
    at = 0
    while at <= len(line):
        element, at = _parse_element(line, at)
        yield element


def _parse_element(line: str, at: int) -> tuple[Element | None, int]:
    """The element that begins at `at`, and where the next one does; behind the line's end if there is none.

    A parameter must not be named twice (§4).
    """
    element: Element = {}
    is_twice = False
    while pair := _PAIR.match(line, at):
        name, bare, quoted = pair.groups()
        is_twice = is_twice or name.lower() in element
        element[name.lower()] = _ESCAPED.sub(r"\1", quoted) if bare is None else bare
        at = pair.end()
    if end := _END.match(line, at):
        return None if is_twice else element, end.end() + (end[0][-1:] != ",")
    comma = line.find(",", at)
    if comma < 0 or '"' in line[at:comma]:
        return None, len(line) + 1
    return None, comma + 1


def parse_node(text: str) -> Address | None:
    """The address of a node (§6), without port and zone; None for `unknown`, obfuscated and malformed ones.

    IPv6 is taken without brackets too, as `X-Forwarded-For` has it. IPv4-mapped addresses are IPv4.
    """
    text = text.strip(" \t")
    if len(text) > _MAX_NODE_CHARS:
        return None
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        return address_of(host) if bracket and ":" in host and _is_port(port) else None
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return address_of(host) if _is_port(f":{port}") else None
    return address_of(text)


def _is_port(text: str) -> bool:
    return not text or _PORT.fullmatch(text) is not None


def address_of(text: str) -> Address | None:
    """The address that `text` is, without its zone, IPv4 if it is IPv4-mapped; None if it is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or IPv6Address(int(address))
    return address
