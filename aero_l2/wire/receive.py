"""Incoming WebSocket bytes → batches of binary messages.

Nearly all traffic is complete, final, masked, binary frames; those are taken apart here. Every other frame
(control, text, fragments, anything illegal) goes to websockets' sans-I/O protocol, byte for byte. The library
is only ever given whole frames, so between two calls it holds no part of one, and while it has a fragmented
message open it gets every frame. The exception is a frame it is bound to refuse: it gets what there is of it
and fails the connection. tests/unit/test_wire_receive.py compares both ways on random streams.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from websockets.frames import BINARY, CONT, PING, PONG, TEXT, Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

try:
    from websockets.speedups import apply_mask
except ImportError:  # no C extension for this machine: the same in Python
    from websockets.utils import apply_mask

from aero_l2.wire.tunnel import cut_utf8

MAX_FRAMES_PER_BATCH: Final = 64
"""A tunnel's share of a turn of the event loop, about 1.5 ms (docs/performance.md). Fewer than fill a read of
256 KiB: libuv repeats full reads up to 32 times in a turn unless reading is paused."""
FRAGMENTS_PER_MESSAGE: Final = 64
"""A message in more fragments costs as many messages more; else a limit of messages bounds no frames."""
MAX_CLOSE_REASON_BYTES: Final = 123

_LIBRARY_BYTES_PER_BATCH: Final = 16 * 1024
_FINAL_BINARY: Final = 0x82
_MASKED: Final = 0x80
_MASKED_U16: Final = 0x80 | 126
_MASKED_U64: Final = 0x80 | 127
_CLOSE: Final = 0x8
_KNOWN_OPCODES: Final = frozenset((0x0, 0x1, 0x2, _CLOSE, 0x9, 0xA))
_CONTROL_KINDS: Final[dict[Opcode, Literal["ping", "pong"]]] = {PING: "ping", PONG: "pong"}
_LIBRARY_LOGGER: Final = logging.getLogger("aero_l2.wire.websockets")
_LIBRARY_LOGGER.setLevel(logging.WARNING)  # below that it describes every frame, guests' data included


class Aside(NamedTuple):
    """A message with nothing in it for the tunnel, which costs all the same: text, ping or pong of RFC 6455.

    Work that is like one, too: "fragments" stands for `FRAGMENTS_PER_MESSAGE` frames that ended no message.

    before: binary messages of the same batch that came ahead of it. size: bytes of its payload.
    """

    before: int
    size: int
    kind: Literal["text", "ping", "pong", "fragments"]

    @property
    def reply_size(self) -> int:
        """Bytes of the payload of the answer it gets."""
        return self.size if self.kind == "ping" else 0


class Batch(NamedTuple):
    """What one call found.

    messages: binary messages in order.
    outgoing: bytes the protocol wants written after the replies to `messages` (pongs, close frames).
    ended: the protocol has nothing more to say or hear: half-close after `outgoing`.
    backlog: more is buffered than one turn may take, or a close frame comes behind `messages`, which may end
        the connection in words of our own first; call `receive(b"")` in the next turn.
    asides: the messages that are not binary, in order.
    """

    messages: list[bytes]
    outgoing: bytes
    ended: bool
    backlog: bool
    asides: Sequence[Aside] = ()


_NOTHING_MORE: Final = Batch([], b"", ended=True, backlog=False)


class Receiver:
    """Receiving side of one WebSocket connection, from the first byte after the handshake.

    A message over `max_message` bytes fails the connection with 1009 before it is buffered, at most
    `MAX_FRAMES_PER_BATCH` frames are taken a call, and no more than one frame is held between calls; once the
    connection has ended, nothing is.
    permessage-deflate is not there. With `library_only` every byte goes through the library.
    """

    def __init__(self, max_message: int, *, library_only: bool = False) -> None:
        self._protocol = ServerProtocol(state=OPEN, max_size=max_message, logger=_LIBRARY_LOGGER)
        self._max_message = max_message
        self._everything_to_library = library_only
        self._data = b""
        self._position = 0
        self._fragments = bytearray()
        self._fragment_count = 0
        self._fragments_are_text = False
        self._text_bytes = 0
        self._asides: list[Aside] = []

    @property
    def peer_closed(self) -> bool:
        """Whether the peer's close frame has arrived."""
        return self._protocol.close_rcvd is not None

    @property
    def failure(self) -> tuple[int, str] | None:
        """Close code and reason with which the library failed the connection, else None."""
        sent = self._protocol.close_sent
        if self._protocol.parser_exc is None or sent is None:
            return None
        return int(sent.code), sent.reason

    @property
    def held(self) -> int:
        """Bytes that are kept for later calls."""
        return len(self._data) + len(self._fragments)

    def receive(self, data: bytes) -> Batch:
        """Take what the socket had; see `Batch`. Never raises on what a peer can send."""
        protocol = self._protocol
        if protocol.eof_sent:
            return _NOTHING_MORE
        if self._position < len(self._data):
            data = self._data[self._position :] + data
        self._data = data
        self._position = 0
        messages: list[bytes] = []
        backlog = self._parse_library(messages) if self._everything_to_library else self._parse(messages)
        if self._position and not backlog:
            self._data = self._data[self._position :]
            self._position = 0
        if protocol.eof_sent:
            self._drop_all()
            backlog = False
        if not (self._asides or protocol.writes):
            return Batch(messages, b"", protocol.eof_sent, backlog)
        asides, self._asides = self._asides or (), []
        return Batch(messages, b"".join(protocol.data_to_send()), protocol.eof_sent, backlog, asides)

    def release(self) -> None:
        """Nothing will be received any more: drop what is held, and what the library has in circles."""
        self._drop_all()
        self._protocol.parser.close()
        if failure := self._protocol.parser_exc:
            failure.__traceback__ = None

    def close(self, code: int, reason: str) -> bytes:
        """Start the closing handshake: the close frame to write, empty if one was written before."""
        if self._protocol.state is not OPEN:
            return b""
        self._protocol.send_close(code, cut_utf8(reason, MAX_CLOSE_REASON_BYTES).decode())
        return b"".join(self._protocol.data_to_send())

    def ping(self) -> bytes:
        """A ping to write, without payload; empty once the closing handshake has begun."""
        if self._protocol.state is not OPEN:
            return b""
        self._protocol.send_ping(b"")
        return b"".join(self._protocol.data_to_send())

    def _parse(self, messages: list[bytes]) -> bool:
        """Work through the buffer; True if it stopped for its share of the turn being used up."""
        room = MAX_FRAMES_PER_BATCH
        while room > 0 and not self._everything_to_library:
            if self._protocol.current_size is None:
                room -= self._parse_plain(messages, room)
                if room <= 0:
                    break
            if messages and self._is_close_next():
                break
            if not self._parse_other(messages):
                return False
            room -= 1
        return self._position < len(self._data)

    def _parse_plain(self, messages: list[bytes], room: int) -> int:
        """Take plain frames from the head of the buffer, at most `room`; returns how many."""
        data = self._data
        position = self._position
        end = len(data)
        max_message = self._max_message
        append = messages.append
        taken = 0
        while taken < room and end - position >= 8 and data[position] == _FINAL_BINARY:
            length = data[position + 1]
            if length == _MASKED_U16:
                length = (data[position + 2] << 8) | data[position + 3]
                start = position + 8
            elif _MASKED <= length < _MASKED_U16:
                length -= _MASKED
                start = position + 6
            else:
                break
            stop = start + length
            if stop > end or length > max_message:
                break
            append(apply_mask(data[start:stop], data[start - 4 : start]))
            position = stop
            taken += 1
        self._position = position
        return taken

    def _is_close_next(self) -> bool:
        """Whether the frame at the head of the buffer is a close frame."""
        return self._position < len(self._data) and self._data[self._position] & 0x0F == _CLOSE

    def _parse_other(self, messages: list[bytes]) -> bool:
        """Hand the frame at the head of the buffer to the library; False if it is not complete."""
        size = self._frame_size()
        if size is None or self._position + size > len(self._data):
            return False
        self._to_library(self._position + size, messages)
        return True

    def _frame_size(self) -> int | None:
        """Bytes of the frame at the head of the buffer, None while its header is not complete.

        A header that the library refuses on sight makes it the owner of all that follows.
        """
        data, position = self._data, self._position
        available = len(data) - position
        if available < 2:
            return None
        first, second = data[position], data[position + 1]
        if first & 0x0F not in _KNOWN_OPCODES or second < _MASKED:
            return self._give_up(available)
        header, length = 6, second - _MASKED
        if second == _MASKED_U16:
            header = 8
            if available < 4:
                return None
            length = int.from_bytes(data[position + 2 : position + 4], "big")
        elif second == _MASKED_U64:
            header = 14
            if available < 10:
                return None
            length = int.from_bytes(data[position + 2 : position + 10], "big")
        if length > self._max_message - (self._protocol.current_size or 0):
            return self._give_up(available)
        return header + length

    def _give_up(self, available: int) -> int:
        self._everything_to_library = True
        return available

    def _parse_library(self, messages: list[bytes]) -> bool:
        stop = min(len(self._data), self._position + _LIBRARY_BYTES_PER_BATCH)
        if stop > self._position:
            self._to_library(stop, messages)
        return self._position < len(self._data)

    def _drop_all(self) -> None:
        self._data = b""
        self._position = 0
        self._fragments.clear()

    def _to_library(self, stop: int, messages: list[bytes]) -> None:
        chunk = self._data[self._position : stop]
        self._position = stop
        self._protocol.receive_data(chunk)
        if self._protocol.eof_sent:
            self._everything_to_library = True
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._collect(event, messages)

    def _collect(self, frame: Frame, messages: list[bytes]) -> None:
        """Put fragments together; a bytearray, so that empty ones cost nothing however many come."""
        if frame.opcode is BINARY or frame.opcode is TEXT:
            self._fragments_are_text = frame.opcode is TEXT
            self._text_bytes = self._fragment_count = 0
        elif frame.opcode is not CONT:
            if kind := _CONTROL_KINDS.get(frame.opcode):
                self._asides.append(Aside(len(messages), len(frame.data), kind))
            return
        if self._fragments_are_text:
            self._text_bytes += len(frame.data)
        elif frame.fin and not self._fragments:
            messages.append(bytes(frame.data))
            return
        else:
            self._fragments += frame.data
        if not frame.fin:
            self._fragment_count += 1
            if self._fragment_count % FRAGMENTS_PER_MESSAGE == 0:
                self._asides.append(Aside(len(messages), 0, "fragments"))
        else:
            if self._fragments_are_text:
                self._asides.append(Aside(len(messages), self._text_bytes, "text"))
            else:
                messages.append(bytes(self._fragments))
            self._fragments.clear()
