"""A control group of a test's own, of whichever version the machine has (cgroups(7))."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from support.wait import wait_until

Joined = Callable[[], AbstractContextManager[None]]


def _parent(controller: str) -> Path:
    """Where groups for a controller can be made."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point, (kind, _, options) = Path(before.split(" ")[4]), after.split(" ", 2)
        if kind == "cgroup" and controller in options.split(","):
            return point
        if kind == "cgroup2" and controller in (point / "cgroup.controllers").read_text().split():
            (point / "cgroup.subtree_control").write_text(f"+{controller}")
            return point
    raise AssertionError(f"this machine has no control groups for {controller}")


@contextmanager
def group(controller: str) -> Iterator[tuple[Path, Joined]]:
    """Its directory, and how to be in it for a while: what is started then stays there."""
    parent = _parent(controller)
    directory = parent / f"aero-l2-test-{os.getpid()}"
    own = Path("/proc/self/cgroup").read_text().splitlines()
    ours = {name: line.split(":", 2)[2] for line in own for name in line.split(":", 2)[1].split(",")}
    back = parent / ours.get(controller, ours.get("", "/")).lstrip("/")
    directory.mkdir()

    @contextmanager
    def joined() -> Iterator[None]:
        (directory / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            (back / "cgroup.procs").write_text(str(os.getpid()))

    try:
        yield directory, joined
    finally:
        wait_until(lambda: not (directory / "cgroup.procs").read_text(), "nobody is left in the group")
        directory.rmdir()
