"""`aero-l2 doctor`: a healthy host is well; what is taken away is named, with what to type; nothing stays."""

import json
import os
import pwd
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import addresses as at
from support import cgroup
from support.clinic import OPEN, Clinic, Examined, clinic, python
from support.proxy import SERVICE_USER, USER_ID, RunAs, run_proxy
from support.wait import wait_until
from support.world import World

from aero_l2.doctor import surroundings
from aero_l2.doctor.surroundings import Surroundings
from netns.features import FEATURES

Fix = Callable[[Surroundings], str]


@pytest.fixture
def place(proxy_as: RunAs) -> Surroundings:
    """Where these tests run, as whoever runs the doctor types there."""
    seen = surroundings.look()
    return Surroundings(seen.distribution, seen.family, seen.container, proxy_as == "root", seen.kernel)


@pytest.fixture
def ward(world: World, proxy_as: RunAs) -> Iterator[Clinic]:
    """A healthy host to cripple; afterwards nothing of the doctor is left."""
    with clinic(world, proxy_as) as healthy:
        mounted = healthy.mounted()
        yield healthy
        wait_until(lambda: not healthy.left_behind(), "no process of the doctor is left", 30)
        assert [line for line in healthy.mounted().splitlines() if "aero-l2" in line] == [
            line for line in mounted.splitlines() if "aero-l2" in line
        ]


def user_of(run_as: RunAs) -> tuple[str, int]:
    return (SERVICE_USER, pwd.getpwnam(SERVICE_USER).pw_uid) if run_as == "root" else (str(USER_ID), USER_ID)


def no_problem(examined: Examined) -> bool:
    return examined.status == 0 and not examined.checks("problem") and examined.said["ok"]


def test_healthy_host_is_well(ward: Clinic) -> None:
    examined = ward.examine()
    assert no_problem(examined), examined.said
    assert {one["check"] for one in examined.checks("note")} <= {"settings", "pings"}
    (session,) = examined.of("session")
    assert at.GUEST in session["text"]
    assert examined.said["user"] == user_of(ward.run_as)[0]
    assert examined.stderr == ""


@dataclass(frozen=True)
class Crippled:
    """A way to take something away, and what the doctor says then.

    cripple: changes the host, and returns what `Clinic.examine` is called with; or is a context manager's.
    check, names: the line. fix: what it says to type, a part of it. only: who meets it;
    the other meets another.
    """

    name: str
    cripple: Callable[[Clinic], dict[str, Any]]
    check: str
    names: str
    fix: Fix | None = None
    only: RunAs | None = None


def _limited(limit: str) -> Callable[[Clinic], dict[str, Any]]:
    return lambda ward: {"outer": _in_user_namespace(ward, limit)}


def _in_user_namespace(ward: Clinic, *limits: str) -> list[str]:
    (ward.devices / "tun").chmod(0o666)  # root of that namespace can make no device
    return [*python("newuser.py"), *limits, "--"]


def _forbidden(*calls: str) -> Callable[[Clinic], dict[str, Any]]:
    return lambda ward: {"inner": [*python("forbid.py"), *calls, "--"]}


def _without_tun(ward: Clinic) -> dict[str, Any]:
    (ward.devices / "tun").unlink()
    return {}


def _closed_tun(ward: Clinic) -> dict[str, Any]:
    (ward.devices / "tun").chmod(0o600)
    return {}


def _wrong_tun(ward: Clinic) -> dict[str, Any]:
    (ward.devices / "tun").unlink()
    os.mknod(ward.devices / "tun", 0o020666, os.makedev(1, 3))
    (ward.devices / "tun").chmod(0o666)
    return {}


def _without(program: str) -> Callable[[Clinic], dict[str, Any]]:
    def cripple(ward: Clinic) -> dict[str, Any]:
        (ward.programs / program).unlink()
        return {}

    return cripple


def _replaced(program: str, script: str) -> Callable[[Clinic], dict[str, Any]]:
    def cripple(ward: Clinic) -> dict[str, Any]:
        path = ward.programs / program
        path.rename(ward.programs / f"real-{program}")
        path.write_text(f"#!/bin/sh\nreal={ward.programs}/real-{program}\n{script}\n")
        path.chmod(0o755)
        return {}

    return cripple


