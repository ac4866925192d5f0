"""Everything that `aero-l2 doctor` looks at, in the order in which it is told."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Final

from aero_l2.app import launching
from aero_l2.doctor import folders, host, kernel, limits, names, port, programs, surroundings, trial
from aero_l2.doctor.finding import Finding
from aero_l2.doctor.given import judge
from aero_l2.doctor.inside import SESSION
from aero_l2.doctor.runner import Check, examine
from aero_l2.doctor.subject import Subject

CHECKS: Final = (
    Check(host.HOST, host.machine),
    Check(host.CLOCK, host.clock),
    Check(host.USER, host.service_user),
    Check(programs.NFT, programs.nft),
    Check(programs.SLIRP, programs.slirp4netns, 12.0),
    Check(programs.SECCOMP, programs.filter_of_calls),
    Check("kernel", kernel.kernel, 20.0),
    Check("limits", limits.limits),
    Check(limits.SYSCTLS, limits.sysctls),
    Check("pings", host.pings),
    Check(names.DNS, names.resolvers, 15.0),
    Check(port.PORT, port.port),
    Check(port.METRICS_PORT, port.metrics_port),
    Check(folders.CAPTURES, folders.captures),
    Check(folders.AUDIT, folders.audit),
    Check(folders.ADMIN, folders.admin),
    Check(SESSION, trial.session, trial.TIMEOUT_S + 7),
)
"""They run side by side, so the longest deadline is that of the whole: 25 s."""


def prepare(
    environment: Mapping[str, str], config: str | None, bind: str | None
) -> tuple[Subject, tuple[Finding, ...]]:
    """Read the settings; who and what is to be examined, and what there is to say of them."""
    judged = judge(environment, config, bind)
    subject = Subject(
        settings=judged.loaded.settings,
        sources=judged.sources,
        listen_setting=judged.loaded.name_of("listen"),
        search_path=launching.search_path(environment),
        place=surroundings.look(),
        is_root=os.geteuid() == 0,
    )
    return subject, judged.findings


def findings(subject: Subject) -> Iterator[Finding]:
    """Look at everything; each finding as soon as it is known, and those before it."""
    return examine(CHECKS, subject)
