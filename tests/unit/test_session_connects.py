"""Which connects of a guest are ended, when, and with what; frames are made and read by scapy."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet

from aero_l2.session.connects import MAX_EXPIRED, MAX_PENDING, Connects

GUEST, SERVER = "10.0.2.15", "93.184.216.34"
GUEST_MAC, GATEWAY_MAC = "02:00:00:00:00:15", "52:55:0a:00:02:02"
OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)]


def out(packet: Packet) -> bytes:
    return bytes(Ether(src=GUEST_MAC, dst=GATEWAY_MAC) / packet)


def back(packet: Packet) -> bytes:
    return bytes(Ether(src=GATEWAY_MAC, dst=GUEST_MAC) / packet)


def syn(sport: int = 4000, seq: int = 1000, dst: str = SERVER, ip: dict[str, object] | None = None) -> Packet:
    header = IP(src=GUEST, dst=dst, flags="DF")
    for name, value in (ip or {}).items():
        setattr(header, name, value)
    return header / TCP(sport=sport, dport=80, flags="S", seq=seq, options=OPTIONS)


def answer(flags: str, sport: int = 4000, src: str = SERVER) -> Packet:
    return IP(src=src, dst=GUEST) / TCP(sport=80, dport=sport, flags=flags, seq=7000, ack=1001)


def waiting(*frames: Packet, timeout_s: float = 5.0) -> Connects:
    connects = Connects(timeout_s)
    connects.from_guest([out(frame) for frame in frames], 100.0)
    return connects


def test_connect_is_ended_at_its_deadline_to_both_sides() -> None:
    connects = waiting(syn())
    assert connects.next_deadline == 105.0
    assert connects.expire(104.9) == []
    [over] = connects.expire(105.0)
    guest, nat = Ether(over.to_guest), Ether(over.to_nat)
    assert (guest.src, guest.dst, nat.src, nat.dst) == (GATEWAY_MAC, GUEST_MAC, GUEST_MAC, GATEWAY_MAC)
    assert (guest[IP].src, guest[IP].dst, guest.sport, guest.dport) == (SERVER, GUEST, 80, 4000)
    assert (str(guest[TCP].flags), guest[TCP].seq, guest[TCP].ack) == ("RA", 0, 1001)
    assert (nat[IP].src, nat[IP].dst, nat.sport, nat.dport) == (GUEST, SERVER, 4000, 80)
    assert (str(nat[TCP].flags), nat[TCP].seq) == ("R", 1001)
    assert (len(connects), connects.next_deadline, connects.expire(200.0)) == (0, None, [])


@given(st.integers(0, 2**32 - 1), st.integers(1, 65535), st.integers(0, 2**31))
def test_checksums_are_right(seq: int, sport: int, address: int) -> None:
    dst = ".".join(map(str, address.to_bytes(4)))
    [over] = waiting(syn(sport, seq, dst)).expire(200.0) or [None]
    assert over is not None
    for frame in (over.to_guest, over.to_nat):
        packet = Ether(frame)
        claimed = packet[IP].chksum, packet[TCP].chksum
        del packet[IP].chksum, packet[TCP].chksum
        again = Ether(bytes(packet))
        assert (again[IP].chksum, again[TCP].chksum) == claimed
    assert Ether(over.to_guest)[TCP].ack == (seq + 1) % 2**32


@pytest.mark.parametrize(
    "frame",
    [
        answer("SA"),
        answer("RA"),
        answer("R"),
        IP(src="10.0.2.2", dst=GUEST) / ICMP(type=3, code=13) / syn(),
        IP(src="45.33.32.1", dst=GUEST) / ICMP(type=11) / IP(bytes(syn())[:28]),
        IP(src=SERVER, dst=GUEST, options=[IPOption_NOP()] * 4) / answer("SA")[TCP],
    ],
    ids=["SYN-ACK", "RST-ACK", "RST", "refused", "hops exceeded", "IP options"],
)
def test_answered_connect_is_forgotten(frame: Packet) -> None:
    connects = waiting(syn())
    connects.to_guest([back(frame)])
    assert len(connects) == 0


@pytest.mark.parametrize(
    "frame",
    [
        answer("A"),
        answer("SA", sport=4001),
        answer("SA", src="93.184.216.35"),
        IP(src="10.0.2.2", dst=GUEST) / ICMP(type=3, code=13) / syn(4001),
        IP(src="10.0.2.2", dst=GUEST)
        / ICMP(type=3)
        / (IP(src=GUEST, dst=SERVER) / UDP(sport=4000, dport=80)),
        IP(src=SERVER, dst=GUEST) / ICMP(type=0) / syn(),
        IP(src=SERVER, dst=GUEST) / UDP(sport=80, dport=4000) / bytes(20),
        ARP(),
    ],
    ids=["ACK", "other port", "other address", "other quoted", "datagram", "echo reply", "UDP", "ARP"],
)
def test_what_answers_something_else_changes_nothing(frame: Packet) -> None:
    connects = waiting(syn())
    connects.to_guest([back(frame), back(frame)[:20], b""])
    assert len(connects) == 1


def test_syn_sent_again_does_not_extend_the_deadline_and_a_new_number_is_a_new_connect() -> None:
    connects = waiting(syn(4000), syn(4001))
    connects.from_guest([out(syn(4000))], 103.0)
    assert connects.next_deadline == 105.0
    connects.from_guest([out(syn(4000, seq=555))], 104.0)
    [first] = connects.expire(105.0)
    assert Ether(first.to_guest).dport == 4001
    [second] = connects.expire(109.0)
    assert Ether(second.to_guest)[TCP].ack == 556


def test_syn_after_a_reset_is_a_new_connect() -> None:
    connects = waiting(syn())
    connects.to_guest([back(answer("RA"))])
    connects.from_guest([out(syn())], 103.0)
    assert connects.next_deadline == 108.0


@pytest.mark.parametrize("flags", ["R", "RA"])
def test_connect_that_the_guest_resets_itself_is_forgotten(flags: str) -> None:
    connects = waiting(syn(4000), syn(4001))
    reset = IP(src=GUEST, dst=SERVER) / TCP(sport=4000, dport=80, flags=flags, seq=1001)
    connects.from_guest([out(reset)], 101.0)
    assert [Ether(over.to_guest).dport for over in connects.expire(105.0)] == [4001]


def test_ip_options_do_not_matter() -> None:
    [over] = waiting(syn(ip={"options": [IPOption_NOP()] * 40})).expire(200.0)
    assert Ether(over.to_guest)[TCP].ack == 1001


@pytest.mark.parametrize(
    "frame",
    [
        answer("SA"),
        IP(src=GUEST, dst=SERVER) / TCP(sport=4000, dport=80, flags="SA"),
        IP(src=GUEST, dst=SERVER) / TCP(sport=4000, dport=80, flags="SF"),
        IP(src=GUEST, dst=SERVER) / TCP(sport=4000, dport=80, flags="A"),
        syn(ip={"src": "10.0.2.16"}),
        syn(dst="224.0.0.1"),
        syn(ip={"frag": 2}),
        syn(ip={"flags": "MF"}),
        syn(ip={"options": [IPOption_NOP()] * 40, "frag": 1}),
        Dot1Q(vlan=7) / syn(),
        IP(src=GUEST, dst=SERVER) / UDP(sport=4000, dport=80) / (b"\x02" * 40),
    ],
    ids=lambda frame: frame.summary()[:60],
)
def test_what_is_no_connect_of_the_guest_is_not_noted(frame: Packet) -> None:
    assert len(waiting(frame)) == 0


@pytest.mark.slow
def test_number_of_connects_is_bounded_and_the_oldest_keep_their_place() -> None:
    connects = waiting(*[syn(sport) for sport in range(10000, 10000 + MAX_PENDING)])
    connects.from_guest([out(syn(sport)) for sport in range(20000, 20100)], 101.0)
    assert len(connects) == MAX_PENDING
    batches = [connects.expire(105.0) for _ in range(MAX_PENDING // MAX_EXPIRED)]
    assert [len(batch) for batch in batches] == [MAX_EXPIRED] * (MAX_PENDING // MAX_EXPIRED)
    assert Ether(batches[0][0].to_guest).dport == 10000
    assert len(connects) == 0


@given(st.lists(st.binary(max_size=150)))
def test_any_frames_are_survived(frames: list[bytes]) -> None:
    connects = waiting(syn())
    connects.from_guest(frames, 101.0)
    connects.to_guest(frames)
    connects.expire(200.0)


@given(st.integers(14, 93), st.integers(0, 255), st.integers(54, 94))
def test_damaged_frames_are_survived(place: int, byte: int, length: int) -> None:
    for good in (out(syn()), back(IP(src=SERVER, dst=GUEST) / ICMP(type=3) / syn())):
        damaged = bytearray(good)
        damaged[place % len(damaged)] = byte
        connects = waiting(syn())
        connects.from_guest([bytes(damaged[:length])], 101.0)
        connects.to_guest([bytes(damaged[:length])])
        connects.expire(200.0)
