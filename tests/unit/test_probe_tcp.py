"""The probe's TCP client, segment by segment."""

from __future__ import annotations

import pytest
from dpkt.tcp import TH_ACK, TH_FIN, TH_RST, TH_SYN
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.probe.inbox import WINDOW
from aero_l2.probe.packets import Segment
from aero_l2.probe.tcp import MAX_RETRANSMISSIONS, SEND_BUFFER, Connection, Fault, Ports

PORTS = Ports(50000, 80)
ISS, IRS = 0xFFFF_FFF0, 0x1_0000  # ours wraps around early
MSS = 1000


def theirs(
    seq: int, ack: int, flags: int = TH_ACK, data: bytes = b"", window: int = 60000, mss: int | None = None
) -> Segment:
    """A segment from the other side; seq and ack count from the first byte either way."""
    return Segment(80, 50000, (IRS + 1 + seq) % 2**32, (ISS + 1 + ack) % 2**32, flags, window, data, mss)


def opened(window: int = 60000) -> Connection:
    """A connection whose handshake is done."""
    connection = Connection(PORTS, ISS, MSS)
    connection.open(0.0)
    connection.take_segments()
    connection.receive(theirs(-1, 0, TH_SYN | TH_ACK, window=window, mss=MSS), 0.1)
    (ack,) = connection.take_segments()
    assert (ack.flags, ack.seq, ack.ack) == (TH_ACK, (ISS + 1) % 2**32, IRS + 1)
    return connection


def sent(connection: Connection) -> list[tuple[int, int, int, bytes]]:
    """What goes out: seq and ack from the first byte on, flags without PSH, data."""
    return [
        ((s.seq - ISS - 1) % 2**32, (s.ack - IRS - 1) % 2**32, s.flags & ~8, s.data)
        for s in connection.take_segments()
    ]


def test_opening_offers_its_mss_and_a_window() -> None:
    connection = Connection(PORTS, ISS, MSS)
    connection.open(0.0)
    (syn,) = connection.take_segments()
    assert (syn.flags, syn.seq, syn.mss, syn.window) == (TH_SYN, ISS, MSS, WINDOW)


def test_syn_is_sent_again_twice_as_late_each_time_and_given_up() -> None:
    connection = Connection(PORTS, ISS, MSS)
    connection.open(0.0)
    times = []
    while connection.fault is None:
        assert connection.deadline is not None
        times.append(connection.deadline)
        connection.take_segments()
        connection.tick(connection.deadline)
    assert connection.fault is Fault.TIMED_OUT
    assert times[:5] == [1, 3, 7, 15, 31]
    assert len(times) == MAX_RETRANSMISSIONS + 1
    assert connection.deadline is None


def test_reset_refuses_the_connection_only_if_it_acknowledges_the_syn() -> None:
    connection = Connection(PORTS, ISS, MSS)
    connection.open(0.0)
    connection.take_segments()
    connection.receive(theirs(-1, 5, TH_RST | TH_ACK), 0.1)
    connection.receive(Segment(80, 50000, 7, 0, TH_RST, 0), 0.1)
    assert connection.fault is None
    connection.receive(theirs(-1, 0, TH_RST | TH_ACK), 0.1)
    assert connection.fault is Fault.RESET


def test_syn_ack_of_another_connection_is_reset() -> None:
    connection = Connection(PORTS, ISS, MSS)
    connection.open(0.0)
    connection.take_segments()
    connection.receive(theirs(-1, 77, TH_SYN | TH_ACK), 0.1)
    (reset,) = connection.take_segments()
    assert (reset.flags, reset.seq) == (TH_RST, (ISS + 78) % 2**32)
    assert not connection.is_established


def test_data_in_order_is_taken_and_every_second_segment_acknowledged() -> None:
    connection = opened()
    connection.receive(theirs(0, 0, data=b"abc"), 1)
    assert sent(connection) == []
    connection.receive(theirs(3, 0, data=b"def"), 1)
    assert sent(connection) == [(0, 6, TH_ACK, b"")]
    connection.receive(theirs(6, 0, data=b"g"), 1)
    connection.flush()
    assert sent(connection) == [(0, 7, TH_ACK, b"")]
    assert connection.read() == b"abcdefg"


def test_early_segment_is_kept_and_what_is_missing_asked_for() -> None:
    connection = opened()
    connection.receive(theirs(3, 0, data=b"def"), 1)
    assert sent(connection) == [(0, 0, TH_ACK, b"")]
    assert connection.read() == b""
    connection.receive(theirs(0, 0, data=b"abcd"), 1)
    assert sent(connection) == [(0, 6, TH_ACK, b"")]
    assert connection.read() == b"abcdef"


