"""Why a user namespace is refused, as far as this process can see, and what to do about it.

The supervisor ends with it; `aero-l2 doctor` looks closer. See user_namespaces(7), seccomp(2), apparmor(7).
"""

import errno
from pathlib import Path

PROFILE = "seccomp-aero.json"
_CAPABLE = (errno.EPERM, errno.EACCES)
_SWITCHES = (
    ("user.max_user_namespaces", "0", "15000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)
_FILTERED = "2"  # SECCOMP_MODE_FILTER


def explain(error: OSError, root: Path = Path("/")) -> str:
    """What stands behind ``error`` of `netns.userns.enter_user_namespace`. ``root``: where /proc is."""
    for name, off, value in _SWITCHES:
        if _read(root / "proc/sys" / name.replace(".", "/")) == off:
            return f"the sysctl {name} of the host is {off}: sysctl -w {name}={value}"
    if error.errno in _CAPABLE:
        profiles = [*_seccomp(root), *_apparmor(root)]
        if profiles:
            return " and ".join(profiles) + " (docs/containers.md)"
    return "aero-l2 doctor says what refuses it"


def _seccomp(root: Path) -> list[str]:
    """A filter that came with the container, the only one before the supervisor's children put on theirs."""
    lines = _read(root / "proc/self/status").splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    if fields.get("Seccomp") != _FILTERED:
        return []
    return [
        f"a seccomp filter forbids it, in a container: --security-opt seccomp={PROFILE}, "
        "in a systemd unit: RestrictNamespaces=user mnt net"
    ]


def _apparmor(root: Path) -> list[str]:
    """The profile that confines us, as the kernel shows it: ``docker-default (enforce)``."""
    current = _read(root / "proc/self/attr/apparmor/current") or _read(root / "proc/self/attr/current")
    name, _, mode = current.rpartition(" ")
    if mode != "(enforce)":
        return []
    return [f"the AppArmor profile {name} may forbid it: --security-opt apparmor=unconfined"]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip().strip("\0")
    except OSError:
        return ""
