"""A guest's DNS query: bytes to a value or to a refusal, and replies back to bytes. Pure.

RFC 1035 section 4, RFC 6891 (EDNS), RFC 9619 (one question), RFC 9210 section 4 (TCP).
"""

import struct
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import dns.exception
import dns.flags
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.wire
from dns.message import QueryMessage
from dns.rcode import Rcode
from dns.rdatatype import RdataType

# What we promise to take (DNS flag day 2020). A query that needs more is no query, over TCP neither: reading
# a long one holds up every other tunnel.
MAX_QUERY_BYTES: Final = 1232
MAX_UDP_BYTES: Final = 1232
PLAIN_UDP_BYTES: Final = 512
MAX_TCP_BYTES: Final = 65_535

_HEADER: Final = struct.Struct("!HHHHHH")
_OPT: Final = struct.Struct("!BHHIH")
# Labels up to which every suffix of a name is worth a pointer to it.
_COMPRESSED_LABELS: Final = 16
_MAX_POINTER: Final = 0x3FFF
_OPCODE_BITS: Final = 0x7800
_ECHOED_FLAGS: Final = dns.flags.RD | dns.flags.CD


class AskedName(dns.name.Name):
    """The name of a guest's question, whose writing never costs more than its length.

    dnspython tries every suffix of a name for compression, which takes milliseconds for a hundred labels; a
    name as long as that is written whole, or as one pointer to itself.
    """

    def to_wire(
        self,
        file: Any = None,
        compress: dict[dns.name.Name, int] | None = None,
        origin: dns.name.Name | None = None,
        canonicalize: bool = False,
    ) -> bytes | None:
        """Write the name as `dns.name.Name.to_wire` does; without `file`, return its bytes."""
        if file is None or len(self.labels) <= _COMPRESSED_LABELS:
            return super().to_wire(file, compress, origin, canonicalize)
        position = None if compress is None else compress.get(self)
        if position is not None:
            file.write((0xC000 | position).to_bytes(2, "big"))
            return None
        if compress is not None and file.tell() <= _MAX_POINTER:
            compress[self] = file.tell()
        file.write(super().to_wire(canonicalize=canonicalize))
        return None


@dataclass(frozen=True, slots=True)
class Query:
    """One question of the guest. `name` keeps the case it was asked in.

    `flags`: the header's flags. `edns`: it had an OPT record; then `payload` is the largest answer it takes
    over UDP, in bytes, and `dnssec_ok` its DO bit.
    """

    id: int
    name: dns.name.Name
    rdtype: RdataType
    flags: int = int(dns.flags.RD)
    edns: bool = False
    payload: int = PLAIN_UDP_BYTES
    dnssec_ok: bool = False

    @property
    def wants_ad(self) -> bool:
        """Whether the guest understands "authenticated data" in an answer (RFC 6840 section 5.7)."""
        return self.dnssec_ok or bool(self.flags & dns.flags.AD)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A query that is answered at once and not resolved: the whole answer and its rcode."""

    wire: bytes
    rcode: Rcode


def read(wire: bytes) -> Query | Refusal | None:
    """Judge what the guest sent; None means silence (a response, or too short for an id). Never raises."""
    if len(wire) < 2 or (len(wire) > 2 and wire[2] & 0x80):
        return None
    if len(wire) < _HEADER.size:
        return _bare(int.from_bytes(wire[:2], "big"), 0, dns.rcode.FORMERR)
    identifier, flags, questions, answers, authority, additional = _HEADER.unpack_from(wire)
    if flags & _OPCODE_BITS:
        return _bare(identifier, flags, dns.rcode.NOTIMP)
    # One authority record is IXFR's; OPT and TSIG are the only additional ones. More is only work for us.
    if questions != 1 or answers or authority > 1 or additional > 2 or len(wire) > MAX_QUERY_BYTES:
        return _bare(identifier, flags, dns.rcode.FORMERR)
    try:
        return _judge(wire, authority, additional)
    except dns.exception.DNSException:
        return _bare(identifier, flags, dns.rcode.FORMERR)


def reply_to(query: Query, rcode: Rcode = dns.rcode.NOERROR) -> QueryMessage:
    """Start an answer without records: the query's id, question, RD and CD, and OPT only if it had one."""
    reply = QueryMessage(id=query.id)
    reply.flags = dns.flags.QR | dns.flags.RA | dns.flags.Flag(query.flags & _ECHOED_FLAGS)
    reply.question = [dns.rrset.RRset(query.name, dns.rdataclass.IN, query.rdtype)]
    if query.edns:
        reply.use_edns(0, dns.flags.DO if query.dnssec_ok else 0, MAX_UDP_BYTES)
    elif rcode > 15:  # the upper bits of an rcode travel in OPT
        rcode = dns.rcode.SERVFAIL
    reply.set_rcode(rcode)
    return reply


