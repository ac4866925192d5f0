"""When the loop counts as too far behind."""

from hypothesis import given
from hypothesis import strategies as st

from aero_l2.quota.lag import BEHIND, CAUGHT_UP, LagGate


def after(gate: LagGate, *lags_s: float) -> bool:
    """Whether it is behind after these samples."""
    for lag in lags_s:
        gate.take(lag)
    return gate.is_behind


def test_some_late_samples_in_a_row_and_not_one_long_pause() -> None:
    gate = LagGate(0.1)
    assert not after(gate, 60.0, 0.0, 0.2, 0.2, 0.0, 0.2, 0.2)
    assert after(gate, 0.2)


def test_it_has_to_be_on_time_for_a_while_again() -> None:
    gate = LagGate(0.1)
    assert after(gate, *[0.2] * BEHIND)
    assert after(gate, *[0.0] * (CAUGHT_UP - 1))
    assert after(gate, 0.06)  # under the limit, but not under half of it
    assert after(gate, *[0.0] * (CAUGHT_UP - 1))
    assert not after(gate, 0.0)


@given(st.lists(st.floats(0, 1)))
def test_between_half_and_whole_limit_nothing_changes(lags: list[float]) -> None:
    gate = LagGate(0.1)
    was = after(gate, *lags)
    assert after(gate, *[0.075] * 50) == was


def test_no_limit_is_never_behind_also_when_it_was() -> None:
    assert not after(LagGate(0.0), *[60.0] * 20)
    gate = LagGate(0.1)
    assert after(gate, *[1.0] * BEHIND)
    gate.limit_s = 0.0
    assert not gate.is_behind
