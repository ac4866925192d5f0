"""What the supervisor says where user namespaces are refused."""

import errno
from pathlib import Path

import pytest

from netns.refusal import explain

_EPERM = OSError(errno.EPERM, "unshare: Operation not permitted")


def host(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"sys/user/max_user_namespaces": "0\n", "self/status": "Seccomp:\t2\n"},
            "the sysctl user.max_user_namespaces of the host is 0: sysctl -w user.max_user_namespaces=15000",
        ),
        (
            {"sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
            "the sysctl kernel.apparmor_restrict_unprivileged_userns of the host is 1: "
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            {"sys/user/max_user_namespaces": "9\n", "self/status": "Name:\tx\nSeccomp:\t2\n"},
            "a seccomp filter forbids it, in a container: --security-opt seccomp=seccomp-aero.json, "
            "in a systemd unit: RestrictNamespaces=user mnt net (docs/containers.md)",
        ),
        (
            {"self/status": "Seccomp:\t0\n", "self/attr/current": "docker-default (enforce)\n"},
            "the AppArmor profile docker-default may forbid it: --security-opt apparmor=unconfined "
            "(docs/containers.md)",
        ),
        ({"self/attr/current": "unconfined\n"}, "aero-l2 doctor says what refuses it"),
        ({}, "aero-l2 doctor says what refuses it"),
    ],
)
def test_what_refuses_a_user_namespace_is_named_with_what_to_do(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    assert explain(_EPERM, host(tmp_path, files)) == said


def test_profiles_are_not_blamed_for_other_errors(tmp_path: Path) -> None:
    root = host(tmp_path, {"self/status": "Seccomp:\t2\n"})
    assert explain(OSError(errno.ENOSPC, "full"), root) == "aero-l2 doctor says what refuses it"
