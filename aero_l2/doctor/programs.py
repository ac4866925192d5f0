"""The programs that a session is made with, and the filter that the server puts on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Final

from aero_l2.doctor.finding import Finding, ok, problem
from aero_l2.doctor.subject import Subject
from netns import features, seccomp
from netns.errors import LaunchError, SegmentError
from netns.programs import find_program
from slirp import features as slirp_features
from slirp.errors import NatError
from slirp.slirp4netns import Slirp4netns

NFT: Final = "nft"
SLIRP: Final = "slirp4netns"
SECCOMP: Final = "seccomp"


def nft(subject: Subject) -> Iterator[Finding]:
    """nft(8): there, and it runs."""
    subject.become_user()
    try:
        program = find_program("nft", "nftables", subject.search_path)
    except SegmentError as error:
        yield problem(NFT, str(error), *subject.place.install("nft"))
        return
    try:
        said = features.version(program)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield problem(NFT, f"{program} cannot be run: {error}", *subject.place.install("nft"))
        return
    if "nftables v" not in said:
        yield problem(NFT, f"{program} --version: {said}", *subject.place.install("nft"))
        return
    yield ok(
        NFT, f"{said.partition(' (')[0]}, {program}", path=program, version=said.split(" v")[1].split()[0]
    )


def slirp4netns(subject: Subject) -> Iterator[Finding]:
    """slirp4netns: there, and with the options that isolation depends on."""
    subject.become_user()
    install = subject.place.install("slirp4netns")
    try:
        program = Slirp4netns(subject.search_path).program()
        found = slirp_features.probe(program)
    except (NatError, OSError) as error:
        yield problem(SLIRP, str(error), *install)
    else:
        text = f"slirp4netns {found.version}, {program}, with sandbox and seccomp"
        yield ok(SLIRP, text, path=program, version=found.version)


def filter_of_calls(subject: Subject) -> Iterator[Finding]:
    """Whether the kernel takes the server's seccomp filter; it is this process's then."""
    subject.become_user()
    try:
        seccomp.install()
    except LaunchError as error:
        inside = subject.place.container is not None
        fix = subject.place.namespaces() if inside else ("boot a kernel with CONFIG_SECCOMP_FILTER=y",)
        yield problem(SECCOMP, str(error), *fix)
        return
    yield ok(SECCOMP, "the server's filter of system calls is taken")