OLD_SLIRP = """
case $1 in
  --version) echo slirp4netns version 0.3.2 ;;
  --help) echo '-c, --configure  -r, --ready-fd=FD  -m, --mtu=MTU' ;;
esac
"""

ENDING_SLIRP = """
case $1 in --version | --help) exec "$real" "$1" ;; esac
echo "no sandbox" >&2
exit 1
"""


def _nft_without(word: str) -> Callable[[Clinic], dict[str, Any]]:
    """The kernel of this machine has everything, so nft answers as for one that lacks it."""
    return _replaced(
        "nft",
        f"""
[ "$1" = -f ] || exec "$real" "$@"
script=$(cat)
case $script in
  *"{word}"*) echo 'Error: Could not process rule: No such file or directory' >&2; exit 1 ;;
esac
printf '%s\\n' "$script" | "$real" "$@"
""",
    )


def _with_env(**env: str) -> Callable[[Clinic], dict[str, Any]]:
    return lambda ward: {"env": env}


def _with_limit(*options: str) -> Callable[[Clinic], dict[str, Any]]:
    return lambda ward: {"inner": ["prlimit", *options, "--"]}


def _folder_of_root(variable: str, inside: str = "") -> Callable[[Clinic], dict[str, Any]]:
    def cripple(ward: Clinic) -> dict[str, Any]:
        folder = ward.programs / "closed"
        folder.mkdir(mode=0o755)
        (folder / "captures").mkdir(mode=0o755)
        return {"env": {variable: str(folder / inside)}}

    return cripple


def _read_only_proc(ward: Clinic) -> dict[str, Any]:
    ward.in_mounts("mount --bind /proc /proc && mount -o remount,bind,ro /proc")
    return {}


def _switched_off(name: str, value: str, *calls: str) -> Callable[[Clinic], dict[str, Any]]:
    """Kernels without that switch behave as with it by a filter; the switch is put where it would be."""

    def cripple(ward: Clinic) -> dict[str, Any]:
        folder, _, file = f"/proc/sys/{name.replace('.', '/')}".rpartition("/")
        ward.in_mounts('mount -t tmpfs -o mode=755 tmpfs "$1" && echo "$3" >"$1/$2"', folder, file, value)
        return {"inner": [*python("forbid.py"), *calls, "--"]}

    return cripple


def _without_resolvers(ward: Clinic) -> dict[str, Any]:
    ward.in_mounts("mount --bind /dev/null /etc/resolv.conf")
    return {}


