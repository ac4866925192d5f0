"""What the image is made of: its pins, its profile of system calls, what the build may see."""

import json
import re
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

TREE = Path(__file__).parents[2]
PROFILE = TREE / "deploy/seccomp-aero.json"
_NEW_USER_MOUNT_NET = 0x10000000 | 0x00020000 | 0x40000000
_NEW_OTHERS = 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x80  # cgroup, UTS, IPC, PID, time


def pins(lock: Path) -> dict[str, str]:
    """Each pin with its hashes, by name."""
    blocks = re.split(r"\n(?=\S)", lock.read_text().strip())
    return {block.split("==")[0]: block for block in blocks}


def needed(name: str, extras: frozenset[str]) -> set[tuple[str, frozenset[str]]]:
    found = set()
    for text in requires(name) or ():
        need = Requirement(text)
        if need.marker is None or any(need.marker.evaluate({"extra": one}) for one in (*extras, "")):
            found.add((re.sub(r"[-_.]+", "-", need.name).lower(), frozenset(need.extras)))
    return found


def run_time_packages() -> set[str]:
    """What aero-l2 with its extra `fast` depends on here, whatever the depth."""
    todo, seen = {("aero-l2", frozenset({"fast"}))}, set()
    while todo:
        one = todo.pop()
        seen.add(one)
        todo |= needed(*one) - seen
    return {name for name, _ in seen} - {"aero-l2"}


def test_image_has_the_pins_of_the_tests_and_all_that_running_needs() -> None:
    ours, everything = pins(TREE / "deploy/requirements.lock"), pins(TREE / "requirements.lock")
    assert {name: everything.get(name) for name in ours} == ours, "run ./dev lock"
    here = {name for name, block in ours.items() if "sys_platform == 'win32'" not in block}
    assert run_time_packages() == here, "run ./dev lock"


def rules() -> list[dict[str, Any]]:
    profile: dict[str, Any] = json.loads(PROFILE.read_text())
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    assert set(profile) == {"defaultAction", "defaultErrnoRet", "syscalls"}
    found: list[dict[str, Any]] = profile["syscalls"]
    return found


def test_profile_is_flat_so_that_every_engine_reads_the_same() -> None:
    """`includes`, `excludes` and `archMap` are moby's: containerd ignores them, and would allow too much."""
    for rule in rules():
        assert set(rule) <= {"names", "action", "args", "comment", "errnoRet"}


def test_profile_gives_namespaces_of_three_kinds_and_no_tracing() -> None:
    allowed = [rule for rule in rules() if rule["action"] == "SCMP_ACT_ALLOW"]
    bare = {name for rule in allowed if "args" not in rule for name in rule["names"]}
    (unshare,) = [rule for rule in allowed if rule["names"] == ["unshare"]]
    (mask,) = unshare["args"]
    assert (mask["op"], mask["value"], mask["valueTwo"]) == ("SCMP_CMP_MASKED_EQ", _NEW_OTHERS, 0)
    assert mask["value"] & _NEW_USER_MOUNT_NET == 0
    (setns,) = [rule for rule in allowed if rule["names"] == ["setns"]]
    assert setns["args"] == [{"index": 1, "value": 0x40000000, "op": "SCMP_CMP_EQ"}]
    assert {"mount", "umount2", "pivot_root", "pidfd_getfd"} <= bare
    refused = (
        "unshare setns clone clone3 ptrace bpf process_vm_readv process_vm_writev chroot init_module"
        " finit_module kexec_load open_by_handle_at perf_event_open userfaultfd keyctl add_key io_uring_setup"
        " mount_setattr move_mount open_tree fsopen fsmount reboot"
    )
    assert not bare & set(refused.split())


def test_build_sees_what_it_copies_and_nothing_else() -> None:
    """What is not named in .dockerignore does not exist for the build."""
    lines = (TREE / ".dockerignore").read_text().splitlines()
    seen = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (TREE / "Dockerfile").read_text(), re.MULTILINE)
    copied = {name for line in copies for name in line.split()}
    assert copied == seen
    assert all((TREE / name).exists() for name in seen)
