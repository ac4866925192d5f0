"""What is accepted as a secret and yet looks like a mistake. Nothing said of a secret holds any of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from aero_l2.config.given import Given
from aero_l2.config.names import FILE, PREVIOUS

SHORT_BYTES: Final = 16
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
_QUOTES: Final = (b'"', b"'")
_MAKE_ANOTHER: Final = "make another with `aero-l2 token key`"


def of_any(key: bytes, given: Given) -> Iterator[str]:
    """Lines on a secret, in force or previous; `given` is the variable that holds it or names its file."""
    if len(key) < SHORT_BYTES:
        yield (
            f"{given.subject} holds a secret shorter than {SHORT_BYTES} bytes, which can be guessed: "
            f"{_MAKE_ANOTHER}"
        )
    if _is_quoted(key):
        yield (
            f"{given.subject} is in quotes, which count as part of the secret: leave them out "
            "(docker --env-file takes them literally)"
        )


def of_current(key: bytes, given: Given, *, is_api_key: bool) -> Iterator[str]:
    """Lines on a secret in force, on top of those."""
    if len(key.splitlines()) > 1:
        previous = given.called(_previous(given.name))
        yield (
            f"{given.subject} holds a line end: it is one secret, not several; "
            f"former ones belong into {previous}"
        )
    elif is_api_key and not _is_quoted(key) and not _TOKEN.fullmatch(key):
        yield (
            f"{given.subject} has a character that a subprotocol cannot have, so no browser can offer it as "
            "aero-l2-token.…: keep to letters, digits and !#$%&'*+-.^_`|~ (RFC 9110 §5.6.2), or "
            f"{_MAKE_ANOTHER}"
        )


def _previous(name: str) -> str:
    """The name beside `name` for former secrets, of the same kind: text or file."""
    main = name.removesuffix(FILE)
    return main + PREVIOUS + name[len(main) :]


def _is_quoted(key: bytes) -> bool:
    return len(key) > 1 and key[:1] == key[-1:] and key[:1] in _QUOTES
