"""netd's lines are bounded and what was left out is told."""

from netns.lines import LINES_PER_WINDOW, WINDOW_S, LineLimit


def test_lines_of_a_window_are_limited_and_the_rest_is_counted() -> None:
    limit = LineLimit()
    verdicts = [limit.admit(100.0) for _ in range(LINES_PER_WINDOW + 7)]
    assert verdicts == [0] * LINES_PER_WINDOW + [None] * 7
    assert limit.admit(100.0 + WINDOW_S) == 7
    assert limit.admit(100.0 + WINDOW_S) == 0
