"""The authentication modes: credentials and rules in, who it is or why not out. Pure; time is passed in."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from aero_l2.auth.credentials import Credentials
from aero_l2.auth.jwt import is_bound_elsewhere, verify_jwt
from aero_l2.auth.keys import Keys
from aero_l2.auth.session_token import verify_session_token
from aero_l2.auth.signed import InvalidToken

RejectReason = Literal[
    "missing_credentials", "invalid_api_key", "invalid_cookie", "invalid_jwt", "jwt_origin_mismatch"
]
Secret = Literal["session", "api_key", "jwt"]


class AuthMode(enum.Enum):
    """Values of AERO_L2_AUTH_MODE."""

    NONE = "none"
    SESSION = "session"
    TOKEN = "token"
    JWT = "jwt"
    COOKIE_OR_JWT = "cookie_or_jwt"
    SESSION_OR_TOKEN = "session_or_token"
    SESSION_AND_TOKEN = "session_and_token"

    @property
    def needs(self) -> tuple[Secret, ...]:
        """The secrets without which the mode makes no sense, by their names in `AuthRules`."""
        return _NEEDS[self]


_NEEDS: Final[dict[AuthMode, tuple[Secret, ...]]] = {
    AuthMode.NONE: (),
    AuthMode.SESSION: ("session",),
    AuthMode.TOKEN: ("api_key",),
    AuthMode.JWT: ("jwt",),
    AuthMode.COOKIE_OR_JWT: ("session", "jwt"),
    AuthMode.SESSION_OR_TOKEN: ("session",),
    AuthMode.SESSION_AND_TOKEN: ("session", "api_key"),
}
ALIASES: Final = {
    "cookie": AuthMode.SESSION,
    "api_key": AuthMode.TOKEN,
    "cookie_or_api_key": AuthMode.SESSION_OR_TOKEN,
    "cookie_and_api_key": AuthMode.SESSION_AND_TOKEN,
}
_INVALID_JWT: Final = "invalid jwt"
_TEXTS: Final = {
    AuthMode.SESSION: "missing or expired session",
    AuthMode.TOKEN: "invalid token",
    AuthMode.JWT: _INVALID_JWT,
}
_MIXED_TEXT: Final = "missing or invalid auth"


def parse_mode(text: str) -> AuthMode:
    """A mode by name or alias, in any case.

    Raises:
        ValueError: the text names none; str() lists those there are.
    """
    word = text.strip().lower()
    try:
        return ALIASES.get(word) or AuthMode(word)
    except ValueError:
        names = ", ".join(mode.value for mode in AuthMode)
        raise ValueError(f"choose one of {names}") from None


@dataclass(frozen=True, slots=True)
class AuthRules:
    """What is asked of a request.

    Attributes:
        audience: what a JWT's `aud` must be; None = not asked.
        issuer: what a JWT's `iss` must be; None = not asked.
        open: whether the Origin goes unchecked (AERO_L2_OPEN).
    """

    mode: AuthMode
    session: Keys
    api_key: Keys
    jwt: Keys
    audience: str | None = None
    issuer: str | None = None
    open: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """Let in.

    Attributes:
        principal: `sid` of the cookie or JWT that did it; None with an API key and without authentication.
        expires_at: when that credential expires, unix seconds; None = never.
    """

    principal: str | None
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Rejected:
    """Not let in.

    Attributes:
        text: body of the 401.
        reason: label of the metric.
        detail: for the log, never for the client: what was wrong with which credential. Quotes none.
    """

    text: str
    reason: RejectReason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Flaw:
    """Why a credential that was presented does not count."""

    reason: RejectReason
    detail: str


_Finding = Admitted | _Flaw | None  # None = nothing was presented


def judge(
    rules: AuthRules, credentials: Credentials, origins: Sequence[str], now: float
) -> Admitted | Rejected:
    """Judge a request by the mode's rule.

    A rejection's reason is `missing_credentials` if nothing that the mode reads was presented, else that of
    what was: the API key's or JWT's rather than the cookie's. Where both halves are needed and one is
    missing, an invalid other half is the reason, and a valid one leaves `missing_credentials`.

    Args:
        rules: mode and secrets.
        credentials: what the request presents.
        origins: its Origin header lines, for JWTs bound to one.
        now: unix seconds.
    """
    finding = _finding(rules, credentials, origins, now)
    if isinstance(finding, Admitted):
        return finding
    if finding is None:
        return Rejected(_TEXTS.get(rules.mode, _MIXED_TEXT), "missing_credentials", "a credential is missing")
    if finding.reason in ("invalid_jwt", "jwt_origin_mismatch"):
        return Rejected(_INVALID_JWT, finding.reason, finding.detail)
    return Rejected(_TEXTS.get(rules.mode, _MIXED_TEXT), finding.reason, finding.detail)


def _finding(rules: AuthRules, credentials: Credentials, origins: Sequence[str], now: float) -> _Finding:
    match rules.mode:
        case AuthMode.NONE:
            return Admitted(None, None)
        case AuthMode.SESSION:
            return _by_cookie(rules, credentials, now)
        case AuthMode.TOKEN:
            return _by_key(rules, credentials)
        case AuthMode.JWT:
            return _by_jwt(rules, credentials, origins, now)
        case AuthMode.COOKIE_OR_JWT:
            return _either(_by_cookie(rules, credentials, now), _by_jwt(rules, credentials, origins, now))
        case AuthMode.SESSION_OR_TOKEN:
            return _either(_by_cookie(rules, credentials, now), _by_key(rules, credentials))
        case AuthMode.SESSION_AND_TOKEN:
            return _both(_by_cookie(rules, credentials, now), _by_key(rules, credentials))


def _either(cookie: _Finding, other: _Finding) -> _Finding:
    if isinstance(cookie, Admitted):
        return cookie
    return cookie if other is None else other


def _both(cookie: _Finding, key: _Finding) -> _Finding:
    """The cookie says who it is and until when."""
    if isinstance(cookie, Admitted) and isinstance(key, Admitted):
        return cookie
    return next((half for half in (key, cookie) if isinstance(half, _Flaw)), None)


def _by_cookie(rules: AuthRules, credentials: Credentials, now: float) -> _Finding:
    if credentials.cookie is None:
        return None
    try:
        claims = verify_session_token(credentials.cookie, rules.session.verifying(), now)
    except InvalidToken as fault:
        return _Flaw("invalid_cookie", f"session cookie: {fault}")
    return Admitted(claims.sid, float(claims.exp))


def _by_key(rules: AuthRules, credentials: Credentials) -> _Finding:
    if credentials.key is None:
        return None
    if rules.api_key.match(credentials.key.encode("utf-8", "surrogatepass")):
        return Admitted(None, None)
    return _Flaw("invalid_api_key", "API key: it is not ours")


def _by_jwt(rules: AuthRules, credentials: Credentials, origins: Sequence[str], now: float) -> _Finding:
    """The first JWT that verifies for this request; a flaw in the Origin alone is the one to tell."""
    flaws: list[_Flaw] = []
    for token in credentials.jwts:
        try:
            claims = verify_jwt(
                token, rules.jwt.verifying(), now, audience=rules.audience, issuer=rules.issuer
            )
        except InvalidToken as fault:
            flaws.append(_Flaw("invalid_jwt", f"JWT: {fault}"))
            continue
        if not is_bound_elsewhere(claims, origins, open_to_all=rules.open):
            return Admitted(claims.sid, float(claims.exp))
        flaws.append(_Flaw("jwt_origin_mismatch", "JWT: it is bound to another Origin"))
    return next((flaw for flaw in flaws if flaw.reason == "jwt_origin_mismatch"), next(iter(flaws), None))
