"""The names that the test world's name server knows, and how it answers them."""

from collections import Counter

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdatatype import RdataType

from support import addresses

BIG_TEXT = [f"{index:02d}" + "x" * 198 for index in range(20)]  # 4 kB: needs TCP
SILENT = "silent.example.test."  # never answered
BROKEN = "broken.example.test."  # answered SERVFAIL
TORN = "torn.example.test."  # answered over TCP alone, with a question that ends in the middle of its name
ODD = "odd.example.test."  # answered YXDOMAIN (RFC 2136 section 2.2), which no query gets

RECORDS: dict[tuple[str, str], list[str]] = {
    (".", "NS"): ["ns.example.test."],
    ("web.example.test.", "A"): [addresses.WEB],
    ("web.example.test.", "AAAA"): ["2606:2800:220:1::34"],
    ("cdn.example.test.", "A"): [addresses.CDN],
    ("alias.example.test.", "CNAME"): ["web.example.test."],
    ("big.example.test.", "TXT"): [f'"{text}"' for text in BIG_TEXT],
    ("mail.example.test.", "MX"): ["10 web.example.test."],
    ("_x._tcp.example.test.", "SRV"): ["1 2 80 web.example.test."],
    ("34.216.184.93.in-addr.arpa.", "PTR"): ["web.example.test."],
    ("private.test.", "A"): [addresses.PRIVATE_SITE],
    ("loopback.test.", "A"): [addresses.LOOPBACK],
    ("host.test.", "A"): [addresses.HOST_PUBLIC],
    ("mixed.test.", "A"): [addresses.PRIVATE_SITE, addresses.WEB],
    ("zero-ttl.example.test.", "A"): [addresses.WEB],
    ("long-ttl.example.test.", "A"): [addresses.WEB],
    ("web.allowed.test.", "A"): [addresses.WEB],
    ("short.allowed.test.", "A"): [addresses.CDN],
    ("alias.allowed.test.", "CNAME"): ["cdn.example.test."],
    ("service.allowed.test.", "HTTPS"): [
        f"1 . alpn=h2 ipv4hint={addresses.CDN},{addresses.PRIVATE_SITE} ipv6hint=2606:2800:220:1::34"
    ],
    ("private.allowed.test.", "A"): [addresses.PRIVATE_SITE],
    ("secret.allowed.test.", "A"): [addresses.WEB],
}
TTL_S = {"zero-ttl.example.test.": 0, "long-ttl.example.test.": 1_000_000, "short.allowed.test.": 1}
REBINDING = ".rebind.test."  # any name below: a public address the first time, a private one from then on
MANY = ".many.allowed.test."  # n0 to n9999 below it: an address each
FLEETING = ".fleeting.allowed.test."  # the same, for a second
_asked: Counter[str] = Counter()
_DEFAULT_TTL_S = 120


def _rrset(name: str, kind: str) -> dns.rrset.RRset | None:
    if name.endswith(REBINDING) and kind == "A":
        _asked[name] += 1
        address = addresses.WEB if _asked[name] == 1 else addresses.PRIVATE_SITE
        return dns.rrset.from_text_list(name, 0, "IN", kind, [address])
    if name.endswith((MANY, FLEETING)) and kind == "A":
        number = int(name[1:].split(".")[0])
        ttl = 60 if name.endswith(MANY) else 1
        return dns.rrset.from_text(name, ttl, "IN", kind, f"93.184.{number // 250}.{number % 250}")
    values = RECORDS.get((name, kind))
    if values is None:
        return None
    return dns.rrset.from_text_list(name, TTL_S.get(name, _DEFAULT_TTL_S), "IN", kind, values)


def answer(wire: bytes, *, tcp: bool) -> bytes | None:
    """The reply to one query (RFC 1035 §4), truncated over UDP at the querier's limit; None for silence."""
    query = dns.message.from_wire(wire)
    question = query.question[0]
    name = question.name.to_text().lower()
    if name == SILENT:
        return None
    response = dns.message.make_response(query, recursion_available=True)
    kind = RdataType.to_text(question.rdtype)
    if name == BROKEN:
        response.set_rcode(dns.rcode.SERVFAIL)
    elif name == ODD:
        response.set_rcode(dns.rcode.YXDOMAIN)
    elif name == TORN and tcp:
        return response.to_wire()[:16]
    elif name == TORN:
        response.flags |= dns.flags.TC
    elif alias := _rrset(name, "CNAME"):
        response.answer.append(alias)
        if target := _rrset(alias[0].to_text(), kind):
            response.answer.append(target)
    elif found := _rrset(name, kind):
        response.answer.append(found)
    elif not any(owner == name for owner, _ in RECORDS):
        response.set_rcode(dns.rcode.NXDOMAIN)
    full = response.to_wire(max_size=65535)
    limit = query.payload or 512
    if tcp or len(full) <= limit:
        return full
    short = dns.message.make_response(query, recursion_available=True)
    short.flags |= dns.flags.TC
    return short.to_wire()


def query(name: str, kind: str) -> bytes:
    """A query for one record, without EDNS."""
    return dns.message.make_query(name, kind).to_wire()
