"""The command line: `aero-l2 serve`, and what prepares it."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Entry point of the console script."""
    # First of all, as importing the rest takes a third of a second: Ctrl-C is an end, not a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from aero_l2.cli.program import run

    run()