TABLE = (
    Crippled(
        "no user namespaces",
        _limited("max_user_namespaces=0"),
        "user namespaces",
        "the sysctl user.max_user_namespaces is 0",
        lambda p: p.sysctl("user.max_user_namespaces", "15000")[0],
    ),
    Crippled(
        "no network namespaces",
        _limited("max_net_namespaces=0"),
        "network namespaces",
        "user.max_net_namespaces",
        lambda p: p.sysctl("user.max_net_namespaces", "15000")[0],
    ),
    Crippled(
        "user namespaces for root only",
        _switched_off("kernel.unprivileged_userns_clone", "0", "unshare"),
        "user namespaces",
        "the sysctl kernel.unprivileged_userns_clone is 0",
        lambda p: p.sysctl("kernel.unprivileged_userns_clone", "1")[0],
        only="user",
    ),
    Crippled(
        "AppArmor restricts user namespaces",
        _switched_off("kernel.apparmor_restrict_unprivileged_userns", "1", "mount=EACCES"),
        "mounts",
        "the sysctl kernel.apparmor_restrict_unprivileged_userns is 1",
        lambda p: p.sysctl("kernel.apparmor_restrict_unprivileged_userns", "0")[0],
        only="user",
    ),
    Crippled(
        "unshare forbidden", _forbidden("unshare"), "user namespaces", "Operation not permitted", only="user"
    ),
    Crippled(
        "unshare forbidden to root",
        _forbidden("unshare"),
        "service user",
        "without its capabilities",
        only="root",
    ),
    Crippled("mount forbidden", _forbidden("mount"), "mounts", "Operation not permitted", only="user"),
    Crippled(
        "no seccomp", _forbidden("seccomp=EINVAL"), "seccomp", "cannot install the server's seccomp filter"
    ),
    Crippled(
        "no events of connections",
        _forbidden("filter=ENOPROTOOPT"),
        "flow events",
        "Protocol not available",
        lambda p: p.module("nf_conntrack_netlink")[0],
    ),
    Crippled("read-only /proc", _read_only_proc, "user namespaces", "/proc is read-only", only="user"),
    Crippled("no /dev/net/tun", _without_tun, "/dev/net/tun", "is missing", lambda p: p.device()[0]),
    Crippled(
        "/dev/net/tun of mode 0600",
        _closed_tun,
        "/dev/net/tun",
        "mode 0600",
        lambda p: p.device_mode()[0],
        only="user",
    ),
    Crippled("/dev/net/tun is another device", _wrong_tun, "/dev/net/tun", "cannot make the TAP tap0"),
    Crippled("no nft", _without("nft"), "nft", "nft is not installed", lambda p: p.install("nft")[0]),
    Crippled(
        "nft out of order", _replaced("nft", "exit 3"), "nft", "status 3", lambda p: p.install("nft")[0]
    ),
    Crippled(
        "no slirp4netns",
        _without("slirp4netns"),
        "slirp4netns",
        "slirp4netns is not installed",
        lambda p: p.install("slirp4netns")[0],
    ),
    Crippled(
        "slirp4netns of old",
        _replaced("slirp4netns", OLD_SLIRP),
        "slirp4netns",
        "(version 0.3.2) lacks --exit-fd",
        lambda p: p.install("slirp4netns")[0],
    ),
    Crippled(
        "slirp4netns that ends",
        _replaced("slirp4netns", ENDING_SLIRP),
        "session",
        "the NAT process (slirp4netns) ended: no sandbox",
    ),
    Crippled(
        "few descriptors",
        _with_limit("--nofile=200:200"),
        "limit: files",
        "200 file descriptors",
        lambda p: p.limit("LimitNOFILE=65536", "ulimit -n 65536")[0],
    ),
    Crippled(
        "no such service user",
        _with_env(AERO_L2_USER="nobody-of-this-name"),
        "service user",
        "there is no user 'nobody-of-this-name'",
        lambda p: "useradd --system --no-create-home --shell /usr/sbin/nologin nobody-of-this-name",
        only="root",
    ),
    Crippled("root as service user", _with_env(AERO_L2_USER="root"), "service user", "is root", only="root"),
    Crippled(
        "service user of an ordinary user",
        _with_env(AERO_L2_USER=SERVICE_USER),
        "service user",
        "needs a start by root",
        lambda p: "unset AERO_L2_USER",
        only="user",
    ),
    Crippled(
        "bad setting",
        _with_env(AERO_L2_MAX_CONNECTIONS="many"),
        "settings",
        "AERO_L2_MAX_CONNECTIONS='many'",
        lambda p: "aero-l2 settings",
    ),
    Crippled("no resolver", _without_resolvers, "DNS", "no resolver to ask: /etc/resolv.conf"),
    Crippled(
        "closed folder of captures",
        _folder_of_root("AERO_L2_CAPTURE_DIR", "captures"),
        "captures",
        "Permission denied",
        lambda p: "install -d -o ",
    ),
    Crippled(
        "closed folder of the audit log",
        _folder_of_root("AERO_L2_AUDIT_LOG", "audit.jsonl"),
        "audit log",
        "Permission denied",
        lambda p: "install -d -o ",
    ),
    Crippled(
        "closed folder of the admin socket",
        _folder_of_root("AERO_L2_ADMIN_SOCKET", "admin.sock"),
        "admin socket",
        "Permission denied",
        lambda p: "install -d -o ",
    ),
    Crippled(
        "low port",
        lambda ward: {"options": ("--bind", "127.0.0.1:80")},
        "port",
        "ports below net.ipv4.ip_unprivileged_port_start",
        lambda p: "aero-l2 serve --bind 127.0.0.1:8090",
    ),
    Crippled(
        "address of another machine",
        lambda ward: {"options": ("--bind", "192.0.2.7:8090")},
        "port",
        "no interface of this machine has that address",
        lambda p: "aero-l2 serve --bind 127.0.0.1:8090",
    ),
)


