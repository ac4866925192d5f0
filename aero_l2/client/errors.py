"""What can go wrong with a tunnel, seen from its client.

    ClientError
    ├── InvalidTarget (address.py)      the address or credential cannot be used
    ├── Unreachable                     no connection
    │   ├── TlsFailed                   the certificate or the TLS handshake
    │   └── OpenTimeout                 no answer in time
    ├── Refused                         an HTTP answer instead of a WebSocket
    │   ├── CredentialRefused           401
    │   ├── OriginRefused, HostRefused  403
    │   ├── LimitReached                429
    │   ├── Unavailable                 503
    │   └── NotATunnel                  everything else: another service, another path
    └── TunnelClosed                    an open tunnel has ended, by a close frame
        └── TunnelLost                  … without one

The text of each is one line for people; no text quotes a credential.
"""

from __future__ import annotations

import re
from typing import Final

from aero_l2.wire.tunnel import ErrorCode, ErrorMessage

MAX_QUOTED: Final = 200
"""Characters of a server's text that are repeated."""

_GOING_AWAY, _INTERNAL_ERROR, _ABNORMAL = 1001, 1011, 1006
_SESSION_EXPIRED = "session expired"


class ClientError(Exception):
    """A tunnel could not be opened, or has ended.

    retryable: whether the same may succeed later, without anybody changing anything.
    retry_after_s: how long the server asks to wait before that, where it does.
    """

    retryable = False
    retry_after_s: float | None = None


class Unreachable(ClientError):
    """There is no connection to the server: name, route, port, or what is in between."""

    retryable = True


class TlsFailed(Unreachable):
    """The server's certificate is not accepted, or it does not speak TLS."""

    retryable = False


class OpenTimeout(Unreachable):
    """The server did not answer in time."""


class Refused(ClientError):
    """The server answered the upgrade with an HTTP status other than 101.

    status: the status; body: its text, cut at `MAX_QUOTED` characters, unprintable ones as ``?``.
    """

    hint = "the server does not open a tunnel"

    def __init__(self, status: int, body: str, retry_after_s: float | None = None) -> None:
        self.status = status
        self.body = printable(body)
        self.retry_after_s = retry_after_s
        said = f": {self.body}" if self.body else ""
        super().__init__(f"HTTP {status}{said} ({self.hint})")


class CredentialRefused(Refused):
    """401: no credential, a wrong or an expired one, or one delivered in a way the server does not read."""

    hint = "give the credential that AERO_L2_AUTH_MODE of the server asks for"


class OriginRefused(Refused):
    """403: the Origin is not allowed."""

    hint = "send an Origin that AERO_L2_ALLOWED_ORIGINS of the server lists"


class HostRefused(Refused):
    """403: the Host is not one of the server's."""

    hint = "use a name that AERO_L2_ALLOWED_HOSTS of the server lists"


class LimitReached(Refused):
    """429: too many tunnels or attempts."""

    retryable = True
    hint = "close other tunnels, or wait"


class Unavailable(Refused):
    """503: the server shuts down, or cannot make a tunnel now."""

    retryable = True
    hint = "the server takes no new tunnels at the moment"


class NotATunnel(Refused):
    """Something else answers there, or refuses the protocol."""

    hint = "is this the address of an aero-l2 server, with /l2 at its end?"


_BY_STATUS: Final[dict[int, type[Refused]]] = {401: CredentialRefused, 429: LimitReached, 503: Unavailable}


def refusal(status: int, body: str, retry_after: str | None) -> Refused:
    """The error for an HTTP answer; ``retry_after`` is its Retry-After line."""
    kind = _BY_STATUS.get(status, NotATunnel)
    if status == 403:
        kind = HostRefused if "Host" in body else OriginRefused
    asked = retry_after if re.fullmatch(r"[0-9]{1,6}", retry_after or "") else None
    return kind(status, body, None if asked is None else float(asked))


class TunnelClosed(ClientError):
    """The tunnel has ended.

    close_code, reason: of the close frame (RFC 6455 §7.4). error: the ERROR message before it, if any came.
    """

    def __init__(self, close_code: int, reason: str, error: ErrorMessage | None = None) -> None:
        self.close_code = close_code
        self.reason = printable(reason)
        self.error = error
        super().__init__(self._describe())

    @property
    def error_code(self) -> ErrorCode | None:
        """The code of the ERROR message, None where none came or it is unknown."""
        if self.error is None or self.error.code is None or self.error.code not in set(ErrorCode):
            return None
        return ErrorCode(self.error.code)

    @property
    def retryable(self) -> bool:  # type: ignore[override]
        """All but what would come again at once: our own protocol errors, and credentials that are over."""
        return self.error_code is not ErrorCode.PROTOCOL_ERROR and self.reason != _SESSION_EXPIRED

    def _describe(self) -> str:
        text = self.reason or (printable(self.error.text) if self.error is not None else "")
        said = f": {text}" if text else ""
        return f"the server closed the tunnel{said} (close code {self.close_code})"


class TunnelLost(TunnelClosed):
    """The connection broke without a close frame, or nothing came over it any more."""

    def __init__(self, why: str, error: ErrorMessage | None = None) -> None:
        self.why = printable(why)
        super().__init__(_ABNORMAL, "", error)

    def _describe(self) -> str:
        return f"the connection to the server is lost: {self.why}"


def printable(text: str) -> str:
    """A stranger's text in one line that is safe to print, cut at `MAX_QUOTED` characters."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in line[:MAX_QUOTED])
