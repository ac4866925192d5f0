"""The driver interface: what every NAT process has to offer, whatever its program."""

from typing import Protocol


class Backend(Protocol):
    """Starts NAT processes; one object serves all tunnels. Its errors are `slirp.errors.NatError`."""

    def prepare(self) -> None:
        """Find the program and check its features; cheap after the first success. Raises NatError."""

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
        """Execute the program for one tunnel and return its pid; the caller reaps it.

        It takes over the TAP named ``tap`` in the namespace behind ``netns``, writes a byte to ``ready_fd``
        when it does, ends when the other end of ``exit_fd`` closes, may open ``max_files`` descriptors and
        reaches the host's 127.0.0.1 only with ``host_loopback``. Must be called on a thread that is in the
        host's network namespace. The descriptors stay open here. Raises NatError.
        """
