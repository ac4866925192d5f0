"""The `podman run` line of a Quadlet unit (podman-systemd.unit(5)), for a podman that has no Quadlet."""

from __future__ import annotations

import shlex
from pathlib import Path

# Key and option, in the order in which podman 5.4's generator writes them.
_OPTIONS = {
    "ContainerName": "--name",
    "Network": "--network",
    "AddDevice": "--device",
    "DropCapability": "--cap-drop",
    "Sysctl": "--sysctl",
    "User": "--user",
    "PublishPort": "--publish",
    "Environment": "--env",
    "EnvironmentFile": "--env-file",
    "Secret": "--secret",
}
_LISTS = ("Sysctl", "Environment", "DropCapability")
"""Keys of several values, which are divided at blanks unless quoted."""
_SWITCHES = {
    ("NoNewPrivileges", "true"): "--security-opt=no-new-privileges",
    ("ReadOnly", "true"): "--read-only",
    ("Notify", "true"): "--sdnotify=container",
}


def section(path: Path, name: str) -> list[tuple[str, str]]:
    """Keys and values of a section, as they stand there."""
    found: list[tuple[str, str]] = []
    inside = False
    for line in path.read_text().splitlines():
        if line.startswith("["):
            inside = line == f"[{name}]"
        elif inside and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.append((key, value))
    return found


def run_line(path: Path) -> list[str]:
    """What stands behind ``podman run``; raises KeyError for a key that is not known here."""
    words: list[str] = []
    image = ""
    for key, value in section(path, "Container"):
        if key == "Image":
            image = value
        elif key == "PodmanArgs":
            words += shlex.split(value)
        elif (key, value) in _SWITCHES:
            words.append(_SWITCHES[key, value])
        else:
            for one in shlex.split(value) if key in _LISTS else [value]:
                words += [_OPTIONS[key], one]
    return [*words, image]