def examine(ward: Clinic, how: dict[str, Any]) -> Examined:
    return ward.examine(*how.pop("options", ()), **how)


def assert_named(examined: Examined, check: str, names: str, fix: str | None) -> None:
    assert examined.status == 1, examined.said
    lines = [one for one in examined.of(check) if one["status"] == "problem"]
    assert [one for one in lines if names in one["text"]], (lines, examined.checks("problem"))
    assert fix is None or any(fix in typed for one in lines for typed in one["fix"]), (fix, lines)


ROWS = [(row, who) for row in TABLE for who in ("root", "user") if row.only in (None, who)]


@pytest.mark.parametrize(
    ("crippled", "proxy_as"), ROWS, ids=[f"{row.name}-{who}" for row, who in ROWS], indirect=["proxy_as"]
)
def test_what_is_missing_is_named(ward: Clinic, crippled: Crippled, place: Surroundings) -> None:
    fix = None if crippled.fix is None else crippled.fix(place)
    assert_named(examine(ward, crippled.cripple(ward)), crippled.check, crippled.names, fix)


WORDS = {
    "arp tables": "table arp",
    "named counters": "counter name",
    "sets of prefixes": "flags interval",
    "sets that rules fill": "update @",
    "limit": "limit rate",
    "reject": "reject with",
    "notrack": "notrack",
    "ct mark": "ct mark set",
    "ct event": "ct event",
    "ct count": "ct count",
    "ct timeout": "ct timeout",
    "nat": "dnat",
    "source nat (masquerade)": "snat",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WORDS)
def test_feature_that_the_rules_lack_is_named(ward: Clinic, name: str, place: Surroundings) -> None:
    feature = next(one for one in FEATURES if one.name == name)
    examined = examine(ward, _nft_without(WORDS[name])(ward))
    assert_named(examined, "nf_tables", f"{name} cannot be used", place.module(feature.module)[0])
    assert [one["facts"]["feature"] for one in examined.of("nf_tables")] == [name]
    assert_named(examined, "session", f"the kernel's nf_tables lacks {name}: modprobe", None)


def test_without_any_rule_nf_tables_itself_is_named(ward: Clinic) -> None:
    examined = examine(ward, _nft_without("table")(ward))
    assert_named(examined, "nf_tables", "no rule at all can be loaded", None)
    assert len(examined.of("nf_tables")) == 1


def test_closed_device_is_none_of_roots_business(world: World) -> None:
    """Root makes a node of its own for the service user."""
    with clinic(world, "root") as ward:
        examined = ward.examine()
        assert no_problem(examined), examined.said
        (tun,) = examined.of("/dev/net/tun")
        assert "a node of its own" in tun["text"]
        assert oct((ward.devices / "tun").stat().st_mode & 0o777) == "0o600"


def test_few_processes_are_named(ward: Clinic) -> None:
    with cgroup.group("pids") as (directory, joined):
        (directory / "pids.max").write_text("36")
        with joined():
            examined = ward.examine()
    assert_named(examined, "limit: processes", "pids.max of cgroup", None)


def test_limit_of_processes_of_the_user_is_named(ward: Clinic) -> None:
    examined = ward.examine(inner=["prlimit", "--nproc=25:25", "--"])
    assert examined.status == 1
    said = [one["text"] for one in examined.checks("problem")]
    assert any("process" in text or "RLIMIT_NPROC" in text for text in said), said


def test_limits_below_the_setting_are_notes(ward: Clinic) -> None:
    examined = ward.examine(inner=["prlimit", "--nofile=400:400", "--"])
    assert no_problem(examined), examined.said
    (files,) = examined.of("limit: files")
    assert files["status"] == "note"
    assert 0 < files["facts"]["tunnels"] < 64
    assert "AERO_L2_MAX_CONNECTIONS" in files["text"]


