"""A TCP client (RFC 9293): segments in, segments out, the time passed in. Pure.

Small, and correct within what it leaves out: it only opens connections, has no SACK, no window scaling and no
TIME-WAIT. Retransmission by RFC 6298 (rto.py), congestion control by RFC 5681 (congestion.py), resets by
RFC 5961 §3.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from dpkt.tcp import TH_ACK, TH_FIN, TH_PUSH, TH_RST, TH_SYN

from aero_l2.probe.congestion import Congestion
from aero_l2.probe.inbox import MASK, Inbox, difference
from aero_l2.probe.packets import Segment
from aero_l2.probe.rto import RetransmissionTimer

SEND_BUFFER: Final = 262_144
MAX_RETRANSMISSIONS: Final = 8
_DEFAULT_MSS: Final = 536  # RFC 9293 §3.7.1
_MIN_MSS: Final = 64
_HALF: Final = 0x8000_0000


class Fault(enum.Enum):
    """Why a connection failed."""

    RESET = enum.auto()
    TIMED_OUT = enum.auto()
    PROHIBITED = enum.auto()
    UNREACHABLE = enum.auto()


@dataclass(frozen=True, slots=True)
class Ports:
    """Ours and theirs."""

    local: int
    remote: int


class Connection:
    """One connection. What it wants to send is in `take_segments` after every call.

    Sequence numbers of ours are kept as plain growing integers, cut to 32 bits on the wire.
    """

    def __init__(self, ports: Ports, initial_seq: int, mss: int) -> None:
        self.ports = ports
        self.fault: Fault | None = None
        self.is_established = False
        self._is_over = False
        self._out: list[Segment] = []
        self._own_mss = self._mss = mss
        # sending: una to nxt is under way, the buffer holds una to end, and our FIN has the number end
        self._una = self._nxt = self._max = initial_seq
        self._first = self._end = initial_seq + 1
        self._buffer = bytearray()
        self._window = 0
        self._closing = False
        self._congestion = Congestion(mss)
        self._timer = RetransmissionTimer()
        self._inbox = Inbox(mss)

    # -- for whoever uses it

    @property
    def deadline(self) -> float | None:
        """When `tick` has something to do."""
        return self._timer.deadline

    @property
    def bytes_acknowledged(self) -> int:
        """Of what was written, the bytes that the other side has taken."""
        return min(max(self._una, self._first), self._end) - self._first

    @property
    def has_ended(self) -> bool:
        """The other side has sent its FIN, and all before it is read."""
        return self._inbox.has_ended

    @property
    def is_over(self) -> bool:
        """Nothing will be sent or taken any more."""
        return self._is_over or self.fault is not None

    def take_segments(self) -> list[Segment]:
        """What is to be sent now."""
        taken, self._out = self._out, []
        return taken

    def open(self, now: float) -> None:
        """Ask for the connection."""
        self._send_at(self._una, TH_SYN, mss=self._own_mss)
        self._nxt = self._max = self._una + 1
        self._timer.sent(self._nxt, now)

    def write(self, data: bytes, now: float) -> int:
        """Take data to send, as far as there is room; returns how many bytes."""
        if self.is_over or self._closing:
            return 0
        taken = data[: max(SEND_BUFFER - len(self._buffer), 0)]
        self._buffer += taken
        self._end += len(taken)
        self._transmit(now)
        return len(taken)

    def read(self) -> bytes:
        """All that has come in order."""
        data = self._inbox.read()
        if self.is_established and not self.is_over and self._inbox.has_opened:
            self._acknowledge()
        return data

    def close(self, now: float) -> None:
        """Send FIN behind what was written."""
        self._closing = True
        if self.is_established and not self.is_over:
            self._transmit(now)

    def abort(self) -> None:
        """Send RST: nothing more is wanted."""
        if self.is_established and not self.is_over:
            self._send_at(self._nxt, TH_RST | TH_ACK)
        self._finish()

    def fail(self, fault: Fault) -> None:
        """End it: the network says so."""
        if not self.is_over:
            self.fault = fault
        self._finish()

    # -- what comes

    def receive(self, came: Segment, now: float) -> None:
        """Take a segment of this connection."""
        if self.is_over:
            return
        if not self.is_established:
            self._receive_opening(came, now)
            return
        offset = difference(came.seq, self._inbox.nxt)
        if came.flags & TH_RST:
            self._receive_reset(offset)
        elif came.flags & TH_SYN or offset > self._inbox.room:
            self._acknowledge()  # RFC 5961 §4, RFC 9293 §3.10.7.4
        elif came.flags & TH_ACK and self._receive_ack(came, now):
            if self._inbox.take(came, offset):
                self._acknowledge()
            self._transmit(now)
            if self._inbox.fin and self._closing and self._una == self._end + 1:
                self._finish()

    def flush(self) -> None:
        """Acknowledge what has not been yet: after each batch of segments."""
        if self._inbox.unacknowledged and not self.is_over:
            self._acknowledge()

    def tick(self, now: float) -> None:
        """Retransmit what is due."""
        if not self._timer.is_due(now):
            return
        if self._timer.retries >= MAX_RETRANSMISSIONS:
            self.fail(Fault.TIMED_OUT)
            return
        self._timer.backed_off(now)
        if not self.is_established:
            self._send_at(self._una, TH_SYN, mss=self._own_mss)
            return
        self._congestion.timed_out(self._nxt - self._una)
        self._nxt = self._una
        self._resend_first()

    def _receive_opening(self, came: Segment, now: float) -> None:
        acknowledges = bool(came.flags & TH_ACK)
        fits = acknowledges and came.ack == (self._una + 1) & MASK
        if acknowledges and not fits:
            if not came.flags & TH_RST:
                ports = self.ports
                self._out.append(Segment(ports.local, ports.remote, came.ack, 0, TH_RST, 0))
        elif came.flags & TH_RST:
            if fits:
                self.fail(Fault.RESET)
        elif came.flags & TH_SYN and fits:
            self.is_established = True
            self._una += 1
            self._inbox.nxt = (came.seq + 1) & MASK
            self._window = came.window
            self._mss = max(min(self._own_mss, came.mss or _DEFAULT_MSS), _MIN_MSS)
            self._congestion = Congestion(self._mss)
            self._timer.acknowledged(self._una, now, outstanding=False)
            self._acknowledge()
            self._transmit(now)

    def _receive_reset(self, offset: int) -> None:
        if offset == 0:
            self.fail(Fault.RESET)
        elif 0 < offset < self._inbox.room:
            self._acknowledge()

    def _receive_ack(self, came: Segment, now: float) -> bool:
        """What it acknowledges; False: it is not to be looked at further."""
        ahead = (came.ack - self._una) & MASK
        if ahead > self._max - self._una:
            if ahead < _HALF:
                self._acknowledge()
                return False
            return True  # an old one: its data may be new
        if ahead == 0 and came.window and not self._window:
            self._nxt = self._una  # the window opens, and what asked for that was not taken
        elif ahead == 0:
            self._receive_duplicate(came)
        else:
            self._advance(self._una + ahead, now)
        self._window = came.window
        return True

    def _receive_duplicate(self, came: Segment) -> None:
        is_duplicate = not came.data and not came.flags & TH_FIN and came.window == self._window
        if not is_duplicate or self._una == self._nxt:
            return
        if self._congestion.duplicate(self._una, self._nxt):
            self._timer.forget_sample()
            self._resend_first()

    def _advance(self, to: int, now: float) -> None:
        """The other side has taken everything before ``to``."""
        del self._buffer[: to - self._una]  # a FIN is beyond its end
        taken = to - self._una
        self._una = to
        self._nxt = max(self._nxt, to)
        if self._congestion.acknowledged(taken, to):
            self._timer.forget_sample()
            self._resend_first()
        self._timer.acknowledged(to, now, outstanding=self._nxt > to)

    # -- what goes

    def _transmit(self, now: float) -> None:
        """Send what the windows allow (RFC 9293 §3.8.6.2.1), and the FIN behind it."""
        if not self.is_established or self.is_over:
            return
        end = self._end
        limit = self._una + min(self._congestion.window, self._window)
        while self._nxt < end:
            size = min(self._mss, end - self._nxt, limit - self._nxt)
            if size <= 0 or (size < min(self._mss, end - self._nxt) and self._nxt > self._una):
                break
            self._send_data(self._nxt, size)
            self._count_sent(self._nxt + size, now)
        if self._closing and self._nxt == end:
            self._send_at(end, TH_FIN | TH_ACK)
            self._count_sent(end + 1, now)
        if self._nxt == self._una and self._nxt < end:
            self._timer.wait_for_window(now)

    def _count_sent(self, to: int, now: float) -> None:
        self._nxt = to
        self._max = max(self._max, to)
        self._timer.sent(to, now)

    def _resend_first(self) -> None:
        """Once more what the other side waits for; a byte if its window is closed (RFC 9293 §3.8.6.1)."""
        size = min(self._mss, self._end - self._una, max(self._window, 1))
        if size > 0:
            self._send_data(self._una, size)
        elif self._closing:
            self._send_at(self._una, TH_FIN | TH_ACK)
            size = 1
        self._nxt = max(self._nxt, self._una + size)
        self._max = max(self._max, self._nxt)

    def _send_data(self, seq: int, size: int) -> None:
        start = seq - self._una
        self._send_at(seq, TH_ACK | TH_PUSH, bytes(self._buffer[start : start + size]))

    def _send_at(self, seq: int, flags: int, data: bytes = b"", mss: int | None = None) -> None:
        ack = self._inbox.acknowledge() if flags & TH_ACK else 0
        ports = self.ports
        sent = Segment(ports.local, ports.remote, seq & MASK, ack, flags, self._inbox.room, data, mss)
        self._out.append(sent)

    def _acknowledge(self) -> None:
        self._send_at(self._nxt, TH_ACK)

    def _finish(self) -> None:
        self._is_over = True
        self._buffer.clear()
        self._timer.stop()
