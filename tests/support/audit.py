"""The audit log of a proxy, read and judged."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from aero_l2.observe.audit import lines
from aero_l2.observe.audit.session import SessionAudit
from support.proxy import Proxy, RunAs, run_proxy
from support.wait import until
from support.world import World

SCHEMA = Path(__file__).resolve().parents[2] / "docs/audit.schema.json"
Line = dict[str, Any]


@cache
def schema() -> dict[str, Any]:
    """What is published."""
    loaded: dict[str, Any] = json.loads(SCHEMA.read_text())
    return loaded


@cache
def _validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema())
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return jsonschema.Draft202012Validator(schema(), format_checker=checker)


def check(line: Line) -> None:
    """The line is as published, the order of its fields too."""
    _validator().validate(line)
    assert list(line) == list(schema()["$defs"][line["type"]]["properties"]), line


class Audit:
    """A directory with a proxy's audit log."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "audit.log"

    @property
    def files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.iterdir(), key=lambda path: -int(path.suffix[1:].replace("log", "0")))

    def text(self) -> bytes:
        """All that was written, byte by byte."""
        return b"".join(path.read_bytes() for path in self.files)

    def lines(self, *types: str) -> list[Line]:
        """Every whole line that is there, each of them checked; of some types only, if any are named."""
        found = [json.loads(line) for line in self.text().splitlines(keepends=True) if line.endswith(b"\n")]
        for line in found:
            check(line)
        return [line for line in found if not types or line["type"] in types]

    async def wait_for(self, type: str, count: int = 1, timeout_s: float = 30) -> list[Line]:
        """Wait until there are so many lines of a type."""
        await until(lambda: len(self.lines(type)) >= count, f"{count} lines of type {type}", timeout_s)
        return self.lines(type)

    async def wait_session_over(self, session: int = 1) -> None:
        """Wait for a session's last line."""

        def over() -> bool:
            return any(line["session"] == session for line in self.lines("session_close"))

        await until(over, f"the last line of session {session}", 30)

    def flows(self) -> int:
        """Flows of all lines."""
        return sum(line.get("flows", 1) for line in self.lines("flow", "flows"))

    def packets(self, verdict: str = "denied", rule: str | None = None) -> int:
        """Refused packets of all lines."""
        found = self.lines("denied", "denials")
        return sum(
            line["packets"] for line in found if line["verdict"] == verdict and rule in (None, line["rule"])
        )


@contextmanager
def audited(
    world: World, run_as: RunAs, folder: Path, env: dict[str, str] | None = None
) -> Iterator[tuple[Proxy, Audit]]:
    """A proxy with an audit log of its own, in a folder that anyone may write in."""
    folder.chmod(0o777)
    settings = {"AERO_L2_AUDIT_LOG": str(folder / "audit.log"), **(env or {})}
    with run_proxy(world, run_as, settings) as proxy:
        yield proxy, Audit(folder)


class Sheet:
    """What a `SessionAudit` writes to, in place of a log: keeps its lines as they would be read."""

    def __init__(self, *, has_queries: bool = False) -> None:
        self.has_queries = has_queries
        self.lines: list[Line] = []

    def write(self, kind: lines.Kind, **fields: object) -> None:
        """Keep a line."""
        self.lines.append(json.loads(lines.encode(kind, 0.0, fields)))

    def is_due(self, part: SessionAudit) -> None:
        """Nothing is summed up before its end."""

    def of(self, *types: str) -> list[Line]:
        """Lines of these types."""
        return [line for line in self.lines if line["type"] in types]

    def flows(self) -> int:
        """How many flows the lines tell of."""
        return sum(line.get("flows", 1) for line in self.of("flow", "flows"))
