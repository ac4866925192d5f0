"""User Mode Linux with busybox: a real kernel's network stack, as an ordinary process."""

import subprocess

import pytest
from support import guests
from support.proxy import Proxy

pytestmark = pytest.mark.slow


def test_user_mode_linux_gets_all_the_network_it_is_promised(proxy: Proxy) -> None:
    release = subprocess.check_output(["linux.uml", "--version"], text=True)
    version = ".".join(release.split(".")[:2])
    guests.check_linux(guests.UML, proxy, f"User Mode Linux {version}", "vector", "uml-vector")
