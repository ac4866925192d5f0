"""The doctor by itself: lines, JSON, what to type where, limits, resolvers, checks that hang or fail."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import dns.rcode
import jsonschema
import pytest
from support import procfs

from aero_l2.config import load
from aero_l2.doctor import advice, given, host, limits, names, report, runner, surroundings
from aero_l2.doctor.finding import Finding, note, ok, problem
from aero_l2.doctor.names import Answer
from aero_l2.doctor.report import Style
from aero_l2.doctor.runner import Check
from aero_l2.doctor.subject import Subject
from aero_l2.doctor.surroundings import Container, Surroundings
from aero_l2.quota.capacity import Room, Stock, capacity
from netns.errors import SegmentError

ROOT = Path(__file__).parents[2]
OPEN = {"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1"}
DEBIAN = Surroundings("Debian GNU/Linux 12", ("debian",), None, False, "6.1")
FINDINGS = (
    ok("nft", "nftables v1.0.6, /usr/sbin/nft", version="1.0.6"),
    note("pings", "refused: " + "word " * 30, "sudo sysctl -w " + "x" * 90),
    problem(
        "DNS", "192.0.2.1: no answer", "first", "second", ms=1.5, server="192.0.2.1", none=None, yes=True
    ),
)


def subject(**env: str) -> Subject:
    loaded = load({**OPEN, **env})
    return Subject(
        loaded.settings, given.gather(OPEN), "", "/usr/bin:/bin", DEBIAN, is_root=os.geteuid() == 0
    )


# --- lines and JSON


@pytest.mark.parametrize("columns", [80, 120, 64, 63, 40, 30])
def test_lines_keep_to_the_width_but_for_what_is_typed(columns: int) -> None:
    for finding in FINDINGS:
        typed = [
            line for line in report.lines(finding, Style(columns)) if any(f in line for f in finding.fix)
        ]
        others = [line for line in report.lines(finding, Style(columns)) if line not in typed]
        assert all(len(line) <= columns for line in others), others
        assert [line.strip().removeprefix("type: ") for line in typed] == list(finding.fix)


def test_colour_changes_no_column() -> None:
    for finding in FINDINGS:
        plain = list(report.lines(finding, Style(80)))
        coloured = "\n".join(report.lines(finding, Style(80, colour=True)))
        for code in ("\033[32m", "\033[33m", "\033[1;31m", "\033[0m"):
            coloured = coloured.replace(code, "")
        assert coloured.split("\n") == plain


def test_summary_and_status_follow_problems() -> None:
    assert report.status(FINDINGS) == 1
    assert report.status(FINDINGS[:2]) == 0
    assert report.summary(FINDINGS, "u") == "1 problem, 1 note: aero-l2 cannot serve well here as user u"
    assert report.summary(FINDINGS[:1], "u") == "all well: aero-l2 can serve here as u"


def test_json_is_as_the_schema_says() -> None:
    schema = json.loads((ROOT / "docs/doctor.schema.json").read_text())
    said = json.loads(report.as_json(FINDINGS, "aero-l2", "docker", 1.23456))
    fits = jsonschema.Draft202012Validator(schema).is_valid
    jsonschema.Draft202012Validator.check_schema(schema)
    assert fits(said)
    assert not fits({**said, "container": "box"})
    assert not fits({**said, "more": 1})
    assert not fits({**said, "checks": [{**said["checks"][0], "status": "bad"}]})
    assert said["version"] == report.SCHEMA_VERSION == schema["properties"]["version"]["const"]


def test_every_check_is_in_the_document() -> None:
    from aero_l2.doctor import kernel
    from aero_l2.doctor.run import CHECKS

    text = (ROOT / "docs/doctor.md").read_text()
    steps = (
        kernel.USERS,
        kernel.MOUNTS,
        kernel.NETWORKS,
        kernel.TUN,
        kernel.LINKS,
        kernel.RULES,
        kernel.FLOWS,
    )
    for name in (*(check.name for check in CHECKS if check.name != "kernel"), *steps, given.CHECK):
        assert f"`{name}`" in text, name


def test_finding_survives_its_way_between_processes() -> None:
    for finding in FINDINGS:
        assert Finding.from_json(finding.to_json()) == finding
    with pytest.raises(ValueError, match="no finding"):
        Finding.from_json('{"check": 1}')


# --- what to type, where


@pytest.mark.parametrize(
    ("mark", "content", "container"),
    [
        ("run/.containerenv", "", "podman"),
        (".dockerenv", "", "docker"),
        ("var/run/secrets/kubernetes.io/x", "", "kubernetes"),
        ("run/systemd/container", "systemd-nspawn", "other"),
        ("proc/self/cgroup", "0::/kubepods.slice/pod1", "kubernetes"),
        ("proc/self/cgroup", "0::/machine.slice/libpod-12.scope", "podman"),
        ("proc/self/cgroup", "4:memory:/docker/12", "docker"),
        ("proc/self/cgroup", "0::/lxc.payload.web", "other"),
        ("proc/self/cgroup", "0::/user.slice", None),
    ],
)
def test_container_is_known_by_its_marks(
    tmp_path: Path, mark: str, content: str, container: Container | None
) -> None:
    (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mark).write_text(content)
    assert surroundings.look(tmp_path, {}).container == container


def test_read_only_container_of_podman_is_known_by_its_environment(tmp_path: Path) -> None:
    assert surroundings.look(tmp_path, {"container": "podman"}).container == "podman"
    assert surroundings.look(tmp_path, {"container": "oci"}).container == "other"


def test_distribution_decides_how_to_install(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    about = tmp_path / "etc/os-release"
    for text, command in (
        ('ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"', "apt-get install nftables"),
        ("ID=linuxmint\nID_LIKE=ubuntu debian", "apt-get install nftables"),
        ("ID=rocky\nID_LIKE='rhel centos fedora'", "dnf install nftables"),
        ("ID=alpine", "apk add nftables"),
        ("ID=plan9", "install the package nftables"),
    ):
        about.write_text(text)
        (fix,) = surroundings.look(tmp_path, {}).install("nft")
        assert fix.removeprefix("sudo ") == command


def inside(container: Container | None) -> Surroundings:
    return Surroundings("Debian", ("debian",), container, False, "6.1")


@pytest.mark.parametrize(
    ("reason", "container", "typed"),
    [
        ("nft is not installed: no such program in /bin", None, "sudo apt-get install nftables"),
        (
            "slirp4netns is not installed: no such program in /bin (package slirp4netns)", "docker",
            "RUN apt-get install -y slirp4netns  # in the image",
        ),
        ("/dev/net/tun is missing: load the module", None, "sudo modprobe tun"),
        ("/dev/net/tun is missing: load the module", "docker", "docker run --device /dev/net/tun …"),
        ("/dev/net/tun is missing: load the module", "podman", "podman run --device /dev/net/tun …"),
        ("/dev/net/tun is missing", "kubernetes",
         "volumes: hostPath /dev/net/tun, type CharDevice; volumeMounts: the same path"),
        ("no permission on /dev/net/tun (mode 0600)", None, "sudo chmod 0666 /dev/net/tun"),
        ("the kernel's nf_tables lacks ct count, reject: modprobe -a nft_connlimit nft_reject_inet", None,
         "sudo modprobe -a nft_connlimit nft_reject_inet"),
        ("the kernel does not tell of its connections (x): modprobe nf_conntrack_netlink", "docker",
         "sudo modprobe nf_conntrack_netlink  # on the host of the container"),
        ("…: the limit of namespaces is reached, raise the sysctl user.max_net_namespaces",
         None, "sudo sysctl -w user.max_net_namespaces=15000"),
        ("the server is out of file descriptors, raise LimitNOFILE (ulimit -n)", "docker",
         "docker run --ulimit nofile=65536 …"),
        ("the server is out of file descriptors, raise LimitNOFILE (ulimit -n)", None,
         "LimitNOFILE=65536  (in the systemd unit)"),
        ("cannot make a user namespace as uid 1: …", "docker",
         "docker run --security-opt seccomp=seccomp-aero.json --security-opt apparmor=unconfined "
         "--device /dev/net/tun …"),
        ("nobody knows", None, None),
    ],
)  # fmt: skip
def test_reason_has_something_to_type(reason: str, container: Container | None, typed: str | None) -> None:
    assert next(iter(advice.advice(reason, inside(container))), None) == typed


def test_root_needs_no_sudo() -> None:
    root = Surroundings("Debian", ("debian",), None, True, "6.1")
    assert root.install("nft") == ("apt-get install nftables",)
    assert (
        root.net_sysctl("net.ipv4.ping_group_range", "0 9")[0] == "sysctl -w 'net.ipv4.ping_group_range=0 9'"
    )
    assert inside("docker").net_sysctl("a.b", "1") == ("docker run --sysctl a.b=1 …",)


# --- clock, limits, resolvers, settings


@pytest.mark.parametrize(("now", "status"), [(0, "problem"), (1_790_000_000, "ok"), (5e9, "problem")])
def test_clock_that_cannot_be_right_is_a_problem(now: float, status: str) -> None:
    (finding,) = host.clock_at(now, subject())
    assert finding.status == status


def judged(room: Room, setting: int = 64, files: int = 1000) -> dict[str, Finding]:
    return {one.check: one for one in limits.judged(capacity(setting, files, room, 0), DEBIAN)}


def test_limit_below_the_setting_is_a_note_and_none_at_all_a_problem() -> None:
    assert list(judged(Room())) == ["limits"]
    low = judged(
        Room(pids=Stock(100, 50, "pids.max of cgroup /x"), ports=Stock(28_000, 10, "net.ipv4.x")), files=60
    )
    assert low["limit: files"].status == "note"
    assert low["limit: processes"].facts["tunnels"] == 18
    assert low["limit: processes"].fix[0].startswith("TasksMax=")
    assert low["limit: UDP ports"].status == "problem"
    assert "limits" not in low


def test_server_says_no_limit_twice_when_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        note("limit: files", "", tunnels=5),
        note("limit: processes", "", tunnels=9),
        note("limit: memory", "", tunnels=30),
        problem("limit: UDP ports", "", tunnels=0),
    ]
    monkeypatch.setattr(limits, "of_limits", lambda subject: found)
    assert [one.check for one in limits.unsaid(subject())] == ["limit: memory", "limit: UDP ports"]


def test_one_resolver_that_answers_is_enough() -> None:
    good, silent = Answer("a", 0.01, dns.rcode.NOERROR), Answer("b", 2.0, None, "no answer within 2 s")
    refuses, broken = Answer("c", 0.1, dns.rcode.REFUSED), Answer("d", 0.1, dns.rcode.SERVFAIL)
    for answers, statuses in (
        ((good,), ["ok"]),
        ((silent, good), ["note", "ok"]),
        ((refuses, good), ["note", "ok"]),
        ((silent, refuses), ["problem", "problem"]),
        ((broken,), ["note"]),
    ):
        assert [one.status for one in names.judged(answers)] == statuses


def test_faulty_settings_leave_the_usable_ones() -> None:
    env = {**OPEN, "AERO_L2_MAX_CONNECTIONS": "many", "AERO_L2_DNS_LOOKUP_TIMEOUT_MS": "700", "PATH": "/bin"}
    judged = given.judge({**env, "AERO_L2_AUTH_MODE": "jwt"}, None, "127.0.0.1:0")
    assert {one.status for one in judged.findings} == {"problem"}
    assert judged.loaded.settings.dns_lookup_timeout_ms == 700
    assert judged.loaded.settings.listen == ("127.0.0.1", 0)
    assert judged.loaded.settings.max_connections == 64


def test_what_is_said_of_a_command_is_a_comment_to_the_shell() -> None:
    """So that a line can be typed, or pasted, as it stands."""
    (fault, *_) = given.judge({**OPEN, "AERO_L2_MAX_CONNECTIONS": "many"}, None, None).findings
    place = inside("other")
    fixes = (*fault.fix, *place.module("tun"), *place.sysctl("a.b", "1 2"), *place.device_mode())
    for fix in fixes:
        assert " # " in fix
        subprocess.run(["sh", "-nc", fix], check=True)


def test_file_of_settings_that_is_missing_is_a_problem(tmp_path: Path) -> None:
    (finding,) = given.judge(OPEN, str(tmp_path / "none.toml"), None).findings
    assert finding.status == "problem"
    assert "none.toml" in finding.text


# --- checks that hang, fail, or say much


def run(*checks: Check) -> list[Finding]:
    return list(runner.examine(checks, subject()))


def hang(subject: Subject) -> Iterator[Finding]:
    yield ok("slow", "said before it hangs")
    time.sleep(3600)


def fail(subject: Subject) -> Iterator[Finding]:
    raise RuntimeError("by itself")
    yield


def refuse(subject: Subject) -> Iterator[Finding]:
    raise SegmentError("no")
    yield


def vanish(subject: Subject) -> Iterator[Finding]:
    yield ok("vanishes", "said before")
    os.kill(os.getpid(), signal.SIGKILL)


def test_check_that_is_killed_is_no_check_that_found_nothing() -> None:
    found = run(Check("vanishes", vanish), Check("says nothing", lambda _: []))
    assert [one.status for one in found] == ["ok", "problem"]
    assert found[1] == problem("vanishes", "it ended before all was looked at")


def test_check_that_hangs_is_given_up_and_the_others_are_told_in_order() -> None:
    before = set(procfs.descendants(os.getpid()))
    began = time.monotonic()
    found = run(
        Check("slow", hang, 0.5),
        Check("fast", lambda _: [ok("fast", "at once")]),
        Check("fails", fail),
        Check("refuses", refuse),
        Check("much", lambda _: [ok("much", "x" * 70_000) for _ in range(9)]),
    )
    assert time.monotonic() - began < 10
    assert [one.check for one in found] == ["slow", "slow", "fast", "fails", "refuses", *["much"] * 9]
    assert found[1] == problem("slow", "no result within 0.5 s, given up")
    assert found[3].text == "the check itself failed, which is a fault of aero-l2: RuntimeError: by itself"
    assert found[4] == problem("refuses", "no")
    assert set(procfs.descendants(os.getpid())) <= before
