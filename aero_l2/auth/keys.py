"""Secrets as values that do not show themselves."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

RANDOM_KEY_BYTES: Final = 32  # as long as the output of SHA-256 (RFC 2104 §3)


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """One secret and those it replaced; true if there is a current one.

    Attributes:
        current: signs and verifies; None = the secret is not set.
        previous: verify only, while tokens made with them are still around.

    Raises:
        ValueError: one of them is empty. It would let everyone in.
    """

    current: bytes | None = None
    previous: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        """Refuse empty secrets."""
        if b"" in self.verifying():
            raise ValueError("a secret is empty")

    def verifying(self) -> tuple[bytes, ...]:
        """Every secret that verifies, the current one first."""
        return self.previous if self.current is None else (self.current, *self.previous)

    def match(self, presented: bytes) -> bool:
        """Whether `presented` is one of the secrets.

        The time it takes tells neither which one, nor how much of it agrees, nor how long it is.
        """
        digest = hashlib.sha256(presented).digest()
        return any_accepted(
            self.verifying(), lambda key: hmac.compare_digest(digest, hashlib.sha256(key).digest())
        )

    def __bool__(self) -> bool:
        """Whether there is a current secret."""
        return self.current is not None

    def __repr__(self) -> str:
        """Say what is set, not what it is."""
        return f"Keys(current={'***' if self else None}, previous={len(self.previous)})"


def any_accepted(keys: Sequence[bytes], accepts: Callable[[bytes], bool]) -> bool:
    """Whether `accepts` takes one of `keys`. It is asked about all, so that the time does not tell which."""
    verdicts = [accepts(key) for key in keys]
    return any(verdicts)


def random_key(length: int = RANDOM_KEY_BYTES) -> str:
    """A new secret of `length` random bytes, as base64url text without padding."""
    return secrets.token_urlsafe(length)
