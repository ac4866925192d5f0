"""The internet checksum, against its definition and an independent implementation."""

from hypothesis import given
from hypothesis import strategies as st
from scapy.utils import checksum

from aero_l2.wire.checksum import internet_checksum

EVEN = st.binary(max_size=200).map(lambda data: data[: len(data) & ~1])


def test_example_of_the_rfc() -> None:
    """RFC 1071 section 3: the sum of these octets is ddf2."""
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == bytes.fromhex("220d")


@given(EVEN)
def test_it_is_what_others_compute(data: bytes) -> None:
    assert internet_checksum(data) == checksum(data).to_bytes(2, "big")


def test_sums_that_are_all_ones_and_no_data_differ() -> None:
    assert internet_checksum(b"\xff\xff") == internet_checksum(b"\x80\x00\x7f\xff") == b"\0\0"
    assert internet_checksum(bytes(20)) == internet_checksum(b"") == b"\xff\xff"
