"""A line of the audit log: its kinds, and its bytes. Pure. docs/audit.schema.json describes each."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Final, Literal, get_args

Kind = Literal[
    "log_open",
    "log_close",
    "lost",
    "session_open",
    "session_kept",
    "session_resumed",
    "session_close",
    "flow",
    "flows",
    "incomplete",
    "denied",
    "denials",
    "dns",
    "queries",
    "refused",
    "refusals",
]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_encode = json.JSONEncoder(separators=(",", ":")).encode


def stamp(unix: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the millisecond."""
    whole, ms = divmod(round(unix * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{ms:03}Z"


def encode(kind: Kind, unix: float, fields: Mapping[str, object]) -> bytes:
    """One line, fields in their order. What a client chose has to be `echo`ed by then."""
    return _encode({"time": stamp(unix), "type": kind, **fields}).encode() + b"\n"
