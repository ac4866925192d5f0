"""base64url without padding (RFC 4648 §5, RFC 7515 §2), in its one canonical spelling."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

_ALPHABET = re.compile(r"[A-Za-z0-9_-]*")


class NotBase64url(ValueError):
    """The text is not canonical base64url without padding."""


def encode(data: bytes) -> str:
    """Bytes as text."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """Text as bytes; only what `encode` makes is accepted, so that no two texts mean the same.

    Raises:
        NotBase64url: another alphabet, padding, a length that cannot be, or unused bits that are not zero.
    """
    if not _ALPHABET.fullmatch(text) or len(text) % 4 == 1:
        raise NotBase64url("not base64url without padding")
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode(data) != text:
        raise NotBase64url("not canonical base64url: unused bits are set")
    return data
