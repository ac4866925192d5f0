"""What both kinds of token share: parts between dots, the last a signature over the rest; JSON inside."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeGuard

from aero_l2.auth import base64url

SIGNATURE_CHARS: Final = 43  # 32 bytes, encoded
MAX_PAYLOAD_CHARS: Final = 16 * 1024
_I64: Final = 1 << 63


class InvalidToken(ValueError):
    """A token that does not verify; str() says why for a log and quotes nothing of the token."""


@dataclass(frozen=True, slots=True, repr=False)
class SignedToken:
    """A token taken apart, its signature not yet checked.

    Attributes:
        message: what the signature covers, ASCII.
        parts: the decoded parts before the signature.
        signature: 32 bytes.
    """

    message: bytes
    parts: tuple[bytes, ...]
    signature: bytes


def take_apart(token: str, caps: Sequence[int]) -> SignedToken:
    """Split and decode a token of `len(caps)` parts and a signature; nothing is interpreted yet.

    Args:
        token: any text.
        caps: the most characters each part may have, encoded.

    Raises:
        InvalidToken: the number of parts, an empty or a long part, or its base64url is wrong.
    """
    *encoded, signature = token.split(".")
    if len(encoded) != len(caps):
        raise InvalidToken(f"it has not exactly {len(caps) + 1} parts between dots")
    for part, cap in zip(encoded, caps, strict=True):
        if not 0 < len(part) <= cap:
            raise InvalidToken("a part is empty or too long")
    if len(signature) != SIGNATURE_CHARS:
        raise InvalidToken(f"its signature has not {SIGNATURE_CHARS} characters")
    try:
        parts = tuple(base64url.decode(part) for part in encoded)
        return SignedToken(".".join(encoded).encode("ascii"), parts, base64url.decode(signature))
    except base64url.NotBase64url as error:
        raise InvalidToken(f"a part is {error}") from None


def json_object(data: bytes) -> dict[str, Any]:
    """A JSON object that means the same to every reader (I-JSON, RFC 7493).

    Refused are therefore, at any depth: a byte order mark, invalid UTF-8, lone surrogates, a name given
    twice, NaN, Infinity and numbers beyond a double; also nesting too deep to follow.

    Raises:
        InvalidToken: anything else than such an object.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails on lone surrogates
    except (ValueError, RecursionError):
        raise InvalidToken("a part is not strict JSON") from None
    if not isinstance(value, dict):
        raise InvalidToken("a part is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) != len(pairs):
        raise ValueError("a name is given twice")
    return names


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a JSON value is a number; in Python true and false would be too."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a JSON value is a number written without fraction and exponent that fits an i64."""
    return isinstance(value, int) and not isinstance(value, bool) and fits_i64(value)


def is_name(value: object) -> TypeGuard[str]:
    """Whether a JSON value is a string that is not empty."""
    return isinstance(value, str) and value != ""


def fits_i64(number: float) -> bool:
    """Whether a number's whole part is a signed 64-bit integer."""
    return -_I64 <= number < _I64


def encode_object(value: dict[str, Any], cap: int) -> str:
    """A JSON object as a part of a token.

    Raises:
        ValueError: it is longer than `cap` characters, or not I-JSON.
    """
    encoded = base64url.encode(
        json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    )
    if len(encoded) > cap:
        raise ValueError(f"a part would be longer than {cap} characters")
    return encoded
