"""What the tests take a process of the proxy for."""

import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from support import procfs
from support.proxy import Proxy, Role, role_of
from support.wait import wait_until

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


def test_process_that_has_ended_is_no_longer_of_its_role(tmp_path: Path) -> None:
    """slirp4netns has a child for a moment, of its own name; ended, it has no command line."""
    program = shutil.copy("/bin/true", tmp_path / "slirp4netns")
    with subprocess.Popen([program]) as ended:
        wait_until(lambda: procfs.status(ended.pid)["State"].startswith("Z"), "a zombie")
        assert Proxy.role(cast(Proxy, SimpleNamespace(pid=0)), ended.pid) == "other"


def test_processes_are_in_order_of_their_start_whatever_their_ids() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            assert procfs.started(os.getpid())[0] < procfs.started(child.pid)[0]
            assert procfs.started(1)[0] <= procfs.started(os.getpid())[0]
        finally:
            child.kill()
