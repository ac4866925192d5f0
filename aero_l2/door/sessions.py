"""`POST /session`: the `aero_session` cookie for a deployment without a gateway of its own.

It answers what Aero's browser code reads, to allowed origins only (Fetch standard, CORS protocol). The id in
the cookie is not a login: anyone at an allowed Origin gets one. It is what the limits per session count,
beside the limit per client address, which has to be set.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aero_l2.auth.credentials import read_credentials
from aero_l2.auth.session_token import SessionClaims, mint_session_token, verify_session_token
from aero_l2.auth.signed import InvalidToken
from aero_l2.config import Settings
from aero_l2.door.endpoints import SHUTTING_DOWN
from aero_l2.door.handshake import DoorRules, refused_by_host, refused_by_origin
from aero_l2.door.http import RequestHead, Response, text_response
from aero_l2.quota.rate import RateLimit
from aero_l2.web.forwarded import Via, client_group
from aero_l2.web.origin import sole_origin

SESSION_PATH: Final = "/session"
SID_PREFIX: Final = "anonymous-"
TOO_MANY_SESSIONS: Final = "too many session requests"
_PREFLIGHT_AGE_S: Final = 600
_SID_BYTES: Final = 16
_VARY: Final = ("Vary", "Origin")


@dataclass(frozen=True, slots=True)
class Moment:
    """When a request is answered. unix: seconds since 1970; monotonic: seconds of any steady clock."""

    unix: float
    monotonic: float


class SessionIssuer:
    """The endpoint; `settings` may be replaced at any time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.rate = RateLimit(settings.sessions_per_minute_per_ip)

    def answer(
        self, head: RequestHead, how: Via, rules: DoorRules, moment: Moment, *, draining: bool = False
    ) -> Response:
        """A cookie and where the tunnel is, a preflight's permission, or why not."""
        if head.method not in ("POST", "OPTIONS"):
            return text_response(405, "method not allowed", ("Allow", "POST, OPTIONS"))
        refusal = refused_by_origin(head, how, rules) or refused_by_host(how, rules)
        if refusal is not None:
            return text_response(refusal.status, refusal.text, _VARY)
        allowed = _cors(head)
        if head.method == "OPTIONS":
            return Response(204, headers=(*allowed, *_PREFLIGHT))
        if draining:
            return text_response(503, SHUTTING_DOWN, *allowed)
        if not self.rate.allow(client_group(how.client), moment.monotonic):
            after = ("Retry-After", str(self.rate.retry_after_s))
            return text_response(429, TOO_MANY_SESSIONS, *allowed, after)
        return self._issue(head, how, moment, allowed)

    def _issue(
        self, head: RequestHead, how: Via, moment: Moment, allowed: tuple[tuple[str, str], ...]
    ) -> Response:
        settings = self.settings
        key = settings.session_secrets.current
        assert key is not None  # the settings refuse the endpoint without a secret
        expires = int(moment.unix) + settings.session_ttl_secs
        token = mint_session_token(SessionClaims(self._sid(head, moment), expires), key)
        cookie = f"aero_session={token}; Max-Age={settings.session_ttl_secs}; Path=/; HttpOnly; SameSite=Lax"
        if how.scheme == "https":
            cookie += "; Secure"
        until = datetime.fromtimestamp(expires, UTC).isoformat().replace("+00:00", "Z")
        body = {
            "session": {"expiresAt": until},
            "endpoints": {"l2": "/l2"},
            "limits": {
                "l2": {
                    "maxFramePayloadBytes": settings.max_frame_payload,
                    "maxControlPayloadBytes": settings.max_control_payload,
                }
            },
        }
        headers = (*allowed, ("Set-Cookie", cookie))
        return Response(200, json.dumps(body).encode(), "application/json", headers)

    def _sid(self, head: RequestHead, moment: Moment) -> str:
        """The id of a cookie of ours that still counts, so that renewing frees nobody of a limit; or a new.

        Of ours: issued here, and signed with the current secret. Others are not for us to prolong.
        """
        cookie = read_credentials("", head.headers).cookie
        current = self.settings.session_secrets.current
        with suppress(InvalidToken):
            keys = (current,) if current is not None else ()
            sid = verify_session_token(cookie or "", keys, moment.unix).sid
            if sid.startswith(SID_PREFIX):
                return sid
        return SID_PREFIX + secrets.token_urlsafe(_SID_BYTES)


_PREFLIGHT: Final = (
    ("Access-Control-Allow-Methods", "POST"),
    ("Access-Control-Allow-Headers", "Content-Type"),
    ("Access-Control-Max-Age", str(_PREFLIGHT_AGE_S)),
)


def _cors(head: RequestHead) -> tuple[tuple[str, str], ...]:
    """What lets the page read the answer; its Origin was judged before. Without one nobody asks for it."""
    origin = head.headers.get_all("Origin")
    if len(origin) != 1 or sole_origin(origin) is None:
        return (_VARY,)
    return (
        ("Access-Control-Allow-Origin", origin[0]),
        ("Access-Control-Allow-Credentials", "true"),
        _VARY,
    )
