"""Who this process is outside of its user namespace, where it is 0: as whoever reads the log knows it."""

from __future__ import annotations

import contextlib
import os
import pwd
from pathlib import Path


def user() -> str:
    """The user, by name where there is one: ``user aero-l2``, ``uid 61234``."""
    uid = _outside("uid_map", os.geteuid())
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"uid {uid}"


def group() -> int:
    """The group's number."""
    return _outside("gid_map", os.getegid())


def _outside(table: str, own: int) -> int:
    """Lines of a map are the first id inside, the first outside, and how many (user_namespaces(7))."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self", table).read_text().splitlines():
            inside, outside, count = map(int, line.split())
            if inside <= own < inside + count:
                return outside + own - inside
    return own
