"""Where the program runs: which distribution, in whose container; and so what a fix looks like there.

Pure, but for the files that `look` reads.
"""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Container = Literal["docker", "podman", "kubernetes", "other"]
_INSTALL: Final = (
    (("debian", "ubuntu"), "apt-get install"),
    (("fedora", "rhel", "centos"), "dnf install"),
    (("alpine",), "apk add"),
    (("arch",), "pacman -S"),
    (("suse", "opensuse"), "zypper install"),
)
_PACKAGES: Final = {"nft": "nftables", "slirp4netns": "slirp4netns"}
_PROFILE: Final = "seccomp-aero.json"
_WALLS: Final = f"--security-opt seccomp={_PROFILE} --security-opt apparmor=unconfined"
"""What docker's own profiles forbid: unshare, setns, mount."""
_OF_IMAGE: Final = (
    f"docker run --rm --entrypoint cat IMAGE /usr/share/aero-l2/{_PROFILE} >{_PROFILE}  # the profile"
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """distribution: name for people. family: ids of os-release(5), own and alike. is_root: who types."""

    distribution: str = "Linux"
    family: tuple[str, ...] = ("debian",)
    container: Container | None = None
    is_root: bool = True
    kernel: str = ""

    @property
    def text(self) -> str:
        """In words."""
        inside = "" if self.container is None else f", in a {_NAMES[self.container]}"
        return f"{self.distribution}, kernel {self.kernel}{inside}"

    def typed(self, command: str) -> str:
        """A command for root, as whoever asks has to type it."""
        return command if self.is_root else f"sudo {command}"

    def install(self, program: str) -> tuple[str, ...]:
        """How to install a program."""
        package = _PACKAGES[program]
        command = next((how for ids, how in _INSTALL if set(ids) & set(self.family)), None)
        if command is None:
            return (f"install the package {package}",)
        if self.container is not None:
            yes = "-y " if command.startswith(("apt", "dnf")) else ""
            return (f"RUN {command} {yes}{package}  # in the image",)
        return (self.typed(f"{command} {package}"),)

    def sysctl(self, name: str, value: str) -> tuple[str, ...]:
        """How to set a sysctl, now and for good."""
        quoted = shlex.quote(f"{name}={value}")
        if self.container is not None:
            return (f"sudo sysctl -w {quoted}  # on the host of the container",)
        file = "/etc/sysctl.d/90-aero-l2.conf"
        return (self.typed(f"sysctl -w {quoted}"), f"to keep it: echo {quoted} | {self._tee(file)}")

    def net_sysctl(self, name: str, value: str) -> tuple[str, ...]:
        """The same for one that each network namespace has, so that a container is given it by its engine."""
        if self.container in ("docker", "podman"):
            return (f"{self.container} run --sysctl {shlex.quote(f'{name}={value}')} …",)
        if self.container == "kubernetes":
            return (f"securityContext: sysctls: name: {name}, value: {value!r}",)
        return self.sysctl(name, value)

    def module(self, *names: str) -> tuple[str, ...]:
        """How to load kernel modules."""
        command = f"modprobe -a {' '.join(names)}" if len(names) > 1 else f"modprobe {names[0]}"
        if self.container is not None:
            return (f"sudo {command}  # on the host of the container",)
        listed = shlex.quote("\n".join(names)).replace("\n", "\\n")
        return self.typed(
            command
        ), f"to keep it: printf '%b\\n' {listed} | {self._tee('/etc/modules-load.d/aero-l2.conf')}"

    def device(self) -> tuple[str, ...]:
        """How to have /dev/net/tun."""
        if self.container in ("docker", "podman"):
            return (f"{self.container} run --device /dev/net/tun …",)
        if self.container == "kubernetes":
            return ("volumes: hostPath /dev/net/tun, type CharDevice; volumeMounts: the same path",)
        return self.module("tun")

    def device_mode(self) -> tuple[str, ...]:
        """How to open /dev/net/tun to ordinary users."""
        if self.container is not None:
            return ("sudo chmod 0666 /dev/net/tun  # on the host of the container",)
        rule = "/etc/udev/rules.d/90-aero-l2.rules"
        text = shlex.quote('KERNEL=="tun", MODE="0666"')
        return (
            self.typed("chmod 0666 /dev/net/tun"),
            f"to keep it: echo {text} | {self._tee(rule)}",
        )

    def namespaces(self) -> tuple[str, ...]:
        """How a container is let make namespaces and mounts; nothing outside of one."""
        match self.container:
            case "docker":
                return (f"docker run {_WALLS} --device /dev/net/tun …", _OF_IMAGE)
            case "podman":
                return ("podman run -u 1000 --device /dev/net/tun …  # without --security-opt of its own",)
            case "kubernetes":
                return ("securityContext: runAsUser: 1000, seccompProfile and appArmorProfile: Unconfined",)
            case "other":
                return (
                    "let the container make user namespaces: unshare, setns and mount in its seccomp profile",
                )
            case None:
                return ()

    def unmasked(self) -> tuple[str, ...]:
        """How a container's /proc is made writable; nothing outside of one."""
        match self.container:
            case "docker":
                return ("docker run --security-opt systempaths=unconfined …",)
            case "podman":
                return ("podman run --security-opt unmask=ALL …",)
            case "kubernetes" | "other":
                return ("securityContext: procMount: Unmasked",)
            case None:
                return ()

    def limit(self, unit: str, ulimit: str) -> tuple[str, ...]:
        """How to raise a resource limit: systemd's word for it, and the shell's."""
        match self.container:
            case "docker" | "podman":
                name = {"LimitNOFILE=65536": "--ulimit nofile=65536", "TasksMax=infinity": "--pids-limit=-1"}
                return (f"{self.container} run {name.get(unit, unit)} …",)
            case _:
                return (f"{unit}  (in the systemd unit)", f"{ulimit}  # in the shell that starts it")

    def _tee(self, path: str) -> str:
        return f"{self.typed('tee')} {path}"


_NAMES: Final[Mapping[Container, str]] = {
    "docker": "Docker container",
    "podman": "podman container",
    "kubernetes": "Kubernetes pod",
    "other": "container",
}


def look(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> Surroundings:
    """What can be seen of it; root: where /etc, /run and /proc are found."""
    about = dict(_assignments(_text(root / "etc/os-release")))
    return Surroundings(
        distribution=about.get("PRETTY_NAME", "Linux"),
        family=(about.get("ID", ""), *about.get("ID_LIKE", "").split()),
        container=_container(root, environment),
        is_root=os.geteuid() == 0,
        kernel=f"{platform.release()} {platform.machine()}",
    )


def _container(root: Path, environment: Mapping[str, str]) -> Container | None:
    """By the marks that engines leave; cgroup paths tell where those are missing."""
    if "KUBERNETES_SERVICE_HOST" in environment or (root / "var/run/secrets/kubernetes.io").exists():
        return "kubernetes"
    if (root / "run/.containerenv").exists() or environment.get("container") == "podman":
        return "podman"  # podman 4.3 leaves the file out where /run is a tmpfs: --read-only
    if (root / ".dockerenv").exists():
        return "docker"
    groups = _text(root / "proc/self/cgroup")
    marks: tuple[tuple[str, Container], ...] = (
        ("kubepods", "kubernetes"), ("libpod", "podman"), ("/docker", "docker"), ("/lxc", "other")
    )  # fmt: skip
    for mark, container in marks:
        if mark in groups:
            return container
    return "other" if _text(root / "run/systemd/container") or environment.get("container") else None


def _assignments(text: str) -> list[tuple[str, str]]:
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return [(name.strip(), value.strip().strip("\"'")) for name, _, value in pairs]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
