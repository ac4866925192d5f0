"""When the log says that no resolver answers."""

from aero_l2.services.dns.silence import SILENT_QUESTIONS, SILENT_S, Silence


def lines(*questions: tuple[float, bool]) -> list[str]:
    silence = Silence()
    said = (silence.note(now, answered=answered) for now, answered in questions)
    return [line for line in said if line is not None]


def test_silence_is_said_once_and_so_is_its_end() -> None:
    unanswered = [(float(second), False) for second in range(int(SILENT_S) * 3)]
    again = [(100.0, True), (101.0, True)]
    assert lines(*unanswered, *again) == ["silent", "back"]


def test_few_or_quick_failures_are_no_silence() -> None:
    assert lines(*[(0.0, False)] * 1000) == []
    assert lines(*[(SILENT_S * number, False) for number in range(SILENT_QUESTIONS - 1)]) == []


def test_names_that_nobody_answers_are_no_silence_while_others_are_answered() -> None:
    assert lines(*[(float(second), second % (SILENT_QUESTIONS + 1) == 0) for second in range(1000)]) == []


def test_each_silence_begins_anew() -> None:
    first = [(float(second), False) for second in range(20)]
    second = [(1000.0 + second, False) for second in range(5)]
    assert lines(*first, (500.0, True), *second) == ["silent", "back"]
