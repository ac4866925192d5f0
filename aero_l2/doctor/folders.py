"""Directories that settings name: whether the service user can write there, and whether there is room."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from aero_l2.doctor.finding import Fact, Finding, note, ok, problem
from aero_l2.doctor.subject import Subject

CAPTURES: Final = "captures"
AUDIT: Final = "audit log"
ADMIN: Final = "admin socket"
_MIB: Final = 1 << 20
_FULL: Final = _MIB
_LITTLE: Final = 256 * _MIB
_LONGEST_SOCKET: Final = 107
"""Bytes of sun_path, unix(7)."""


def captures(subject: Subject) -> Iterator[Finding]:
    """AERO_L2_CAPTURE_DIR."""
    if not subject.settings.capture_dir:
        return
    path = Path(os.path.abspath(subject.settings.capture_dir))
    if subject.is_root and not path.exists() and os.access(_above(path), os.W_OK):
        yield ok(CAPTURES, f"{path} will be made for {subject.user}, by root", path=str(path))
        return
    subject.become_user(*([str(path)] if path.is_dir() else []))
    yield from _folder(CAPTURES, "AERO_L2_CAPTURE_DIR", path, subject, may_be_made=True)


def audit(subject: Subject) -> Iterator[Finding]:
    """AERO_L2_AUDIT_LOG."""
    given = subject.settings.audit_log
    if not given or given == "stdout":
        return
    subject.become_user()
    path = Path(given)
    if path.is_char_device():
        yield ok(AUDIT, f"{path} is a device")
    elif path.exists() and not path.is_file():
        yield problem(
            AUDIT, f"AERO_L2_AUDIT_LOG: {path} is no file", f"export AERO_L2_AUDIT_LOG={path}.jsonl"
        )
    elif path.exists() and not os.access(path, os.W_OK):
        fix = subject.place.typed(f"chown {subject.user} {path}")
        yield problem(AUDIT, f"AERO_L2_AUDIT_LOG: {path} cannot be written by {subject.user}", fix)
    else:
        yield from _folder(AUDIT, "AERO_L2_AUDIT_LOG", path.parent, subject)


def admin(subject: Subject) -> Iterator[Finding]:
    """AERO_L2_ADMIN_SOCKET."""
    given = subject.settings.admin_socket
    if not given:
        return
    subject.become_user()
    path = Path(given)
    if len(os.fsencode(given)) > _LONGEST_SOCKET:
        text = f"AERO_L2_ADMIN_SOCKET: longer than the {_LONGEST_SOCKET} bytes that a socket's path may be"
        yield problem(ADMIN, text, "export AERO_L2_ADMIN_SOCKET=/run/aero-l2/admin.sock")
    elif path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        yield problem(ADMIN, f"AERO_L2_ADMIN_SOCKET: {path} is there, and no socket", f"rm {path}")
    elif path.exists() and _is_served(given):
        yield ok(ADMIN, f"{path} is served, by an aero-l2 that runs")
    else:
        yield from _folder(ADMIN, "AERO_L2_ADMIN_SOCKET", path.parent, subject)


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(path)
        except OSError:
            return False
    return True


def _above(path: Path) -> Path:
    """It, or the nearest above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _folder(
    check: str, setting: str, path: Path, subject: Subject, *, may_be_made: bool = False
) -> Iterator[Finding]:
    """By making a file without a name there, or where the folder would be made."""
    where = _above(path) if may_be_made else path
    try:
        with tempfile.TemporaryFile(dir=where):
            pass
    except OSError as error:
        text = f"{setting}: {subject.user} cannot write in {where}: {error.strerror}"
        made = f"install -d -o {subject.user} -g {subject.group} -m 0750 {path}"
        yield problem(check, text, subject.place.typed(made), path=str(path))
        return
    free = os.statvfs(where).f_bavail * os.statvfs(where).f_frsize
    shown = f"{free / _MIB:,.0f} MiB free"
    facts: dict[str, Fact] = {"path": str(path), "free_bytes": free}
    if free < _FULL:
        yield problem(check, f"{setting}: the disk of {where} is full", f"df -h {where}", **facts)
    elif free < _LITTLE:
        yield note(check, f"{path}: {shown} is little", f"df -h {where}", **facts)
    else:
        missing = "" if where == path else ", will be made"
        yield ok(check, f"{path} can be written by {subject.user}{missing}, {shown}", **facts)
