"""A rate with room for bursts: no more than the burst at once, nor than the rate in the long run."""

from hypothesis import given
from hypothesis import strategies as st

from aero_l2.quota.bucket import TokenBucket


def test_burst_passes_at_once_and_the_rate_after_it() -> None:
    bucket = TokenBucket(10, 5, now=100.0)
    assert bucket.take(8, 100.0) == 5
    assert bucket.take(8, 100.0625) == 0
    assert bucket.take(8, 100.375) == 3
    assert bucket.take(8, 1000.0) == 5


def test_single_thing_that_waits_is_granted_in_the_end() -> None:
    """Tokens of many short moments add up."""
    bucket = TokenBucket(1, 1, now=0.0)
    assert bucket.take(1, 0.0) == 1
    assert [bucket.take(1, n / 8) for n in range(1, 9)] == [0] * 7 + [1]


def test_clock_that_goes_back_grants_nothing() -> None:
    bucket = TokenBucket(10, 5, now=100.0)
    assert bucket.take(5, 100.0) == 5
    assert bucket.take(1, 90.0) == 0
    assert bucket.take(1, 100.0) == 0


@given(
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.lists(st.tuples(st.integers(0, 2000), st.floats(0, 10)), max_size=50),
)
def test_no_more_than_rate_and_burst_ever(rate: int, burst: int, asked: list[tuple[int, float]]) -> None:
    bucket, now, granted = TokenBucket(rate, burst, now=0.0), 0.0, 0
    for wanted, later in asked:
        now += later
        got = bucket.take(wanted, now)
        assert 0 <= got <= min(wanted, burst)
        granted += got
        assert granted <= burst + rate * now + 1e-6 * (1 + rate * now)
