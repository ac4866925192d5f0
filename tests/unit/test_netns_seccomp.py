"""The seccomp filter as a program: what it says to each system call number."""

import errno

import pytest

from netns import seccomp
from netns.errors import LaunchError

ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE = {"x86_64": 56, "aarch64": 220}
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS


def decide(machine: str, number: int, *, arch: int | None = None, flags: int = 0, third: int = 0) -> int:
    """Run the filter as the kernel's interpreter does (BPF of seccomp(2))."""
    data = {0: number, 4: ARCH[machine] if arch is None else arch, 16: flags, 32: third}
    program = seccomp.build_filter(machine)
    position = accumulator = 0
    while True:
        code, if_true, if_false, value = program[position]
        position += 1
        if code == 0x20:
            accumulator = data[value]
        elif code == 0x06:
            return value
        else:
            tests = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}
            position += if_true if tests[code] else if_false


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_denied_call_is_refused_and_reading_is_allowed(machine: str) -> None:
    denied = seccomp.MACHINES[machine][3]
    assert {"execve", "execveat", "unshare", "setns", "mount", "ptrace", "bpf"} <= set(denied)
    assert {decide(machine, number) for number in denied.values()} == {EPERM}
    assert decide(machine, {"x86_64": 0, "aarch64": 63}[machine]) == ALLOW


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_threads_are_allowed_processes_and_namespaces_are_not(machine: str) -> None:
    thread = 0x003D0F00  # what glibc's pthread_create asks for
    assert decide(machine, CLONE[machine], flags=thread) == ALLOW
    assert decide(machine, CLONE[machine], flags=17) == EPERM
    assert decide(machine, CLONE[machine], flags=0x10000000 | 17) == EPERM
    assert decide(machine, 435) == ENOSYS


def test_other_architectures_and_the_x32_interface_are_shut() -> None:
    assert decide("x86_64", 59, arch=0x40000003) == KILL
    assert decide("x86_64", 0x40000000 | 520) == EPERM
    with pytest.raises(LaunchError, match="riscv64"):
        seccomp.build_filter("riscv64")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_sockets_are_of_the_families_a_server_needs(machine: str) -> None:
    number = {"x86_64": 41, "aarch64": 198}[machine]
    verdicts = {family: decide(machine, number, flags=family) for family in range(50)}
    assert {family for family, verdict in verdicts.items() if verdict == ALLOW} == {1, 2, 10, 16}
    assert {
        protocol for protocol in range(30) if decide(machine, number, flags=16, third=protocol) == ALLOW
    } == {0}
