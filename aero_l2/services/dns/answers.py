"""Answers to a guest: static names, and what the host's resolvers said after our rules went over it. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

import dns.flags
import dns.message
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.message import QueryMessage

from aero_l2.services.dns.hints import SERVICE_TYPES, admit
from aero_l2.services.dns.message import Query, reply_to

_ADDRESS_QUESTIONS: Final = (dns.rdatatype.A, dns.rdatatype.ANY)
# An alias's TTL bounds for how long a stub believes the address behind it, a service's that of its hints.
_TTL_RULED: Final = (dns.rdatatype.A, dns.rdatatype.CNAME, dns.rdatatype.DNAME, *SERVICE_TYPES)


@dataclass(frozen=True, slots=True)
class AnswerRules:
    """How an upstream's answer is changed on its way to the guest.

    `denies` says which addresses the guest must not learn (DNS rebinding); TTLs are in seconds.
    """

    denies: Callable[[IPv4Address], bool]
    max_ttl: int


def static(query: Query, addresses: Iterable[IPv4Address], ttl: int) -> QueryMessage:
    """Answer from the operator's own table: the addresses as given; NOERROR and empty for other types."""
    reply = reply_to(query)
    records = [str(address) for address in addresses]
    if records and query.rdtype in _ADDRESS_QUESTIONS:
        reply.answer = [dns.rrset.from_text_list(query.name, ttl, "IN", "A", records)]
    return reply


def relay(query: Query, upstream: dns.message.Message, rules: AnswerRules) -> QueryMessage:
    """Rebuild an upstream's answer for the guest: its own question, our header, the records by the rules.

    Denied addresses and, while guests have no IPv6, AAAA records and IPv6 hints are left out of every
    section; the "authenticated data" bit is passed only for an answer that is whole.
    """
    reply = reply_to(query, upstream.rcode())
    whole = True
    for target, source in (
        (reply.answer, upstream.answer),
        (reply.authority, upstream.authority),
        (reply.additional, upstream.additional),
    ):
        for rrset in source:
            kept = _admit(rrset, rules)
            whole = whole and kept is not None and list(kept) == list(rrset)
            if kept:
                target.append(kept)
    if whole and query.wants_ad and upstream.flags & dns.flags.AD:
        reply.flags |= dns.flags.AD
    return reply


def grow_older(reply: QueryMessage, seconds: int) -> None:
    """Count the TTLs of an answer down, which has been kept for `seconds`; changes its records.

    Where there is an SOA the guest may believe a denial no longer than we (RFC 2308 section 5).
    """
    for section in (reply.answer, reply.authority, reply.additional):
        for rrset in section:
            if rrset.rdtype == dns.rdatatype.SOA and section is reply.authority:
                rrset.ttl = min([rrset.ttl, *(rdata.minimum for rdata in rrset)])
            rrset.ttl = max(0, rrset.ttl - seconds)


def _admit(rrset: dns.rrset.RRset, rules: AnswerRules) -> dns.rrset.RRset | None:
    if rrset.rdtype == dns.rdatatype.AAAA:
        return None
    if rrset.rdtype not in _TTL_RULED or rrset.rdclass != dns.rdataclass.IN:
        return rrset
    ttl = max(1, min(rrset.ttl, rules.max_ttl))
    if rrset.rdtype == dns.rdatatype.A:
        kept = [rdata for rdata in rrset if not rules.denies(IPv4Address(rdata.address))]
    elif rrset.rdtype in SERVICE_TYPES:
        kept = admit(rrset, rules.denies)
    else:
        kept = list(rrset)
    return dns.rrset.from_rdata_list(rrset.name, ttl, kept) if kept else None