# --- the port


@contextmanager
def listening(world: World) -> Iterator[int]:
    with world.host.open_socket() as taken:
        taken.bind((at.LOOPBACK, 0))
        taken.listen(8)
        yield taken.getsockname()[1]


def test_who_has_the_port_is_named(ward: Clinic) -> None:
    with listening(ward.world) as port:
        examined = ward.examine("--bind", f"{at.LOOPBACK}:{port}")
    (found,) = examined.of("port")
    assert found["status"] == "problem"
    assert f"{at.LOOPBACK}:{port} is taken" in found["text"]
    assert found["fix"][0].startswith("aero-l2 serve --bind 127.0.0.1:")
    if ward.run_as == "root":
        assert f"(process {os.getpid()}) listens there" in found["text"]
    else:
        assert "another program" in found["text"]
        assert found["fix"][1] == f"sudo ss -ltnp 'sport = :{port}'"


def test_port_of_a_proxy_that_runs_is_as_it_should_be(ward: Clinic) -> None:
    with run_proxy(ward.world, ward.run_as) as proxy:
        proxy.wait_settled()
        held = proxy.namespaces()  # perhaps that of its own trial, still
        examined = ward.examine("--bind", f"{at.LOOPBACK}:{proxy.port}")
        assert no_problem(examined), examined.said
        (found,) = examined.of("port")
        assert "serves on 127.0.0.1" in found["text"]
        assert "ready: at most" in found["text"]
        assert proxy.namespaces() <= held


def test_port_of_a_proxy_whose_metrics_have_an_address_of_their_own(ward: Clinic) -> None:
    """There its own port answers neither /version nor /readyz."""
    with listening(ward.world) as free:
        pass
    env = {"AERO_L2_METRICS_ADDR": f"{at.LOOPBACK}:{free}"}
    with run_proxy(ward.world, ward.run_as, env) as proxy:
        examined = ward.examine("--bind", f"{at.LOOPBACK}:{proxy.port}", env=env)
        assert no_problem(examined), examined.said
        for check, port in (("port", proxy.port), ("metrics port", free)):
            (found,) = examined.of(check)
            assert f"serves on {at.LOOPBACK}:{port}: ready: at most" in found["text"]


def test_proxy_that_runs_and_is_not_ready_is_a_problem(ward: Clinic) -> None:
    def without_nft(programs: Path, devices: Path, mounts: int) -> None:
        (programs / "nft").unlink()

    with run_proxy(ward.world, ward.run_as, ready=False, before=without_nft) as proxy:
        wait_until(lambda: "nft" in proxy.get("/readyz")[1], "it has tried")
        examined = ward.examine("--bind", f"{at.LOOPBACK}:{proxy.port}")
    assert_named(examined, "port", "nft is not installed", "/readyz")


# --- resolvers


@contextmanager
def resolver(world: World, answer: Callable[[bytes], bytes] | None) -> Iterator[int]:
    """A UDP socket on the host's loopback that is silent, or answers each question by `answer`."""
    with world.host.open_socket(kind=socket.SOCK_DGRAM) as sock:
        sock.bind((at.LOOPBACK, 0))
        sock.settimeout(0.1)
        ends = threading.Event()

        def serve() -> None:
            while not ends.is_set():
                try:
                    question, peer = sock.recvfrom(4096)
                except TimeoutError:
                    continue
                asked.append(question)
                if answer is not None:
                    sock.sendto(answer(question), peer)

        asked: list[bytes] = []
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            ends.set()
            thread.join()
        questions.extend(asked)


questions: list[bytes] = []


def _refused(question: bytes) -> bytes:
    return question[:2] + b"\x81\x85" + question[4:]


def test_silent_resolver_is_named_with_the_time_it_had(ward: Clinic) -> None:
    questions.clear()
    with resolver(ward.world, None) as port:
        env = {"AERO_L2_DNS_SERVERS": f"127.0.0.1:{port}", "AERO_L2_DNS_LOOKUP_TIMEOUT_MS": "500"}
        examined = ward.examine(env=env)
    assert_named(examined, "DNS", f"127.0.0.1:{port}: no answer within 0.5 s", "export AERO_L2_DNS_SERVERS=")
    assert [question[12:] for question in questions] == [b"\0\0\2\0\1"]  # ". NS", and nothing else


