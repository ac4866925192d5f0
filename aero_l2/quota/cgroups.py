"""The control groups that a process is in, of both versions, and what their limits leave (cgroups(7))."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aero_l2.quota.capacity import Stock

_NO_LIMIT: Final = 1 << 60
"""cgroup v1 says "none" by the largest multiple of a page."""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One group: its directory, and its path as people know it."""

    directory: Path
    path: str
    version: int

    def memory(self) -> Iterator[Stock]:
        """What may still be used; page cache that nobody has used lately is no use."""
        names = ("memory.max", "memory.high") if self.version == 2 else ("memory.limit_in_bytes",)
        used = self._number("memory.current" if self.version == 2 else "memory.usage_in_bytes")
        for name in names:
            limit = self._number(name)
            if limit is not None and limit < _NO_LIMIT and used is not None:
                left = limit - max(0, used - self._cache())
                yield Stock(limit, left, f"{name} of cgroup {self.path}")

    def pids(self) -> Iterator[Stock]:
        """Processes that may still be started."""
        limit, used = self._number("pids.max"), self._number("pids.current")
        if limit is not None and used is not None:
            yield Stock(limit, limit - used, f"pids.max of cgroup {self.path}")

    def _cache(self) -> int:
        wanted = "inactive_file" if self.version == 2 else "total_inactive_file"
        for line in self._text("memory.stat").splitlines():
            name, _, value = line.partition(" ")
            if name == wanted:
                return number(value) or 0
        return 0

    def _number(self, name: str) -> int | None:
        return number(self._text(name))

    def _text(self, name: str) -> str:
        try:
            return (self.directory / name).read_text()
        except OSError:
            return ""


def number(text: str) -> int | None:
    """A whole number, None for anything else ("max")."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdecimal() else None


def cgroups_of(root: Path, controller: str) -> list[Cgroup]:
    """This process's groups for a controller: its own and those above, as far as they can be seen."""
    own = _paths(_text(root / "proc/self/cgroup"))
    found: list[Cgroup] = []
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, rest = line.partition(" - ")
        _, _, _, mounted, point, *_ = [*before.split(" "), "", "", "", "", ""]
        kind, _, options = [*rest.split(" ", 2), "", ""][:3]
        version = {"cgroup2": 2, "cgroup": 1}.get(kind)
        if version is None or (version == 1 and controller not in options.split(",")):
            continue
        path = own.get("" if version == 2 else controller)
        if path is not None:
            found += _chain(root / point.lstrip("/"), mounted, path, version)
    return found


def _paths(text: str) -> dict[str, str]:
    """The group of each controller; "" is that of version 2."""
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        paths |= dict.fromkeys(controllers.split(","), path)
    return paths


def _chain(point: Path, mounted: str, path: str, version: int) -> Iterator[Cgroup]:
    """From the group itself up to what is mounted. A path outside that (another namespace's) is the mount."""
    above, parts = _parts(mounted), _parts(path)
    is_inside = parts[: len(above)] == above and ".." not in parts
    parts = parts[len(above) :] if is_inside else []
    for length in range(len(parts), -1, -1):
        directory = point.joinpath(*parts[:length])
        if directory.is_dir():
            yield Cgroup(directory, "/" + "/".join(parts[:length]), version)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
