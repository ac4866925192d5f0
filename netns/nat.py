"""How netd starts a tunnel's NAT process: a driver that the supervisor names on netd's command line."""

import importlib
from typing import Protocol, cast


class NatDriver(Protocol):
    """What netd asks of a driver. Every error is a RuntimeError whose text is one line for people."""

    def prepare(self) -> None:
        """Check that the program is there and suits; cheap after the first success."""

    def start(
        self,
        *,
        netns: int,
        tap: str,
        exit_fd: int,
        ready_fd: int,
        stderr_fd: int,
        host_loopback: bool,
        max_files: int,
    ) -> int:
        """Execute the NAT process and return its pid."""


def load_driver(name: str, search_path: str) -> NatDriver:
    """The driver ``module:class``, made with the path where its program is looked for."""
    module, _, attribute = name.partition(":")
    return cast(NatDriver, getattr(importlib.import_module(module), attribute)(search_path))
