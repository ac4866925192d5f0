"""TCP connects of a guest that nobody answers: noted by its frames, ended at a deadline. Pure.

Connection tracking cannot do it: the time-out of an entry sends no RST, and each SYN sent again renews it.
Frames are Ethernet with IPv4 (RFC 791, RFC 9293); VLAN tags and fragments are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from aero_l2.wire.checksum import internet_checksum

MAX_PENDING: Final = 2048
"""Connects noted at a time, twice the usual limit of flows. Those beyond are left to the guest's own
patience: to forget an older one in their favour would break a promise already made."""
SYN_BYTES: Final = 134
"""Longest frame that is looked at: Ethernet, and both headers with all the options they can have."""
MAX_EXPIRED: Final = 64
"""Ended at a time; many that are due together must not hold up the event loop."""

_ETHERNET = 14
_TCP, _ICMP = 6, 1
_FIN, _SYN, _RST, _ACK = 0x01, 0x02, 0x04, 0x10
_OPENING = _FIN | _SYN | _RST | _ACK
_SYN_OR_RST = _SYN | _RST
_GUEST = bytes((10, 0, 2, 15))
_MULTICAST = 224
_UNREACHABLE, _TIME_EXCEEDED = 3, 11
_HOPS = 64

_Key = bytes
"""Address and port that were dialled, port of the guest: 8 bytes."""


@dataclass(frozen=True, slots=True)
class _Connect:
    deadline: float
    number: int
    """Initial sequence number."""
    addresses: bytes
    """Of Ethernet, destination and source, as the guest wrote them."""


@dataclass(frozen=True, slots=True)
class TimedOut:
    """A connect whose time is over. to_guest, to_nat: the RST for either side, as frames."""

    to_guest: bytes
    to_nat: bytes


class Connects:
    """Connects of one tunnel that wait for an answer. Times in seconds of one monotonic clock."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._pending: dict[_Key, _Connect] = {}

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def next_deadline(self) -> float | None:
        """When the first of them is over."""
        first = next(iter(self._pending.values()), None)
        return None if first is None else first.deadline

    def from_guest(self, frames: Sequence[bytes], now: float) -> None:
        """Note the guest's SYNs, and forget what it resets itself.

        A SYN that is sent again changes nothing, unless it has another sequence number.
        """
        for frame in frames:
            # TCP in the usual place, or options before it; everything else is sorted out in `_note`.
            if (
                53 < len(frame) <= SYN_BYTES
                and frame[23] == _TCP
                and (frame[47] & _SYN_OR_RST or frame[14] != 0x45)
            ):
                self._note(frame, now)

    def to_guest(self, frames: Iterable[bytes]) -> None:
        """Forget the connects that these frames answer: SYN-ACK, RST, ICMP error."""
        for frame in frames:
            if len(frame) < 54:
                continue
            if frame[23] == _TCP:
                at = _ETHERNET + (frame[14] & 15) * 4
                if len(frame) > at + 13 and frame[at + 13] & _SYN_OR_RST:
                    self._pending.pop(frame[26:30] + frame[at : at + 4], None)
            elif frame[23] == _ICMP and frame[34] in (_UNREACHABLE, _TIME_EXCEEDED):
                self._forget_quoted(frame[42:])

    def expire(self, now: float) -> list[TimedOut]:
        """Take out connects whose time is over, the first `MAX_EXPIRED`."""
        over: list[_Key] = []
        for key, connect in self._pending.items():
            if connect.deadline > now or len(over) == MAX_EXPIRED:
                break  # all have the same time, so they are in order
            over.append(key)
        return [_timed_out(key, self._pending.pop(key)) for key in over]

    def _note(self, frame: bytes, now: float) -> None:
        at = _ETHERNET + (frame[14] & 15) * 4
        if (
            frame[12:15] < b"\x08\x00\x45"
            or frame[12:15] > b"\x08\x00\x4f"
            or len(frame) < at + 20
            or frame[20:22] not in (b"\x00\x00", b"\x40\x00")  # a fragment
            or frame[26:30] != _GUEST
            or frame[30] >= _MULTICAST
        ):
            return
        key = frame[30:34] + frame[at + 2 : at + 4] + frame[at : at + 2]
        if frame[at + 13] & _RST:
            self._pending.pop(key, None)
        if frame[at + 13] & _OPENING != _SYN:
            return
        number = int.from_bytes(frame[at + 4 : at + 8])
        known = self._pending.get(key)
        if known is not None:
            if known.number == number:
                return
            del self._pending[key]  # the new one goes to the end
        if len(self._pending) < MAX_PENDING:
            self._pending[key] = _Connect(now + self._timeout_s, number, frame[:12])

    def _forget_quoted(self, quoted: bytes) -> None:
        """The header an ICMP error is about, and eight bytes at least (RFC 792): the guest's own SYN."""
        if len(quoted) < 28 or quoted[9] != _TCP:
            return
        at = (quoted[0] & 15) * 4
        self._pending.pop(quoted[16:20] + quoted[at + 2 : at + 4] + quoted[at : at + 2], None)


def _timed_out(key: _Key, connect: _Connect) -> TimedOut:
    dialled, there, here = key[:4], key[4:6], key[6:]
    gateway, guest = connect.addresses[:6], connect.addresses[6:]
    following = ((connect.number + 1) & 0xFFFFFFFF).to_bytes(4)
    refusal = there + here + bytes(4) + following + bytes((0x50, _RST | _ACK))  # RFC 9293 section 3.5.2
    ending = here + there + following + bytes(4) + bytes((0x50, _RST))
    return TimedOut(
        to_guest=guest + gateway + b"\x08\x00" + _packet(dialled, _GUEST, refusal),
        to_nat=connect.addresses + b"\x08\x00" + _packet(_GUEST, dialled, ending),
    )


def _packet(source: bytes, destination: bytes, segment: bytes) -> bytes:
    """IPv4 packet of a TCP header up to its flags; window, checksum and urgent pointer follow."""
    header = b"\x45\x00\x00\x28\x00\x00\x40\x00" + bytes((_HOPS, _TCP))
    ip_sum = internet_checksum(header + source + destination)
    pseudo = source + destination + b"\x00\x06\x00\x14"
    tcp_sum = internet_checksum(pseudo + segment)
    return header + ip_sum + source + destination + segment + b"\x00\x00" + tcp_sum + b"\x00\x00"
