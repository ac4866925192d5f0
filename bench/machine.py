"""What a run ran on, in words for the reader of its table; nothing that names the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path


def describe() -> dict[str, str]:
    """Cores, memory, kernel, distribution, and the programs that take part."""
    return {
        "cores": f"{len(os.sched_getaffinity(0))} × {_processor()}",
        "memory": f"{_memory_gib():.0f} GiB",
        "virtual": _virtual(),
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "distribution": platform.freedesktop_os_release().get("PRETTY_NAME", "unknown"),
        "python": f"Python {platform.python_version()} with {_uvloop()}",
        "slirp4netns": _version("slirp4netns", "--version"),
        "nftables": _version("nft", "--version"),
    }


def revision() -> str:
    """Of the tree: commit, with a + if something in it is changed; empty without git, of which nothing is
    written: root would take the index from its owner."""
    try:
        commit = _output("git", "rev-parse", "--short", "HEAD")
        status = ("status", "--porcelain", "--untracked-files=no")
        return commit + ("+" if _output("git", "--no-optional-locks", *status) else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _output(*command: str) -> str:
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    ).stdout.strip()


def _field(path: str, name: str) -> str:
    found = re.search(rf"^{re.escape(name)}\s*:\s*(.*)$", Path(path).read_text(), re.MULTILINE)
    return found[1] if found else ""


def _processor() -> str:
    return _field("/proc/cpuinfo", "model name") or platform.machine()


def _memory_gib() -> float:
    return int(_field("/proc/meminfo", "MemTotal").split()[0]) / 2**20


def _virtual() -> str:
    return (
        "a virtual machine" if re.search(r"\bhypervisor\b", _field("/proc/cpuinfo", "flags")) else "hardware"
    )


def _uvloop() -> str:
    try:
        return f"uvloop {importlib.metadata.version('uvloop')}"
    except importlib.metadata.PackageNotFoundError:
        return "asyncio's own loop"


def _version(*command: str) -> str:
    try:
        found = re.search(r"\d+\.\d[\w.]*", _output(*command))
    except (OSError, subprocess.CalledProcessError):
        return "missing"
    return f"{command[0]} {found[0]}" if found else "unknown"
