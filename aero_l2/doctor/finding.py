"""What a check has found. Pure; docs/doctor.md, docs/doctor.schema.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Status = Literal["ok", "note", "problem"]
"""note: it works, and is limited; or it was not tried."""
STATUSES: Final[tuple[Status, ...]] = ("ok", "note", "problem")
Fact = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    check: what was looked at. text: what was found, for people. fix: what to type or do, a line each, the
    first that helps by itself first. facts: the figures behind it, for programs.
    """

    check: str
    status: Status
    text: str
    fix: tuple[str, ...] = ()
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def line(self) -> str:
        """All of it in one line, for a log."""
        return f"{self.check}: {self.text}" + (f"; type: {self.fix[0]}" if self.fix else "")

    def as_fields(self) -> dict[str, Any]:
        """For programs."""
        return {
            "check": self.check,
            "status": self.status,
            "text": self.text,
            "fix": list(self.fix),
            "facts": dict(self.facts),
        }

    def to_json(self) -> str:
        """One line, which `from_json` reads."""
        return json.dumps(self.as_fields())

    @classmethod
    def from_json(cls, line: str) -> Finding:
        """What `to_json` wrote, by a process of ours. Raises ValueError."""
        try:
            fields = json.loads(line)
            return cls(**{**fields, "fix": tuple(fields["fix"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"no finding: {line[:200]!r}") from error


def ok(check: str, text: str, **facts: Fact) -> Finding:
    """All is well with it."""
    return Finding(check, "ok", text, (), facts)


def note(check: str, text: str, *fix: str, **facts: Fact) -> Finding:
    """It works, and is limited."""
    return Finding(check, "note", text, fix, facts)


def problem(check: str, text: str, *fix: str, **facts: Fact) -> Finding:
    """It keeps the proxy from serving, or from doing what its settings say."""
    return Finding(check, "problem", text, fix, facts)
