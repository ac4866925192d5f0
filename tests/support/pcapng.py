"""A strict reader of pcapng files, written from the format's description and sharing no code with the proxy.

It reads what a capture of ours may hold and refuses everything else: one section, one interface, packets, at
most one block of statistics as the last.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SECTION, INTERFACE, PACKET, STATISTICS = 0x0A0D0D0A, 1, 6, 5
_PADDED: Final = 4


@dataclass(frozen=True)
class Captured:
    """One packet: nanoseconds since 1970, whether the guest sent it, what was kept of it, its length."""

    nanoseconds: int
    is_inbound: bool
    data: bytes
    length: int


@dataclass
class Contents:
    """A whole file. statistics: frames that passed, and those missing; None without that block."""

    application: str = ""
    interface: str = ""
    snaplen: int = 0
    packets: list[Captured] = field(default_factory=list)
    statistics: tuple[int, int] | None = None
    rest: bytes = b""

    @property
    def inbound(self) -> list[bytes]:
        """Frames of the guest, in order."""
        return [packet.data for packet in self.packets if packet.is_inbound]

    @property
    def outbound(self) -> list[bytes]:
        """Frames to the guest, in order."""
        return [packet.data for packet in self.packets if not packet.is_inbound]


def read(source: Path | bytes, *, cut_short: bool = False) -> Contents:
    """Every block of a file; asserts that each is as it should be.

    ``cut_short``: what follows the last whole block may be the begin of one; it is in ``rest``.
    """
    data = source.read_bytes() if isinstance(source, Path) else source
    found = Contents()
    kinds: list[int] = []
    while data:
        if cut_short and (len(data) < 8 or struct.unpack_from("<I", data, 4)[0] > len(data)):
            found.rest = data
            break
        kind, total = struct.unpack_from("<II", data)
        assert total % _PADDED == 0
        assert total <= len(data), f"a block of {total} bytes, and {len(data)} are left"
        assert struct.unpack_from("<I", data, total - 4)[0] == total, "the two lengths differ"
        _take(kind, data[8 : total - 4], found)
        kinds.append(kind)
        data = data[total:]
    assert kinds[:2] == [SECTION, INTERFACE] or (cut_short and not kinds)
    assert set(kinds[2:-1]) <= {PACKET}
    assert not kinds or kinds[-1] in (INTERFACE, PACKET, STATISTICS)
    return found


def _take(kind: int, body: bytes, found: Contents) -> None:
    if kind == SECTION:
        magic, major, minor, length = struct.unpack_from("<IHHq", body)
        assert (magic, major, minor, length) == (0x1A2B3C4D, 1, 0, -1)
        found.application = _options(body[16:])[4].decode()
    elif kind == INTERFACE:
        link, reserved, found.snaplen = struct.unpack_from("<HHI", body)
        assert (link, reserved) == (1, 0)
        options = _options(body[8:])
        found.interface = options[2].decode()
        assert options[9] == b"\x09", "not nanoseconds"
    elif kind == PACKET:
        found.packets.append(_packet(body))
    else:
        assert kind == STATISTICS
        assert found.statistics is None
        assert struct.unpack_from("<I", body)[0] == 0
        options = _options(body[12:])
        found.statistics = struct.unpack("<Q", options[4])[0], struct.unpack("<Q", options[5])[0]


def _packet(body: bytes) -> Captured:
    interface, high, low, kept, length = struct.unpack_from("<5I", body)
    assert interface == 0
    assert kept <= length
    end = 20 + kept
    padded = end + -kept % _PADDED
    assert not any(body[end:padded])
    options = _options(body[padded:])
    assert set(options) == {2}
    (flags,) = struct.unpack("<I", options[2])
    assert flags in (1, 2), "neither inbound nor outbound, or more than that"
    return Captured(high << 32 | low, flags == 1, body[20:end], length)


def _options(data: bytes) -> dict[int, bytes]:
    """Options by their code, up to the end of options, which has to be the end of all."""
    found: dict[int, bytes] = {}
    while True:
        code, size = struct.unpack_from("<HH", data)
        if code == 0:
            assert (size, len(data)) == (0, 4)
            return found
        assert code not in found
        found[code] = data[4 : 4 + size]
        padded = 4 + size + -size % _PADDED
        assert not any(data[4 + size : padded])
        data = data[padded:]
