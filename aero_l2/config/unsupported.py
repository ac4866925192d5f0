"""Variables of the Aero emulator's L2 proxy that this version does not act on (README, what is missing).

Those that would restrict or secure something refuse to start: nobody may believe in a limit that is not
there. Those that change nothing are accepted.
"""

from __future__ import annotations

from typing import Final

from aero_l2.config import values

# Set to anything: refused.
_WHEN_NOT_BLANK: Final = ("AERO_L2_CAPTURE_DIR",)
# Accepted: buffers the kernel manages itself, details of captures there are not.
_WITHOUT_EFFECT: Final = (
    "AERO_L2_WS_SEND_BUFFER",
    "AERO_L2_TCP_SEND_BUFFER",
    "AERO_L2_STACK_MAX_BUFFERED_TCP_BYTES_PER_CONN",
    "AERO_L2_CAPTURE_MAX_BYTES",
    "AERO_L2_CAPTURE_FLUSH_INTERVAL_MS",
)

NAMES: Final = frozenset(_WHEN_NOT_BLANK + _WITHOUT_EFFECT)


def is_wanted(name: str, value: str) -> bool:
    """Whether a variable of NAMES asks for what is not built; `value` is trimmed.

    Raises BadValue where it is no number and should be one.
    """
    if not value:
        return False
    if name in _WITHOUT_EFFECT:
        values.count(value)
    return name in _WHEN_NOT_BLANK
