"""Variables of the Aero emulator's L2 proxy that are accepted and change nothing.

They size buffers that the kernel manages itself here.
"""

from __future__ import annotations

from typing import Final

NAMES: Final = frozenset(
    (
        "AERO_L2_WS_SEND_BUFFER",
        "AERO_L2_TCP_SEND_BUFFER",
        "AERO_L2_STACK_MAX_BUFFERED_TCP_BYTES_PER_CONN",
    )
)
"""Each is a number all the same."""
