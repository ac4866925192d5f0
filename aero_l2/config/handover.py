"""Sources from the starter to the server: a sealed file in memory, seen by nobody else and gone once read."""

from __future__ import annotations

import fcntl
import os

from aero_l2.config.sources import Sources

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def write(sources: Sources) -> int:
    """Put `sources` into a memfd (memfd_create(2)), which nothing can change any more.

    Returns its descriptor, inheritable, for the caller to pass on.
    """
    fd = os.memfd_create("aero-l2-settings", os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(sources.to_json().encode())
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    os.set_inheritable(fd, True)
    return fd


def read(fd: int) -> Sources:
    """Take what `write` made, wherever its offset stands, and close `fd`."""
    with os.fdopen(fd, "rb") as file:
        file.seek(0)
        return Sources.from_json(file.read().decode())
