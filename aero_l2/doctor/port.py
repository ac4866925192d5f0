"""The port: can it be bound, and if not, who has it."""

from __future__ import annotations

import errno
import http.client
import json
import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from aero_l2.doctor.finding import Finding, ok, problem
from aero_l2.doctor.subject import Subject
from aero_l2.door.listening import listen_advice, shown

PORT: Final = "port"
METRICS_PORT: Final = "metrics port"
_LISTEN: Final = "0A"
"""TCP_LISTEN, /proc/net/tcp (proc(5))."""
_ASK_S: Final = 3.0


def port(subject: Subject) -> Iterator[Finding]:
    """That of the settings, by binding it as the service user; somebody else may be there."""
    if os.environ.get("LISTEN_FDS"):
        yield ok(PORT, "the sockets were handed over (LISTEN_FDS)")
        return
    yield from _of(PORT, subject.settings.listen, subject.listen_setting, subject)


def metrics_port(subject: Subject) -> Iterator[Finding]:
    """That of AERO_L2_METRICS_ADDR, where it is set."""
    if subject.settings.metrics_listen is not None:
        yield from _of(METRICS_PORT, subject.settings.metrics_listen, "AERO_L2_METRICS_ADDR", subject)


def _of(check: str, address: tuple[str, int], setting: str, subject: Subject) -> Iterator[Finding]:
    owner = holder(address[1])  # before there is less to see
    subject.become_user()
    facts = {"address": shown(address)}
    try:
        _bind(*address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            yield _in_use(check, address, owner, subject)
            return
        text = f"{shown(address)} ({setting}) cannot be listened on: {listen_advice(error)}"
        yield problem(check, text, _elsewhere(error, address), **facts)
        return
    yield ok(
        check, f"{shown(address)} is free ({setting})" if address[1] else "any free one is taken", **facts
    )


def _bind(host: str, number: int) -> None:
    """Bind every address that the server would, and let go. Raises OSError."""
    found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(1)


def _elsewhere(error: OSError, address: tuple[str, int]) -> str:
    host = "127.0.0.1" if error.errno == errno.EADDRNOTAVAIL else address[0]
    number = 8090 if error.errno == errno.EACCES else address[1]
    return f"aero-l2 serve --bind {shown((host, number))}"


def _in_use(check: str, address: tuple[str, int], owner: str | None, subject: Subject) -> Finding:
    """Ours, ready or not, is how it should be; anybody else is in the way."""
    facts = {"address": shown(address), "owner": owner}
    asked = _watched(_reachable(address), check, subject)
    if (version := _version(asked)) is not None:
        status, said = _get(asked, "/readyz")
        text = f"aero-l2 {version} serves on {shown(address)}: {said.strip()[:300]}"
        if status == 200:
            return ok(check, text, **facts)
        return problem(check, text, f"curl http://{shown(asked)}/readyz", **facts)
    if owner is not None and owner.startswith("aero-l2"):
        text = f"{shown(address)} is taken: {owner} listens there, which serves no /version to this doctor"
        return problem(check, text, "aero-l2 doctor --config …  # with that service's settings", **facts)
    who = owner or "another program"
    text = f"{shown(address)} is taken: {who} listens there; end it, or choose another port"
    other = f"aero-l2 serve --bind {shown((address[0], address[1] + 1 if address[1] < 65_535 else 8091))}"
    look = subject.place.typed(f"ss -ltnp 'sport = :{address[1]}'")
    return problem(check, text, other, *(() if owner else (look,)), **facts)


def _watched(address: tuple[str, int], check: str, subject: Subject) -> tuple[str, int]:
    """Where a proxy that listens there says how it is: at AERO_L2_METRICS_ADDR, if that is set."""
    monitor = subject.settings.metrics_listen
    if check == PORT and monitor is not None and _get(address, "/healthz")[0] == 200:
        return _reachable(monitor)
    return address


def _reachable(address: tuple[str, int]) -> tuple[str, int]:
    """Where somebody who listens on all addresses is found."""
    host, number = address
    try:
        given = ip_address(host)
    except ValueError:
        return address
    if not given.is_unspecified:
        return address
    return ("::1" if given.version == 6 else "127.0.0.1", number)


def _version(address: tuple[str, int]) -> str | None:
    """What /version says, None where no aero-l2 answers."""
    status, body = _get(address, "/version")
    try:
        said = json.loads(body) if status == 200 else None
    except ValueError:
        return None
    if not isinstance(said, dict) or not {"version", "gitSha", "builtAt"} <= said.keys():
        return None
    return str(said["version"])[:40]


def _get(address: tuple[str, int], path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*address, timeout=_ASK_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(65_536).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return 0, ""
    finally:
        connection.close()


def holder(number: int, root: Path = Path("/")) -> str | None:
    """Name and id of a process that listens on a TCP port here, as far as we may know."""
    inodes = {f"socket:[{inode}]" for inode in _listeners(number, root)}
    if not inodes:
        return None
    for process in (root / "proc").iterdir():
        if process.name.isdecimal() and _holds(process, inodes):
            name = (process / "comm").read_text().strip()
            return f"{''.join(c for c in name if c.isprintable())} (process {process.name})"
    return None


def _listeners(number: int, root: Path) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (root / "proc/net" / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == number:
                yield fields[9]


def _holds(process: Path, sockets: set[str]) -> bool:
    try:
        return any(os.readlink(entry) in sockets for entry in (process / "fd").iterdir())
    except OSError:
        return False  # another user's, or gone
