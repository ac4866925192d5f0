"""What a run has found: for people line by line, for programs as one JSON object. Pure. docs/probe.md."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from aero_l2.probe.outcome import EXIT_OK, Fact, Facts, Kind

SCHEMA_VERSION: Final = 1
_HIDDEN: Final = "***"
_TELLING: Final = 8
"""Characters of a secret that are taken for it."""
_LINE: Final = "{mark:6}  {step:11}  {ms:>9}  {text}"


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what was done to what, how long it took, what came of it. kind: None where it went well."""

    name: str
    target: str | None
    duration_s: float
    text: str
    facts: Facts
    kind: Kind | None = None

    @property
    def line(self) -> str:
        """For people."""
        mark = "ok" if self.kind is None else "FAILED"
        return _LINE.format(mark=mark, step=self.name, ms=f"{self.duration_s * 1000:.1f} ms", text=self.text)

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "step": self.name,
            "target": self.target,
            "ok": self.kind is None,
            "ms": _ms(self.duration_s),
            "text": self.text,
            "facts": dict(self.facts),
        }


@dataclass(frozen=True, slots=True)
class Rate:
    """A throughput that was measured: up is from the guest."""

    target: str
    direction: str
    seconds: float
    bytes: int

    @property
    def bits_per_s(self) -> float:
        """The rate."""
        return self.bytes * 8 / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {
            "target": self.target,
            "direction": self.direction,
            "seconds": round(self.seconds, 3),
            "bytes": self.bytes,
            "mbit_per_s": round(self.bits_per_s / 1e6, 3),
        }


@dataclass(slots=True)
class Report:
    """One run. server: the address without its query; started_at: unix seconds."""

    server: str
    started_at: float
    steps: list[Step] = field(default_factory=list)
    rates: list[Rate] = field(default_factory=list)
    duration_s: float = 0.0

    @property
    def failed(self) -> Step | None:
        """The step that ended the run."""
        return self.steps[-1] if self.steps and self.steps[-1].kind is not None else None

    @property
    def status(self) -> int:
        """The exit status that it comes to."""
        kind = self.failed.kind if self.failed is not None else None
        return EXIT_OK if kind is None else kind.status

    @property
    def last_line(self) -> str:
        """What it comes to, for people."""
        took = f"{self.duration_s * 1000:.0f} ms"
        if self.failed is None or self.failed.kind is None:
            return f"ok: {len(self.steps)} steps in {took}"
        kind = self.failed.kind
        return f"FAILED at {self.failed.name} after {took}: {kind.word} (exit status {kind.status})"

    def lines(self) -> Iterator[str]:
        """For people."""
        yield self.server
        yield from (step.line for step in self.steps)
        yield self.last_line

    def as_json(self) -> str:
        """For programs: one object in one line."""
        failed = self.failed
        shown: dict[str, Fact | dict[str, object] | list[dict[str, object]]] = {
            "version": SCHEMA_VERSION,
            "server": self.server,
            "started_at": round(self.started_at, 3),
            "ok": failed is None,
            "exit_status": self.status,
            "kind": failed.kind.word if failed is not None and failed.kind is not None else None,
            "failed_step": failed.name if failed is not None else None,
            "reason": failed.text if failed is not None else None,
            "ms": _ms(self.duration_s),
            "steps": [step.as_json() for step in self.steps],
            "throughput": [rate.as_json() for rate in self.rates],
        }
        return json.dumps(shown)


def without(text: str, secret: str) -> str:
    """A text without a secret, also where only its beginning is there: texts of others are cut."""
    head, at = secret[:_TELLING], 0
    while head and (at := text.find(head, at)) >= 0:
        pairs = zip(text[at:], secret, strict=False)
        end = at + sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        text = text[:at] + _HIDDEN + text[end:]
        at += len(_HIDDEN)
    return text


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
