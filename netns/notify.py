"""Telling systemd how the service is, if it started us: sd_notify(3), without its library.

The socket is connected while we are still who we were when we started: its folder may be shut to the service
user.
"""

import socket
from collections.abc import Callable, Mapping

SEND_TIMEOUT_S = 1.0


class Notifier:
    """The socket of NOTIFY_SOCKET: a path, or ``@name`` for an abstract one. Without it nothing is told.

    Whoever listens may begin anew. That nobody does is one line on stderr, until somebody did again.
    """

    def __init__(self, address: str, complain: Callable[[str], None]) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._complain = complain
        self._complained = False
        self._socket: socket.socket | None = None
        if address and not address.startswith(("/", "@")):
            complain(f"NOTIFY_SOCKET={address[:100]!r} is no path and no abstract name")
            self._address = ""
        elif address:
            self._connected()

    def tell(self, *assignments: str) -> None:
        """Send ``NAME=value`` assignments as one notification."""
        message = "\n".join(assignments).encode()
        if self._address and not self._sent(message):
            self._sent(message)

    def _sent(self, message: bytes) -> bool:
        """Whether there is no point in another try."""
        if not self._connected() or self._socket is None:
            return True
        try:
            self._socket.send(message)
        except TimeoutError as error:
            self._failed(error)
        except OSError:
            self._socket.close()
            self._socket = None
            return False
        else:
            self._complained = False
        return True

    def _connected(self) -> bool:
        if self._socket is None:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            sock.settimeout(SEND_TIMEOUT_S)
            try:
                sock.connect(self._address)
            except OSError as error:
                sock.close()
                self._failed(error)
                return False
            self._socket = sock
        return True

    def _failed(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            self._complain(f"NOTIFY_SOCKET: {error}")


def watchdog_interval_s(environment: Mapping[str, str], pid: int) -> float | None:
    """How often systemd wants to hear that all is well (WatchdogSec=), None where it does not.

    sd_watchdog_enabled(3): WATCHDOG_USEC, in microseconds, counts for the process WATCHDOG_PID only.
    """
    microseconds = environment.get("WATCHDOG_USEC", "")
    meant_for = environment.get("WATCHDOG_PID", str(pid))
    if not (microseconds.isascii() and microseconds.isdigit()) or meant_for != str(pid):
        return None
    return int(microseconds) / 1e6 or None
