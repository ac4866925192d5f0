"""What can go wrong with a tunnel, seen from its client.

    ClientError
    ├── InvalidTarget (address.py)      the address or credential cannot be used
    ├── Unreachable                     no connection
    │   ├── TlsFailed                   the certificate or the TLS handshake
    │   ├── ProxyFailed                 the HTTP or SOCKS proxy that the environment names
    │   └── OpenTimeout                 no answer in time
    ├── Refused                         an HTTP answer instead of a WebSocket
    │   ├── CredentialRefused           401
    │   ├── OriginRefused, HostRefused  403
    │   ├── LimitReached                429
    │   ├── Unavailable                 503, and what gateways in front answer meanwhile
    │   └── NotATunnel                  everything else: another service, another path, a redirect
    └── TunnelClosed                    an open tunnel has ended, by a close frame
        ├── TunnelLost                  … without one
        └── ClosedHere                  … by this program

The text of each is one line for people; no text quotes a credential.
"""

from __future__ import annotations

import re
from typing import Final

from aero_l2.wire.tunnel import ErrorCode, ErrorMessage

MAX_QUOTED: Final = 200
"""Characters of a server's text that are repeated."""

_ABNORMAL: Final = 1006  # RFC 6455 §7.4.1
_NORMAL: Final = 1000
_FAULTS: Final = frozenset((1002, 1003, 1007, 1009, 1010))
"""Close codes by which a server says that what it got breaks the protocol."""
_PASSING_ERRORS: Final = frozenset((None, ErrorCode.QUOTA_CONNECTIONS, ErrorCode.BACKPRESSURE))
_FINAL_REASONS: Final = frozenset(("session expired", "closed by the operator"))
_GATEWAY_STATUSES: Final = frozenset((408, 500, 502, 503, 504))


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


class ProxyFailed(Unreachable):
    """The proxy that the environment names is not usable, or does not connect to the server.

    retryable: unless it refuses (407 and the like), or its address cannot be used.
    """

    def __init__(self, text: str, *, retryable: bool) -> None:
        self.retryable = retryable
        super().__init__(text)


class OpenTimeout(Unreachable):
    """The server did not answer in time."""


class Refused(ClientError):
    """The server answered the upgrade with something other than a tunnel.

    status: of the HTTP answer, 0 where it was none; body: its text, cut at `MAX_QUOTED` characters,
    unprintable ones as ``?``.
    """

    hint = "the server does not open a tunnel"

    def __init__(self, status: int, body: str, retry_after_s: float | None = None) -> None:
        self.status = status
        self.body = printable(body)
        self.retry_after_s = retry_after_s
        answer = ": ".join(part for part in (f"HTTP {status}" if status else "", self.body) if part)
        super().__init__(f"{answer} ({self.hint})" if status else answer)


class CredentialRefused(Refused):
    """401: no credential, a wrong or an expired one, or one delivered in a way the server does not read.

    is_without_credential: none was sent.
    """

    hint = "give the credential that AERO_L2_AUTH_MODE of the server asks for"
    is_without_credential = False

    @classmethod
    def of_none(cls, body: str, retry_after_s: float | None) -> CredentialRefused:
        """Where none was sent."""
        error = cls(401, body, retry_after_s)
        error.is_without_credential = True
        error.args = (f"{error}: no credential was sent",)
        return error


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
    """503: the server shuts down, or cannot make a tunnel now. Also 408, and 500, 502, 504 of a gateway."""

    retryable = True
    hint = "the server takes no new tunnels at the moment"


class NotATunnel(Refused):
    """Something else answers there, or refuses the protocol."""

    hint = "is this the address of an aero-l2 server, with /l2 at its end?"


_BY_STATUS: Final[dict[int, type[Refused]]] = {
    401: CredentialRefused,
    429: LimitReached,
    **dict.fromkeys(_GATEWAY_STATUSES, Unavailable),
}
_FORBIDDEN: Final[dict[str, type[Refused]]] = {"Origin": OriginRefused, "Host": HostRefused}


def refusal(status: int, body: str, retry_after: str | None = None) -> Refused:
    """The error for an HTTP answer; ``retry_after`` is its Retry-After line."""
    kind = _BY_STATUS.get(status, NotATunnel)
    if status == 403 and (named := re.match(r"(?:missing |invalid |malformed )?(Origin|Host) ", body)):
        kind = _FORBIDDEN[named[1]]
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
        """All but what a person has to look at: faults of ours, used-up quotas, credentials that are over,
        and a person who ended it."""
        passes = self.error_code in _PASSING_ERRORS and self.close_code not in _FAULTS
        return passes and self.reason not in _FINAL_REASONS

    def _describe(self) -> str:
        text = self.reason or (printable(self.error.text) if self.error is not None else "")
        said = f": {text}" if text else ""
        code = self.error.code if self.error is not None else None
        number = f", ERROR {code}" if code is not None else ""
        return f"the server closed the tunnel{said} (close code {self.close_code}{number})"


class TunnelLost(TunnelClosed):
    """The connection broke without a close frame, or what comes over it is no tunnel any more."""

    def __init__(self, why: str, error: ErrorMessage | None = None) -> None:
        self.why = printable(why)
        super().__init__(_ABNORMAL, "", error)

    def _describe(self) -> str:
        return f"the connection to the server is lost: {self.why}"


class ClosedHere(TunnelClosed):
    """The tunnel is used after its ``async with`` block has ended."""

    def __init__(self) -> None:
        super().__init__(_NORMAL, "")

    @property
    def retryable(self) -> bool:  # type: ignore[override]
        """Never: nobody wants it back."""
        return False

    def _describe(self) -> str:
        return "the tunnel has been closed by this program"


def printable(text: str) -> str:
    """A stranger's text in one line that is safe to print, cut at `MAX_QUOTED` characters."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in line[:MAX_QUOTED])
