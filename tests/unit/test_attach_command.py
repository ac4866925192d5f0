"""What a command behind a tunnel gets, and what is said where it cannot have a network of its own."""

from __future__ import annotations

import errno
import os

from aero_l2.attach.behind import environment_for
from aero_l2.attach.inside import own_nsswitch, why_no_namespace


def test_the_credential_stays_out_of_the_commands_environment() -> None:
    given = {"PATH": "/bin", "AERO_L2_CLIENT_TOKEN": "s", "AERO_L2_CLIENT_TOKEN_FILE": "f", "HOME": "/"}
    assert environment_for(given) == {"PATH": "/bin", "HOME": "/"}


def test_names_come_from_files_and_dns_alone() -> None:
    given = (
        "passwd: files systemd\n hosts : files mdns4_minimal [NOTFOUND=return] resolve dns\nservices: db\n"
    )
    assert own_nsswitch(given) == "passwd: files systemd\nservices: db\nhosts: files dns\n"
    assert own_nsswitch("") == "hosts: files dns\n"
    assert own_nsswitch("passwd: files") == "passwd: files\nhosts: files dns\n"


def test_what_forbids_namespaces_is_one_line() -> None:
    said = why_no_namespace(OSError(errno.EPERM, os.strerror(errno.EPERM)))
    assert "user namespaces" in said
    assert "\n" not in said
