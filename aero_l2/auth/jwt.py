"""JSON Web Tokens signed with HS256 (RFC 7515, 7518 §3.2, 7519), under rules stricter than the standard's.

PyJWT computes and compares the signature and does nothing else: its parser would read the header's JSON
before the signature is known to be good, and its claim checks have a clock of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from jwt.algorithms import HMACAlgorithm

from aero_l2.auth import base64url
from aero_l2.auth.keys import any_accepted
from aero_l2.auth.signed import (
    MAX_PAYLOAD_CHARS,
    InvalidToken,
    encode_object,
    is_integer,
    is_name,
    json_object,
    take_apart,
)
from aero_l2.web.origin import InvalidOrigin, OriginFault, OriginRules, normalize_origin

MAX_HEADER_CHARS: Final = 4 * 1024
_ALGORITHM: Final = "HS256"
_HS256: Final = HMACAlgorithm(HMACAlgorithm.SHA256)
_ANY_ORIGIN: Final = OriginRules(frozenset(), any_valid=True)


@dataclass(frozen=True, slots=True)
class JwtClaims:
    """What a JWT says; times in unix seconds, None = the claim is not there.

    Attributes:
        sid: whose session.
        origin: the only Origin the token is good for, as written.
        aud: whom it is for.
        iss: who made it.
    """

    iat: int
    exp: int
    sid: str
    origin: str | None = None
    aud: str | None = None
    iss: str | None = None
    nbf: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no token may say, with InvalidToken."""
        if not is_name(self.sid):
            raise InvalidToken("sid is not a string with something in it")
        for name in ("iat", "exp"):
            if not is_integer(getattr(self, name)):
                raise InvalidToken(f"{name} is not an integer")
        if self.nbf is not None and not is_integer(self.nbf):
            raise InvalidToken("nbf is not an integer")
        for name in ("origin", "aud", "iss"):
            if not isinstance(getattr(self, name), str | None):
                raise InvalidToken(f"{name} is not a string")


_CLAIMS: Final = tuple(field.name for field in fields(JwtClaims))


def verify_jwt(
    token: str, keys: Sequence[bytes], now: float, *, audience: str | None = None, issuer: str | None = None
) -> JwtClaims:
    """The claims of a JWT that one of `keys` signed and that is good now.

    Checked in this order: shape and lengths, signature, header, payload. Every key is tried, in constant
    time. Whether the token is good for the request's Origin is another question: `is_bound_elsewhere`.

    Args:
        token: any text.
        keys: secrets that verify; none of them empty.
        now: unix seconds.
        audience: what `aud` must be; None = anything or nothing.
        issuer: what `iss` must be; None = anything or nothing.

    Raises:
        InvalidToken: it does not verify.
    """
    opened = take_apart(token, (MAX_HEADER_CHARS, MAX_PAYLOAD_CHARS))
    if not any_accepted(keys, lambda key: _HS256.verify(opened.message, key, opened.signature)):
        raise InvalidToken("no secret of ours signed it")
    header, payload = opened.parts
    check_header(json_object(header))
    claims = read_claims(json_object(payload))
    check_claims(claims, now, audience=audience, issuer=issuer)
    return claims


def check_header(header: dict[str, Any]) -> None:
    """Accept HS256 and nothing that would have to be understood.

    Raises:
        InvalidToken: `alg` is not HS256, `typ` is there and not a string, or there is a `crit`
            (RFC 7515 §4.1.11).
    """
    if header.get("alg") != _ALGORITHM:
        raise InvalidToken(f"alg is not {_ALGORITHM}")
    if not isinstance(header.get("typ", ""), str):
        raise InvalidToken("typ is not a string")
    if "crit" in header:
        raise InvalidToken("crit asks for an extension")


def read_claims(payload: dict[str, Any]) -> JwtClaims:
    """The claims of a payload, good now or not.

    Raises:
        InvalidToken: a claim that is needed is missing, or one has the wrong type; null is a wrong type too.
    """
    claims = {name: payload[name] for name in _CLAIMS if name in payload}
    if missing := {"iat", "exp", "sid"} - claims.keys():
        raise InvalidToken(f"{' and '.join(sorted(missing))} missing")
    if None in claims.values():
        raise InvalidToken("a claim is null")
    return JwtClaims(**claims)


def check_claims(claims: JwtClaims, now: float, *, audience: str | None, issuer: str | None) -> None:
    """Accept claims that are good at `now` (unix seconds), and for `audience` and by `issuer` if given.

    Raises:
        InvalidToken: they are not.
    """
    if now >= claims.exp:
        raise InvalidToken("it has expired")
    if claims.nbf is not None and now < claims.nbf:
        raise InvalidToken("it is not valid yet")
    if audience is not None and claims.aud != audience:
        raise InvalidToken("aud is not AERO_L2_JWT_AUDIENCE")
    if issuer is not None and claims.iss != issuer:
        raise InvalidToken("iss is not AERO_L2_JWT_ISSUER")


def is_bound_elsewhere(claims: JwtClaims, origins: Sequence[str], *, open_to_all: bool) -> bool:
    """Whether the `origin` claim keeps the token from being used by this request.

    A request without Origin (no header, or an empty one) is left to the check of the Origin, which refuses
    it; with `open_to_all` there is no such check, and the token is refused here.

    Args:
        claims: of a token that verifies.
        origins: the Origin header lines of the request.
        open_to_all: whether the check of the Origin is turned off (AERO_L2_OPEN).
    """
    if claims.origin is None:
        return False
    try:
        bound = normalize_origin(claims.origin)
    except InvalidOrigin:
        return True
    request = _ANY_ORIGIN.judge(origins, None)
    if request.fault is OriginFault.MISSING:
        return open_to_all
    return request.origin != bound


def mint_jwt(claims: JwtClaims, key: bytes) -> str:
    """A token that says `claims`, signed with `key`.

    Raises:
        ValueError: the claims do not fit a token.
    """
    header = encode_object({"alg": _ALGORITHM, "typ": "JWT"}, MAX_HEADER_CHARS)
    said = {name: value for name, value in asdict(claims).items() if value is not None}
    message = f"{header}.{encode_object(said, MAX_PAYLOAD_CHARS)}"
    return f"{message}.{base64url.encode(_HS256.sign(message.encode('ascii'), key))}"
