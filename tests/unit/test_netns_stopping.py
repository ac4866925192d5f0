"""One signal that arrives twice is one; a second one is a second one."""

import signal

from netns.stopping import ECHO_S, StopSignals


def test_the_same_signal_right_behind_is_an_echo_and_counts_once() -> None:
    signals = StopSignals()
    assert signals.counts(signal.SIGTERM, 5.0)
    assert not signals.counts(signal.SIGTERM, 5.0)
    assert not signals.counts(signal.SIGTERM, 5.0 + 0.9 * ECHO_S)
    assert signals.counts(signal.SIGTERM, 5.0 + 2 * ECHO_S)


def test_another_signal_counts_at_once() -> None:
    signals = StopSignals()
    assert signals.counts(signal.SIGTERM, 5.0)
    assert signals.counts(signal.SIGINT, 5.0)
