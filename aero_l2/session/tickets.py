"""Secrets by which a tunnel is given back to whoever had it. Pure but for the random numbers.

Of a secret its SHA-256 is kept, and it is looked up by that, so the time this takes says nothing of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Hashable
from hashlib import sha256
from typing import Final, Generic, TypeVar

from aero_l2.wire.tunnel import RESUME_SECRET_BYTES

_RANDOM_BYTES: Final = RESUME_SECRET_BYTES * 3 // 4

T = TypeVar("T", bound=Hashable)


class Tickets(Generic[T]):
    """At most one secret for each of some things, good for one owner, and until the next is issued."""

    def __init__(self) -> None:
        self._issued: dict[bytes, tuple[Hashable, T]] = {}
        self._digests: dict[T, bytes] = {}

    def __len__(self) -> int:
        return len(self._issued)

    def issue(self, thing: T, owner: Hashable) -> str:
        """A new secret for it; the one it had is worth nothing any more."""
        self.revoke(thing)
        secret = secrets.token_urlsafe(_RANDOM_BYTES)
        digest = _digest(secret)
        self._digests[thing] = digest
        self._issued[digest] = (owner, thing)
        return secret

    def knows(self, secret: str) -> bool:
        """Whether this secret is good, whoever has it; strangers ask, so it is a cheap question."""
        return len(secret) == RESUME_SECRET_BYTES and _digest(secret) in self._issued

    def find(self, secret: str, owner: Hashable) -> T | None:
        """What this secret is for, if it is this owner's. Looking costs a secret nothing."""
        found = self._issued.get(_digest(secret))
        return found[1] if found is not None and found[0] == owner else None

    def revoke(self, thing: T) -> None:
        """Its secret is worth nothing any more; idempotent."""
        digest = self._digests.pop(thing, None)
        if digest is not None:
            del self._issued[digest]


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()
