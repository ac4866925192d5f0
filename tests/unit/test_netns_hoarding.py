"""Whose connections end where tunnels hold too much TCP memory."""

from hypothesis import given
from hypothesis import strategies as st

from netns.hoarding import RELIEF, Holding, by_tunnel, surplus


def holdings(*tunnels: list[int]) -> list[Holding]:
    """Connections of tunnels 0, 1, …, by what they hold."""
    return [
        Holding(tunnel, 100 * tunnel + number, held)
        for tunnel, its in enumerate(tunnels)
        for number, held in enumerate(its)
    ]


def ended(limit: int, *tunnels: list[int]) -> list[tuple[int, int]]:
    return [(one.tunnel, one.held) for one in surplus(holdings(*tunnels), limit)]


def test_nobody_loses_anything_within_the_limit() -> None:
    assert ended(80, [40, 20], [20]) == []


def test_who_holds_the_most_loses_the_largest_first() -> None:
    assert ended(80, [10, 30, 20], [25]) == [(0, 30)]


def test_one_large_connection_is_no_more_than_many_small_ones() -> None:
    assert ended(80, [8] * 10, [30]) == 5 * [(0, 8)]


def test_several_who_hold_the_same_lose_the_same() -> None:
    assert sorted(ended(40, [10] * 4, [10] * 4)) == [(0, 10), (0, 10), (0, 10), (1, 10), (1, 10)]


@given(st.lists(st.lists(st.integers(1, 50), max_size=8), max_size=6), st.integers(0, 400))
def test_what_is_left_fits_and_who_holds_little_keeps_it(tunnels: list[list[int]], limit: int) -> None:
    every = holdings(*tunnels)
    lost = surplus(every, limit)
    assert len(set(lost)) == len(lost)
    left = by_tunnel(set(every) - set(lost))
    before = by_tunnel(every)
    assert sum(left.values()) <= limit
    assert not lost or sum(left.values()) <= limit - limit // RELIEF
    fair = limit // RELIEF * (RELIEF - 1) // max(1, len(before))
    assert all(before[one.tunnel] > fair for one in lost)
