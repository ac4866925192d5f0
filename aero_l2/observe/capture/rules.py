"""What captures are like, from the settings, and what their files are called. Pure."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

from aero_l2.config import Settings

INTERFACE: Final = "l2-tunnel"
_NAME: Final = re.compile(r"[0-9]{13}-session-[1-9][0-9]{0,17}\.pcapng", re.ASCII)


@dataclass(frozen=True, slots=True)
class CaptureRules:
    """Captures of a process; 0 = none wherever something has a limit.

    folder: absolute path of the directory. max_bytes: of a file. flush_interval_s: how long a frame may wait,
    0 = until the close. max_files: kept in the directory. snaplen: bytes of a frame. every_tunnel: each is
    captured from its begin, else only where somebody asks for it.
    """

    folder: str
    max_bytes: int = 0
    flush_interval_s: float = 0.0
    max_files: int = 0
    snaplen: int = 0
    every_tunnel: bool = True

    @classmethod
    def of(cls, settings: Settings) -> CaptureRules | None:
        """What the settings say, None where they name no directory."""
        if settings.capture_dir is None:
            return None
        return cls(
            folder=os.path.abspath(settings.capture_dir),
            max_bytes=settings.capture_max_bytes,
            flush_interval_s=settings.capture_flush_interval_ms / 1000,
            max_files=settings.capture_max_files,
            snaplen=settings.capture_snaplen,
            every_tunnel=not settings.capture_on_demand,
        )


def file_name(unix_ms: int, session_id: int) -> str:
    """Of a capture that began then, of the tunnel with this number in the log."""
    return f"{unix_ms:013}-session-{session_id}.pcapng"


def is_file_name(name: str) -> bool:
    """Whether a capture is called so."""
    return _NAME.fullmatch(name) is not None
