"""What a client sent, made fit to be said back to it. Pure."""

from __future__ import annotations

from typing import Final

# A DNS name of 253 characters with scheme and port is at most 267 (RFC 1035 §2.3.4), so no real value is cut.
MAX_ECHO: Final = 300
_CUT: Final = "..."


def echo(text: str) -> str:
    """At most `MAX_ECHO` characters of `text`, each one printable ASCII: `?` stands for any other."""
    whole = len(text) <= MAX_ECHO
    shown = text if whole else text[: MAX_ECHO - len(_CUT)] + _CUT
    return "".join(char if " " <= char <= "~" else "?" for char in shown)
