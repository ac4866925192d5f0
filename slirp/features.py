"""What an installed slirp4netns can do, read once from the program itself."""

import re
import subprocess
from dataclasses import dataclass

from slirp.errors import NatStartError, NatUnsuitable

REQUIRED = (
    "--exit-fd",
    "--ready-fd",
    "--netns-type",
    "--enable-sandbox",
    "--enable-seccomp",
    "--disable-host-loopback",
    "--disable-dns",
    "--cidr",
)
"""Options without which a tunnel is not isolated; all are in slirp4netns 1.0 and later."""
_PROBE_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class Features:
    """Version text and long options of one slirp4netns."""

    version: str
    options: frozenset[str]


def probe(program: str) -> Features:
    """Ask ``program`` for its version and options. Raises NatStartError, NatUnsuitable."""
    version, usage = _ask(program, "--version"), _ask(program, "--help")
    found = re.search(r"slirp4netns version (\S+)", version)
    features = Features(
        version=found[1] if found else "unknown", options=frozenset(re.findall(r"--[a-z0-9-]+", usage))
    )
    missing = [option for option in REQUIRED if option not in features.options]
    if missing:
        raise NatUnsuitable(
            f"{program} (version {features.version}) lacks {', '.join(missing)}: "
            "install slirp4netns 1.0 or later"
        )
    return features


def _ask(program: str, option: str) -> str:
    try:
        done = subprocess.run(  # the path comes from the supervisor
            [program, option],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={},
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NatStartError(f"cannot run {program} {option}: {error}") from error
    return done.stdout.decode(errors="replace")