def encode(reply: QueryMessage, query: Query, *, tcp: bool) -> bytes:
    """Write an answer as large as the way back allows; what does not fit is left out under TC.

    Records of a set that is too large are kept as far as they fit (RFC 2181 section 9): a client that cannot
    do TCP, like most firmware, still gets addresses.
    """
    if not (reply.answer or reply.authority or reply.additional):
        return _without_records(reply, query)
    limit = MAX_TCP_BYTES if tcp else min(max(query.payload, PLAIN_UDP_BYTES), MAX_UDP_BYTES)
    try:
        return reply.to_wire(max_size=limit)
    except dns.exception.TooBig:
        reply.answer = [
            dns.rrset.from_rdata(rrset.name, rrset.ttl, rdata) for rrset in reply.answer for rdata in rrset
        ]
        return reply.to_wire(max_size=limit, prefer_truncation=True)


def _judge(wire: bytes, authority: int, additional: int) -> Query | Refusal:
    """Read the question and what EDNS says of the way back. DNSException if this is no message.

    Records are stepped over by their lengths: a guest chooses what is in them, and to build values of data
    that nobody looks at takes milliseconds.
    """
    identifier, flags = struct.unpack_from("!HH", wire)
    parser = dns.wire.Parser(wire, _HEADER.size)
    name = AskedName(parser.get_name().labels)
    rdtype, rdclass = parser.get_struct("!HH")
    query = Query(identifier, name, RdataType.make(rdtype), flags)
    version = 0
    for index in range(authority + additional):
        owner = parser.get_name()
        kind, payload, ttl, length = parser.get_struct("!HHIH")
        parser.get_bytes(length)
        if kind != dns.rdatatype.OPT:
            continue
        if query.edns or index < authority or owner != dns.name.root:
            raise dns.exception.FormError
        query = replace(query, edns=True, payload=payload, dnssec_ok=bool(ttl & dns.flags.DO))
        version = ttl >> 16 & 0xFF
    if parser.remaining():
        raise dns.exception.FormError
    if version:
        return _refuse(query, dns.rcode.BADVERS)
    if rdclass != dns.rdataclass.IN or query.rdtype in (dns.rdatatype.AXFR, dns.rdatatype.IXFR):
        return _refuse(query, dns.rcode.REFUSED)
    return query


def _without_records(reply: QueryMessage, query: Query) -> bytes:
    """What `to_wire` makes of an empty answer, without its toil: most of a flood's queries end here."""
    head = _HEADER.pack(reply.id, int(reply.flags), 1, 0, 0, int(query.edns))
    question = cast(bytes, query.name.to_wire()) + struct.pack("!HH", query.rdtype, reply.question[0].rdclass)
    if not query.edns:
        return head + question
    return head + question + _OPT.pack(0, dns.rdatatype.OPT, MAX_UDP_BYTES, reply.ednsflags, 0)


def _refuse(query: Query, rcode: Rcode) -> Refusal:
    return Refusal(encode(reply_to(query, rcode), query, tcp=False), rcode)


def _bare(identifier: int, flags: int, rcode: Rcode) -> Refusal:
    """A header and nothing else: for what could not be read, or is not read."""
    kept = flags & (_OPCODE_BITS | dns.flags.RD)
    return Refusal(_HEADER.pack(identifier, dns.flags.QR | dns.flags.RA | kept | rcode, 0, 0, 0, 0), rcode)
