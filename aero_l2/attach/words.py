"""What is said between a command's process and the one that holds its tunnel."""

from __future__ import annotations

from typing import Final

READY: Final = b"ready"
"""From the command's process, with the TAP's descriptor; anything else is why there is none."""
GO: Final = b"go"
"""To it: become the command."""