def test_what_came_early_is_bounded() -> None:
    connection = opened()
    for start in range(1, 3000, 2):
        connection.receive(theirs(start, 0, data=bytes(2000)), 1)
    connection.receive(theirs(WINDOW - 5, 0, data=bytes(10)), 1)
    connection.receive(theirs(0, 0, data=b"x"), 1)
    assert len(connection.read()) <= 1 + 2 * 64 + 2000


def test_data_that_came_before_is_taken_once() -> None:
    connection = opened()
    connection.receive(theirs(0, 0, data=b"abc"), 1)
    connection.receive(theirs(0, 0, data=b"abc"), 1)
    connection.receive(theirs(1, 0, data=b"bcde"), 1)
    connection.flush()
    assert sent(connection)[-1] == (0, 5, TH_ACK, b"")
    assert connection.read() == b"abcde"


def test_window_closes_with_what_is_unread_and_opens_again() -> None:
    connection = opened()
    for start in range(0, WINDOW + 5000, MSS):
        connection.receive(theirs(start, 0, data=bytes(MSS)), 1)
    last = connection.take_segments()[-1]
    assert last.window == 0
    assert len(connection.read()) == WINDOW
    assert [one.window for one in connection.take_segments()] == [WINDOW]


def test_reset_ends_it_only_with_the_exact_number() -> None:
    connection = opened()
    connection.receive(theirs(100, 0, TH_RST), 1)
    assert sent(connection) == [(0, 0, TH_ACK, b"")], "RFC 5961: a challenge"
    connection.receive(theirs(-1, 0, TH_RST), 1)
    connection.receive(theirs(10**6, 0, TH_RST), 1)
    assert connection.fault is None
    connection.receive(theirs(0, 0, TH_RST), 1)
    assert connection.fault is Fault.RESET
    assert connection.deadline is None


def test_syn_in_the_middle_is_challenged() -> None:
    connection = opened()
    connection.receive(theirs(0, 0, TH_SYN), 1)
    assert sent(connection) == [(0, 0, TH_ACK, b"")]
    assert connection.fault is None


def test_acknowledgment_of_what_was_not_sent_is_not_believed() -> None:
    connection = opened()
    connection.receive(theirs(0, 5, data=b"abc"), 1)
    assert sent(connection) == [(0, 0, TH_ACK, b"")]
    assert (connection.read(), connection.bytes_acknowledged) == (b"", 0)


def test_data_goes_in_segments_within_the_window() -> None:
    connection = opened(window=2500)
    assert connection.write(bytes(5000), 1) == 5000
    assert [(seq, len(data)) for seq, _, _, data in sent(connection)] == [(0, 1000), (1000, 1000)]
    connection.receive(theirs(0, 2000, window=2500), 1.1)
    assert [(seq, len(data)) for seq, _, _, data in sent(connection)] == [(2000, 1000), (3000, 1000)]
    assert connection.bytes_acknowledged == 2000


def test_first_flight_is_ten_segments() -> None:
    connection = opened()
    connection.write(bytes(50_000), 1)
    assert len(sent(connection)) == 10


def test_what_is_written_is_bounded() -> None:
    connection = opened(window=0)
    assert connection.write(bytes(10**6), 1) == SEND_BUFFER
    assert connection.write(b"x", 1) == 0


def test_unacknowledged_data_is_sent_again_and_given_up() -> None:
    connection = opened()
    connection.write(b"abc", 1)
    assert sent(connection) == [(0, 0, TH_ACK, b"abc")]
    again = 0
    while connection.fault is None:
        assert connection.deadline is not None
        connection.tick(connection.deadline)
        again += len(sent(connection))
    assert (connection.fault, again) == (Fault.TIMED_OUT, MAX_RETRANSMISSIONS)


def test_three_duplicates_send_the_first_again_at_once() -> None:
    connection = opened()
    connection.write(bytes(5000), 1)
    sent(connection)
    for _ in range(2):
        connection.receive(theirs(0, 0), 1.01)
    assert sent(connection) == []
    connection.receive(theirs(0, 0), 1.01)
    assert [(seq, len(data)) for seq, _, _, data in sent(connection)] == [(0, 1000)]
    connection.receive(theirs(0, 1000), 1.02)
    assert sent(connection)[0][0] == 1000, "what is acknowledged in part: the next is lost too"


def test_closed_window_is_asked_for_until_it_opens() -> None:
    connection = opened(window=0)
    connection.write(b"abcdef", 1)
    assert sent(connection) == []
    assert connection.deadline is not None
    connection.tick(connection.deadline)
    assert sent(connection) == [(0, 0, TH_ACK, b"a")]
    connection.receive(theirs(0, 0, window=0), 2)
    connection.receive(theirs(0, 0, window=1000), 3)
    assert sent(connection) == [(0, 0, TH_ACK, b"abcdef")]