def test_resolver_that_refuses_is_a_problem_and_one_of_two_a_note(ward: Clinic) -> None:
    with resolver(ward.world, _refused) as port:
        servers = f"127.0.0.1:{port}"
        examined = ward.examine(env={"AERO_L2_DNS_SERVERS": servers})
        assert_named(examined, "DNS", f"{servers} answers REFUSED in ", "export AERO_L2_DNS_SERVERS=")
        both = ward.examine(env={"AERO_L2_DNS_SERVERS": f"{servers},{at.NAMESERVER}"})
    assert both.status == 0, both.said
    assert [one["status"] for one in both.of("DNS")].count("problem") == 0


# --- what it is like to use


@pytest.mark.slow
def test_hanging_program_is_given_up_in_time(ward: Clinic) -> None:
    examined = examine(ward, _replaced("nft", "exec sleep 1000")(ward))
    assert examined.status == 1
    assert examined.said["seconds"] < 30
    assert_named(examined, "nft", "timed out", None)
    pids = subprocess.run(["pgrep", "-f", "^sleep 1000$"], capture_output=True, text=True, check=False)
    assert pids.stdout == ""


def text_of(ward: Clinic, *options: str, **env: str) -> "subprocess.CompletedProcess[str]":
    command = ward.command("--bind", "127.0.0.1:0", *options, env=env)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_lines_fit_into_80_columns_but_for_commands(ward: Clinic) -> None:
    done = text_of(ward)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines if "type: " not in line and line[:15].strip())
    assert lines[-1].startswith("all well")
    assert "\033" not in done.stdout
    assert "\033[32mok" in text_of(ward, FORCE_COLOR="1").stdout


def test_nothing_given_is_a_note(ward: Clinic) -> None:
    command = [word for word in ward.command("--json") if not word.startswith(tuple(OPEN))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    examined = Examined(done.returncode, json.loads(done.stdout), done.stderr)
    (settings,) = examined.of("settings")
    assert settings["status"] == "note"
    assert "AERO_L2_AUTH_MODE" in settings["text"]


def test_fault_of_the_command_line_is_status_2(ward: Clinic) -> None:
    done = subprocess.run(ward.command("--colour"), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("aero-l2: no such option")


@pytest.mark.slow
def test_interrupt_ends_it_at_once_and_leaves_nothing(ward: Clinic) -> None:
    """In the middle of making a session."""
    examine_with = _replaced("nft", "touch $real.begun; exec sleep 1000")(ward)
    ward.programs.chmod(0o777)
    process = subprocess.Popen(
        ward.command("--bind", "127.0.0.1:0", **examine_with), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        wait_until(lambda: (ward.programs / "real-nft.begun").exists(), "it is at it", 30)
        wait_until(lambda: any("aero_l2.doctor.inside" in one for one in ward.left_behind()), "a session", 30)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert said == b"aero-l2: interrupted\n"


def test_without_a_service_user_the_rest_is_not_blamed(world: World) -> None:
    with clinic(world, "root") as ward:
        examined = ward.examine(env={"AERO_L2_USER": "nobody-of-this-name"})
    assert {one["check"] for one in examined.checks("problem")} == {"service user", "session"}
    (nft,) = examined.of("nft")
    assert (nft["status"], nft["text"]) == ("note", "not tried: it needs the service user")


def test_dev_null_that_cannot_be_opened_is_named(world: World) -> None:
    """Whatever opens it fails for it; a check that cannot begin has not found nothing."""
    closed = 'install -m 755 /dev/null "$1/null"'
    with clinic(world, "user") as ward:
        ward.in_mounts(
            f'{closed} && mount --bind "$1/null" /dev/null', str(ward.devices).partition("/root")[2]
        )
        examined = ward.examine()
    assert examined.status == 1
    assert len(examined.checks("problem")) > 10
    assert all("/dev/null" in one["text"] for one in examined.checks("problem"))
