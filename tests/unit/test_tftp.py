"""The tests' TFTP server: packets in, packets out."""

import pytest
from support.tftp import RequestError, Transfer, parse


def ack(number: int) -> bytes:
    return b"\0\4" + (number % 65536).to_bytes(2, "big")


def read(transfer: Transfer) -> bytes:
    """What a reader gets that acknowledges everything."""
    content = b""
    while not transfer.over:
        packet = transfer.packet
        if packet[:2] == b"\0\3":
            content += packet[4:]
        transfer.received(ack(int.from_bytes(packet[2:4], "big") if packet[:2] == b"\0\3" else 0))
    return content


def test_request_without_options_gets_blocks_of_512() -> None:
    request = parse(b"\0\1file\0OCTET\0")
    assert (request.name, request.options) == ("file", {})
    transfer = Transfer(b"x" * 700, request.options)
    assert transfer.packet == b"\0\3\0\1" + b"x" * 512
    assert transfer.received(ack(1))
    assert transfer.packet == b"\0\3\0\2" + b"x" * 188
    assert not transfer.received(ack(2))
    assert transfer.over
    assert transfer.whole


def test_options_are_acknowledged_and_senseless_ones_left_out() -> None:
    request = parse(b"\0\1f\0octet\0BlkSize\x001468\0timeout\x000\0tsize\x000\0windowsize\x004\0")
    transfer = Transfer(b"x" * 3000, request.options)
    assert transfer.packet == b"\0\6blksize\x001468\0tsize\x003000\0"
    assert transfer.received(ack(0))
    assert len(transfer.packet) == 4 + 1468


@pytest.mark.parametrize("size", [0, 7, 8, 9, 16, 8 * 65536 + 3])
def test_content_arrives_whole_whatever_its_size(size: int) -> None:
    content = bytes(n % 251 for n in range(size))
    assert read(Transfer(content, {"blksize": "8"})) == content


def test_acknowledgement_that_comes_twice_sends_nothing() -> None:
    transfer = Transfer(b"x" * 2000, {})
    assert [transfer.received(ack(n)) for n in (1, 1, 0, 3, 2)] == [True, False, False, False, True]


def test_reader_that_gives_up_ends_the_transfer() -> None:
    transfer = Transfer(b"x" * 2000, {})
    assert not transfer.received(b"\0\5\0\0enough\0")
    assert transfer.over
    assert not transfer.whole


@pytest.mark.parametrize(
    "datagram", [b"", b"\0\1", b"\0\2f\0octet\0", b"\0\1f\0netascii\0", b"\0\1f\0octet\0a\0"]
)
def test_what_is_no_read_request_is_refused(datagram: bytes) -> None:
    with pytest.raises(RequestError):
        parse(datagram)
