"""What the tests take a process of the proxy for."""

import os
import subprocess

import pytest
from support import procfs
from support.proxy import Role, role_of

PYTHON = "/x/.venv/bin/python -I -m"
LAUNCH = f"{PYTHON} netns.launch --settings-fd 3 -- {PYTHON} aero_l2.app"
NETD = f"{PYTHON} netns.netd --driver slirp.slirp4netns:Slirp4netns"


@pytest.mark.parametrize(
    ("command", "name", "parents", "role"),
    [
        (NETD, "aero-l2-netd", LAUNCH, "netd"),
        (f"{PYTHON} aero_l2.app", "aero-l2-server", LAUNCH, "server"),
        ("/usr/bin/slirp4netns --mtu=1500", "slirp4netns", NETD, "nat"),
        ("", "slirp4netns", NETD, "nat"),
        ("nft -f -", "nft", NETD, "other"),
        (NETD, "aero-l2-netd", NETD, "other"),
        (LAUNCH, "aero-l2", LAUNCH, "other"),
        ("", "", "", "other"),
    ],
)
def test_process_is_known_by_its_command_and_its_parents(
    command: str, name: str, parents: str, role: Role
) -> None:
    assert role_of(command, name, parents) == role


def test_processes_are_in_order_of_their_start_whatever_their_ids() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            assert procfs.started(os.getpid())[0] < procfs.started(child.pid)[0]
            assert procfs.started(1)[0] <= procfs.started(os.getpid())[0]
        finally:
            child.kill()
