"""What it costs to read an upstream's answer and to write it again, before either is done. Pure.

Whoever owns a zone chooses what is in an answer, and one of 64 KiB can take seconds on the loop that all
tunnels share. The costs below are near to microseconds of one core, measured with dnspython 2.9.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import dns.rdataclass
from dns.rdatatype import RdataType

# About five milliseconds: fifty addresses, or 16 KiB of TXT in strings of full length.
MAX_COST: Final = 4000
# Beyond, a name cannot be pointed to (RFC 1035 section 4.1.4) and every record spells it out.
MAX_ANSWER_BYTES: Final = 16 * 1024

_RECORD: Final = 50
_NAME: Final = 10
_STRING: Final = 6
# Of a type that is not in the table: as if there were the longest name in it.
_UNKNOWN: Final = 2500
_REFUSED: Final = MAX_COST + 1
_HEADER_BYTES: Final = 12
_MAX_LABELS: Final = 128
_POINTER: Final = 0xC0


@dataclass(frozen=True, slots=True)
class _Shape:
    """Data of a type: where its names begin, how many follow each other, what each byte after them costs."""

    skip: int = 0
    names: int = 0
    per_byte: int = 0


_PLAIN: Final = _Shape()
_ONE_NAME: Final = _Shape(names=1)
_SHAPES: Final[Mapping[int, _Shape]] = {
    **dict.fromkeys(
        (
            RdataType.A,
            RdataType.AAAA,
            RdataType.CAA,
            RdataType.CDNSKEY,
            RdataType.CDS,
            RdataType.CERT,
            RdataType.DNSKEY,
            RdataType.DS,
            RdataType.HINFO,
            RdataType.LOC,
            RdataType.NSEC3PARAM,
            RdataType.OPENPGPKEY,
            RdataType.SMIMEA,
            RdataType.SSHFP,
            RdataType.TLSA,
            RdataType.URI,
        ),
        _PLAIN,
    ),
    **dict.fromkeys((RdataType.CNAME, RdataType.DNAME, RdataType.NS, RdataType.PTR), _ONE_NAME),
    **dict.fromkeys((RdataType.AFSDB, RdataType.KX, RdataType.MX, RdataType.RT), _Shape(2, 1)),
    RdataType.RP: _Shape(names=2),
    RdataType.SOA: _Shape(names=2),
    RdataType.SRV: _Shape(6, 1),
    RdataType.RRSIG: _Shape(18, 1),
    RdataType.NSEC: _Shape(names=1, per_byte=2),
    RdataType.NSEC3: _Shape(per_byte=2),
    RdataType.SVCB: _Shape(2, 1, 3),
    RdataType.HTTPS: _Shape(2, 1, 3),
}


def of_answer(wire: bytes | bytearray) -> int:
    """Estimate what the answer `wire` costs; exact only up to MAX_COST.

    Of an answer that is broken, what it costs up to there: reading it ends there too.
    """
    if len(wire) > MAX_ANSWER_BYTES:
        return _REFUSED
    walk = _Walk(wire)
    with suppress(IndexError, _Broken):
        walk.message()
    return walk.cost


class _Broken(Exception):
    """What follows cannot be read."""


class _Walk:
    """One pass over an answer. `cost` grows as it goes."""

    def __init__(self, wire: bytes | bytearray) -> None:
        self.cost = 0
        self._wire = wire
        # Labels and bytes of the names that begin at an offset and were met: these can be pointed to.
        self._met: dict[int, tuple[int, int]] = {}

    def message(self) -> None:
        if len(self._wire) < _HEADER_BYTES:
            return
        questions, *records = (self._number(at) for at in range(4, _HEADER_BYTES, 2))
        at = _HEADER_BYTES
        for _ in range(questions):
            at = self._name(at) + 4
            self._enough()
        for _ in range(sum(records)):
            at = self._record(at)
            self._enough()

    def _enough(self) -> None:
        if self.cost > MAX_COST:
            raise _Broken

    def _number(self, at: int) -> int:
        return self._wire[at] << 8 | self._wire[at + 1]

    def _record(self, at: int) -> int:
        at = self._name(at)
        self.cost += _RECORD
        rdtype, rdclass, length = self._number(at), self._number(at + 2), self._number(at + 8)
        at += 10
        if rdtype == RdataType.OPT:
            self.cost += 3 * length
        elif rdclass != dns.rdataclass.IN:  # nobody asked for it
            self.cost += _REFUSED
        else:
            self._data(rdtype, at, at + length)
        return at + length

    def _data(self, rdtype: int, at: int, end: int) -> None:
        if rdtype in (RdataType.TXT, RdataType.SPF):
            while at < end:
                self.cost += _STRING
                at += 1 + self._wire[at]
            return
        if rdtype == RdataType.NAPTR:
            at += 4
            for _ in range(3):
                at += 1 + self._wire[at]
            shape = _ONE_NAME
        elif rdtype in _SHAPES:
            shape = _SHAPES[rdtype]
        else:
            # The only one with names without number.
            self.cost += _REFUSED if rdtype == RdataType.HIP else _UNKNOWN + 6 * (end - at)
            return
        at += shape.skip
        for _ in range(shape.names):
            at = self._name(at)
        self.cost += shape.per_byte * max(0, end - at)

    def _name(self, at: int) -> int:
        """Charge for the name at `at`; return where it ends.

        Every suffix of a name that was not written before is tried for a pointer, each at the price of its
        length: that makes a new name's cost the square of its labels.
        """
        wire, met = self._wire, self._met
        new: list[int] = []
        end = 0
        bound = at
        labels, size = 0, 1
        while wire[at]:
            if end and at in met:
                labels, size = met[at]
                break
            step = wire[at]
            if step >= _POINTER:
                target = (step & ~_POINTER) << 8 | wire[at + 1]
                if target >= bound:
                    raise _Broken
                end = end or at + 2
                at = bound = target
                continue
            new.append(at)
            if step >= 0x40 or len(new) > _MAX_LABELS:
                raise _Broken
            at += 1 + step
        for start in reversed(new):
            labels, size = labels + 1, size + 1 + wire[start]
            met[start] = labels, size
        self.cost += _NAME + labels + size // 4 + len(new) * labels // 2
        return end or at + 1
