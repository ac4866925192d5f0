"""Tokens of the `aero_session` cookie: `<payload>.<signature>`, HMAC-SHA256 over the encoded payload."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aero_l2.auth import base64url
from aero_l2.auth.keys import any_accepted
from aero_l2.auth.signed import (
    MAX_PAYLOAD_CHARS,
    InvalidToken,
    encode_object,
    fits_i64,
    is_name,
    is_number,
    json_object,
    take_apart,
)

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class SessionClaims:
    """What a session token says: whose session, and until when in unix seconds."""

    sid: str
    exp: float

    def __post_init__(self) -> None:
        """Refuse what no token may say, with InvalidToken."""
        if not is_name(self.sid):
            raise InvalidToken("sid is not a string with something in it")
        if not is_number(self.exp) or not fits_i64(self.exp):
            raise InvalidToken("exp is not a number of seconds")


def verify_session_token(token: str, keys: Sequence[bytes], now: float) -> SessionClaims:
    """The claims of a session token that one of `keys` signed and that has not expired.

    Checked in this order: shape and lengths, signature, payload. Every key is tried, in constant time.

    Args:
        token: any text.
        keys: secrets that verify; none of them empty.
        now: unix seconds.

    Raises:
        InvalidToken: it does not verify.
    """
    opened = take_apart(token, (MAX_PAYLOAD_CHARS,))
    if not any_accepted(keys, lambda key: hmac.compare_digest(opened.signature, _sign(opened.message, key))):
        raise InvalidToken("no secret of ours signed it")
    claims = read_claims(json_object(opened.parts[0]))
    if now * 1000 >= claims.exp * 1000:
        raise InvalidToken("it has expired")
    return claims


def read_claims(payload: dict[str, Any]) -> SessionClaims:
    """The claims of a payload, expired or not.

    Raises:
        InvalidToken: `v` is not the number 1, `sid` or `exp` is missing or of the wrong type.
    """
    if not is_number(version := payload.get("v")) or version != VERSION:
        raise InvalidToken(f"v is not {VERSION}")
    return SessionClaims(payload.get("sid"), payload.get("exp"))  # type: ignore[arg-type]


def mint_session_token(claims: SessionClaims, key: bytes) -> str:
    """A token that says `claims`, signed with `key`.

    Raises:
        ValueError: the claims do not fit a token.
    """
    payload = encode_object({"v": VERSION, "sid": claims.sid, "exp": claims.exp}, MAX_PAYLOAD_CHARS)
    return f"{payload}.{base64url.encode(_sign(payload.encode('ascii'), key))}"


def _sign(message: bytes, key: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")
