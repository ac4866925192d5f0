"""What is made of the signs of life of a NAT process."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netns.health import CHANCE_S, GAP_S, LOOK_S, Pulse, Signs

WITHIN_S = 6.5
"""Of a sickness that begins right after a look: what is promised (10 s) leaves room for a busy host."""


def judged(looks: Iterable[Signs], every_s: float = LOOK_S) -> list[str | None]:
    """What a fresh pulse says at each of these looks."""
    pulse = Pulse()
    return [pulse.look(number * every_s, signs) for number, signs in enumerate(looks)]


def noticed_s(signs: Iterable[Signs]) -> float | None:
    """Seconds from the last sign of life, right after the second look, to the verdict."""
    well = [Signs("S", 1), Signs("S", 2)]
    verdicts = judged([*well, *signs])
    return next((n * LOOK_S - LOOK_S for n, verdict in enumerate(verdicts) if verdict is not None), None)


SICK = {
    "stopped": ([Signs("T", 3, 1.0, None)] * 9, "it is stopped"),
    "traced": ([Signs("t", 3, 1.0, None)] * 9, "it is stopped"),
    "spinning": ([Signs("R", 3, 1.0 + n, 7) for n in range(9)], "it spins"),
    "spinning with a small share": (
        [Signs("R", 3, 1.0 + n * CHANCE_S * 0.6, 7) for n in range(9)],
        "it spins",
    ),
    "asleep": ([Signs("S", 3, 1.0, 7)] * 9, "it sleeps and does not answer"),
}


@pytest.mark.parametrize("kind", SICK)
def test_sickness_is_named_in_time(kind: str) -> None:
    signs, named = SICK[kind]
    took = noticed_s(signs)
    assert took is not None
    assert took <= WITHIN_S
    assert next(verdict for verdict in judged(signs) if verdict) == named


WELL = {
    "idle": [Signs("S", n) for n in range(40)],
    "busy without a pause": [Signs("R", 3, 1.0 + n, 100 * n) for n in range(40)],
    "slow but answering": [Signs("S", 3, 1.0, n // 2) for n in range(40)],
    "waiting for a processor": [Signs("R", 3, 1.0, 7)] * 40,
    "waiting for a disk": [Signs("D", 3, 1.0, 7)] * 40,
    "not to be asked": [Signs("S", 3, 1.0, None)] * 40,
    "spinning, but not to be asked": [Signs("R", 3, 1.0 + n, None) for n in range(40)],
    "stopped for a moment": [
        Signs("T" if n % 10 < 2 else "S", n // 10 * 10 + max(n % 10, 2)) for n in range(40)
    ],
}


@pytest.mark.parametrize("kind", WELL)
def test_process_that_may_be_well_is_left_alone(kind: str) -> None:
    assert set(judged(WELL[kind])) == {None}


@pytest.mark.parametrize("kind", SICK)
def test_what_is_seen_after_a_gap_proves_nothing(kind: str) -> None:
    """We were stopped ourselves, perhaps together with everything else."""
    assert set(judged(SICK[kind][0], every_s=GAP_S)) == {None}


def test_doubt_is_dropped_with_the_first_packet() -> None:
    pulse = Pulse()
    for number in range(3):
        assert pulse.look(number * LOOK_S, Signs("R", 1, number, 7)) is None
    assert pulse.doubted
    assert pulse.look(3 * LOOK_S, Signs("R", 1, 3, 8)) is None
    assert pulse.look(4 * LOOK_S, Signs("R", 1, 4, 8)) is None


@given(st.data())
def test_nobody_who_gives_a_sign_in_time_is_ever_sick(data: st.DataObject) -> None:
    """A sign of life at every second look at least, whatever else is seen and however late looks come."""
    pulse, now, sleeps, packets, used, quiet = Pulse(), 0.0, 0, 0, 0.0, 0
    for _ in range(30):
        now += data.draw(st.floats(LOOK_S, 2 * LOOK_S))
        used += data.draw(st.floats(0, 4))
        sign = data.draw(st.sampled_from(["sleep", "packet", *(["none"] if quiet < 1 else [])]))
        quiet = quiet + 1 if sign == "none" else 0
        sleeps, packets = sleeps + (sign == "sleep"), packets + (sign == "packet")
        assert pulse.look(now, Signs(data.draw(st.sampled_from("RST")), sleeps, used, packets)) is None