def test_fin_goes_behind_the_data_and_both_ends_close() -> None:
    connection = opened()
    connection.write(b"abc", 1)
    connection.close(1)
    assert sent(connection) == [(0, 0, TH_ACK, b"abc"), (3, 0, TH_FIN | TH_ACK, b"")]
    assert connection.write(b"more", 1) == 0
    connection.receive(theirs(0, 4), 1.1)
    assert (connection.bytes_acknowledged, connection.is_over) == (3, False)
    connection.receive(theirs(0, 4, data=b"last"), 1.2)
    connection.receive(theirs(4, 4, TH_FIN | TH_ACK), 1.3)
    assert sent(connection)[-1] == (4, 5, TH_ACK, b"")
    assert connection.is_over
    assert (connection.fault, connection.deadline) == (None, None)


def test_fin_of_the_other_side_ends_reading_and_not_writing() -> None:
    connection = opened()
    connection.receive(theirs(0, 0, TH_FIN | TH_ACK, b"bye"), 1)
    assert not connection.has_ended
    assert connection.read() == b"bye"
    assert connection.has_ended
    sent(connection)
    connection.write(b"still", 1.1)
    connection.close(1.1)
    assert sent(connection) == [(0, 4, TH_ACK, b"still"), (5, 4, TH_FIN | TH_ACK, b"")]
    connection.receive(theirs(4, 6), 1.2)
    assert connection.is_over


def test_lost_fin_is_sent_again() -> None:
    connection = opened()
    connection.close(1)
    assert sent(connection) == [(0, 0, TH_FIN | TH_ACK, b"")]
    assert connection.deadline is not None
    connection.tick(connection.deadline)
    assert sent(connection) == [(0, 0, TH_FIN | TH_ACK, b"")]


def test_fin_that_came_again_is_acknowledged_again() -> None:
    connection = opened()
    connection.receive(theirs(0, 0, TH_FIN | TH_ACK), 1)
    sent(connection)
    connection.receive(theirs(0, 0, TH_FIN | TH_ACK), 1)
    assert sent(connection) == [(0, 1, TH_ACK, b"")]


def test_keepalive_is_answered() -> None:
    connection = opened()
    connection.receive(theirs(-1, 0), 1)
    assert sent(connection) == [(0, 0, TH_ACK, b"")]


def test_abort_sends_a_reset_and_nothing_after_it() -> None:
    connection = opened()
    connection.write(b"abc", 1)
    sent(connection)
    connection.abort()
    assert sent(connection) == [(3, 0, TH_RST | TH_ACK, b"")]
    connection.receive(theirs(0, 0, data=b"late"), 2)
    assert (sent(connection), connection.deadline) == ([], None)


@pytest.mark.parametrize("mss", [0, 1, 63])
def test_tiny_mss_of_a_stranger_is_not_followed(mss: int) -> None:
    connection = Connection(PORTS, ISS, MSS)
    connection.open(0.0)
    connection.take_segments()
    connection.receive(theirs(-1, 0, TH_SYN | TH_ACK, mss=mss), 0.1)
    connection.take_segments()
    connection.write(bytes(6400), 1)
    assert max(len(data) for _, _, _, data in sent(connection)) >= 64


_ANY = st.builds(
    lambda seq, ack, flags, window, data, mss: theirs(seq, ack, flags, data, window, mss),
    st.integers(-5, 5) | st.integers(-(2**31), 2**31),
    st.integers(-5, 9) | st.integers(-(2**31), 2**31),
    st.integers(0, 255),
    st.integers(0, 65535),
    st.binary(max_size=50),
    st.none() | st.integers(0, 65535),
)


@given(st.lists(_ANY | st.sampled_from(["tick", "write", "read", "close", "flush"]), max_size=60))
def test_whatever_comes_it_stays_within_bounds(moves: list[Segment | str]) -> None:
    connection = Connection(PORTS, ISS, MSS)
    connection.open(0.0)
    now = 0.0
    for move in moves:
        now += 0.01
        if isinstance(move, Segment):
            connection.receive(move, now)
        elif move == "tick":
            now = max(now, connection.deadline or now)
            connection.tick(now)
        elif move == "write":
            connection.write(b"x" * 700, now)
        elif move == "read":
            connection.read()
        elif move == "close":
            connection.close(now)
        else:
            connection.flush()
        for segment in connection.take_segments():
            assert 0 <= segment.window <= WINDOW
            assert len(segment.data) <= MSS
            assert 0 <= segment.seq < 2**32
        assert 0 <= connection.bytes_acknowledged <= 700 * len(moves)
