"""What the supervisor and the server say to each other over the control socket. Pure.

One datagram is one saying. The server faces strangers, so what comes from it is one of few words and at most
a short text, checked here before anything is done with it.
"""

import enum

NETD = b"netd"
"""To the server, with a descriptor: the socket of a (new) netd."""
WELL = b"well?"
"""To the server: say `Word.WELL` as soon as the loop and netd are well; asked again only once it did."""
END_NOW = b"end now"
"""To the server: somebody asked twice for the end; wait for nothing."""

LONGEST = 512
"""Bytes of the longest saying."""
_LONGEST_TEXT = 300


class Word(enum.Enum):
    """What the server says."""

    READY = "ready"
    """Tunnels are accepted."""
    RELOADING = "reloading"
    """Settings are being read again."""
    RELOADED = "reloaded"
    """That is over, whatever came of it."""
    STOPPING = "stopping"
    """No new tunnel any more. Text: milliseconds until the end, at most."""
    STATUS = "status"
    """Text: how it is, in one line for people."""
    WELL = "well"
    """The answer to `WELL`."""


def encode(word: Word, text: str = "") -> bytes:
    """A saying of the server's; of a text what is not printable ASCII, or too much, is left out."""
    shown = "".join(character if " " <= character <= "~" else "?" for character in text[:_LONGEST_TEXT])
    return f"{word.value} {shown}".rstrip().encode()


def decode(saying: bytes) -> tuple[Word, str] | None:
    """Word and text, None where it is neither: the text is printable ASCII in one line."""
    name, _, text = saying.decode("latin-1").partition(" ")
    known = name in Word._value2member_map_
    fine = len(text) <= _LONGEST_TEXT and all(" " <= character <= "~" for character in text)
    return (Word(name), text) if known and fine else None


def milliseconds(text: str) -> int | None:
    """The number in a text, None where it is none or more than ten days."""
    fine = text.isascii() and text.isdigit() and len(text) <= 9
    return int(text) if fine else None
