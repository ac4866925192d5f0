"""Sysctls, sysctl(8)."""

from __future__ import annotations

from pathlib import Path


def sysctl(name: str, root: Path = Path("/")) -> str:
    """A sysctl's value, empty where it cannot be read."""
    try:
        return (root / "proc/sys" / name.replace(".", "/")).read_text().strip()
    except OSError:
        return ""
