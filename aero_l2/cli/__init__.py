"""The command line: `aero-l2 serve`, and what prepares it.

Until `main` runs, Ctrl-C is Python's to answer, with a traceback; so nothing is imported here that Python has
not loaded already.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import NoReturn
else:
    import _signal as signal  # what `signal` wraps into enumerations, which takes longer than all else here


def main() -> "NoReturn":
    """Entry point of the console script."""
    # First of all, as importing the rest takes a third of a second: Ctrl-C is an end, not a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from aero_l2.cli.program import run

    run()
