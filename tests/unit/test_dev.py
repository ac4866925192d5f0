"""./dev, run from a tree of its own in which the tools it would start only say so."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
TOOLS = (
    "awk",
    "cat",
    "cut",
    "dirname",
    "echo",
    "env",
    "flock",
    "head",
    "mkdir",
    "mv",
    "paste",
    "rm",
    "sed",
    "sha256sum",
    "sh",
    "tr",
    "xargs",
)
# Tools that would look at the machine or change it. `id` makes whoever runs the test an ordinary user.
PROGRAM = """
[ "$1" = token ] && { echo a-fresh-key; exit; }
case " $*" in
  *" --check"*)
    case " $*" in *--faulty*) exit 2 ;; esac
    key=${AERO_L2_API_KEY# } listen="0.0.0.0:8090  default" origins="(unset)  default"
    case " $*" in *--config*) key=there listen="127.0.0.1:8111  proxy_listen_addr in aero-l2.toml" ;; esac
    [ -n "$AERO_L2_AUTH_MODE$SESSION_SECRET_FILE${key# }" ] || exit 2
    for name in AERO_L2_ALLOWED_ORIGINS ALLOWED_ORIGINS AERO_L2_ALLOWED_ORIGINS_EXTRA; do
      eval "value=\\$$name"
      [ -z "$value" ] || origins="$value  environment: $name"
    done
    echo "AERO_L2_PROXY_LISTEN_ADDR  $listen"
    [ "$AERO_L2_ADMIN_SOCKET" ] || echo "AERO_L2_ADMIN_SOCKET       (unset)  default"
    echo "AERO_L2_ALLOWED_ORIGINS    $origins"
    echo "AERO_L2_OPEN               ${AERO_L2_OPEN:-0}  default"
    exit ;;
esac
echo "aero-l2 $*; user ${AERO_L2_USER-unset}; open ${AERO_L2_OPEN-unset}; mode ${AERO_L2_AUTH_MODE-unset}; \\
key ${AERO_L2_API_KEY-unset}; origins ${AERO_L2_ALLOWED_ORIGINS-unset}; admin ${AERO_L2_ADMIN_SOCKET-unset}"
"""
STUBS = {
    "id": 'case "$1" in -u) echo 1234 ;; -un) echo somebody ;; esac',
    "dpkg-query": 'shift 3; for name in "$@"; do echo "ii  $name"; done',
    "sudo": 'while [ "$1" != "$PROGRAM" ] && [ $# -gt 1 ]; do shift; done; exec "$@"',
    "shellcheck": "true",
    "unshare": 'echo "unshare $*"',
}


def executable(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


@dataclass
class Checkout:
    """A copy of ./dev with the virtual environment it would have made, and a PATH of its own."""

    root: Path
    tools: Path

    def dev(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ./dev from another folder."""
        environment = {"PATH": str(self.tools), "PROGRAM": str(self.root / ".venv/bin/aero-l2"), **variables}
        return subprocess.run(
            ["/bin/sh", str(self.root / "dev"), *arguments],
            cwd=self.root.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root, tools = tmp_path / "tree", tmp_path / "tools"
    tools.mkdir()
    (root / "tests").mkdir(parents=True)
    for name in ("dev", "packages.txt", "requirements.lock", "pyproject.toml", "tests/packages.txt"):
        shutil.copy(TREE / name, root / name)
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found is not None, tool
        (tools / tool).symlink_to(found)
    for name, body in STUBS.items():
        executable(tools / name, body)
    programs = root / ".venv/bin"
    programs.mkdir(parents=True)
    for name in ("python", "ruff", "mypy", "lint-imports"):
        executable(programs / name, "true")
    executable(programs / "aero-l2", PROGRAM)
    version = subprocess.run([PYTHON, "--version"], capture_output=True, check=True).stdout
    lock = (root / "requirements.lock").read_bytes()
    base = digest(os.fsencode(root.resolve()) + b"\n" + version + lock)
    project = digest((root / "pyproject.toml").read_bytes())
    (root / ".venv/.made-from").write_text(f"{base}\n{project}\n")
    return Checkout(root, tools)


def test_run_makes_a_token_and_a_list_of_origins(checkout: Checkout) -> None:
    done = checkout.dev("run")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("aero-l2 serve --ready-stdout --bind 127.0.0.1:8090;")
    assert "mode token; key a-fresh-key; origins http://127.0.0.1:8090,http://localhost:5173," in done.stdout
    assert "open unset" in done.stdout
    assert "ws://127.0.0.1:8090/l2?token=a-fresh-key" in done.stderr


def test_run_has_an_admin_socket_and_top_finds_it(checkout: Checkout) -> None:
    path = f"{checkout.root.resolve()}/.cache/admin.sock"
    if len(path) <= 107:
        assert f"admin {path}" in checkout.dev("run").stdout
    else:
        assert "no admin socket for ./dev top" in checkout.dev("run").stderr
    assert checkout.dev("top", "--once").stdout.startswith(f"aero-l2 top --socket {path} --once;")
    mine = {"AERO_L2_ADMIN_SOCKET": "/run/mine.sock"}
    assert "admin /run/mine.sock" in checkout.dev("run", **mine).stdout
    assert "top --socket /run/mine.sock" in checkout.dev("top", **mine).stdout


def test_run_elsewhere_is_as_closed(checkout: Checkout) -> None:
    done = checkout.dev("run", "--bind", "0.0.0.0:8090")
    assert "--bind 0.0.0.0:8090" in done.stdout
    assert "mode token; key a-fresh-key" in done.stdout
    assert "open unset" in done.stdout


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"AERO_L2_AUTH_MODE": "none"}, "mode none; key unset"),
        ({"AERO_L2_API_KEY": "mine"}, "mode unset; key mine"),
        ({"SESSION_SECRET_FILE": "/run/secret"}, "mode unset; key unset"),
        ({"AERO_L2_API_KEY": "  "}, "mode token; key a-fresh-key"),
    ],
)
def test_run_leaves_access_that_is_configured_alone(
    checkout: Checkout, given: dict[str, str], expected: str
) -> None:
    done = checkout.dev("run", **given)
    assert expected in done.stdout


def test_run_adds_extra_origins_to_those_of_development(checkout: Checkout) -> None:
    done = checkout.dev("run", AERO_L2_ALLOWED_ORIGINS_EXTRA="https://lab.example")
    assert "origins http://127.0.0.1:8090,http://localhost:5173," in done.stdout


def test_run_on_any_port_promises_no_address(checkout: Checkout) -> None:
    done = checkout.dev("run", "--bind", "127.0.0.1:0")
    assert "ws://127.0.0.1:0" not in done.stderr
    assert "?token=a-fresh-key" in done.stderr


def test_run_leaves_faults_to_the_program(checkout: Checkout) -> None:
    done = checkout.dev("run", "--faulty")
    assert "--faulty" in done.stdout
    assert "try next" not in done.stderr


@pytest.mark.parametrize("name", ["AERO_L2_ALLOWED_ORIGINS", "ALLOWED_ORIGINS"])
def test_run_leaves_origins_that_are_configured_alone(checkout: Checkout, name: str) -> None:
    done = checkout.dev("run", **{name: "https://lab.example"})
    assert "localhost:5173" not in done.stdout


def test_run_with_a_configuration_file_does_as_it_says(checkout: Checkout) -> None:
    done = checkout.dev("run", "--config", "aero-l2.toml")
    assert "--bind 127.0.0.1:8111" in done.stdout
    assert "mode unset; key unset" in done.stdout


@pytest.mark.parametrize("arguments", [("--bind",), ("--bind", ""), ("--bind=",), ("--bind", "  ")])
def test_run_without_an_address_behind_bind_is_refused(
    checkout: Checkout, arguments: tuple[str, ...]
) -> None:
    done = checkout.dev("run", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "--bind" in line


@pytest.mark.parametrize(
    "arguments",
    [
        (command, option)
        for command in ("setup", "run", "test", "interop", "check", "lock")
        for option in ("-h", "--help")
    ],
)
def test_help_starts_nothing(checkout: Checkout, arguments: tuple[str, ...]) -> None:
    done = checkout.dev(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("./dev setup ")


@pytest.mark.parametrize("command", ["setup", "check", "interop"])
def test_superfluous_arguments_are_refused(checkout: Checkout, command: str) -> None:
    done = checkout.dev(command, "now")
    assert done.returncode == 1
    assert "takes no arguments" in done.stderr


def test_empty_path_does_not_matter(checkout: Checkout) -> None:
    """Nothing on it would be found, dirname neither: the folder would stay the caller's."""
    done = checkout.dev("help", PATH="")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("./dev setup ")


@pytest.mark.parametrize("command", ["setup", "run", "check", "test"])
def test_other_distributions_are_refused_at_once(checkout: Checkout, command: str) -> None:
    (checkout.tools / "dpkg-query").unlink()
    done = checkout.dev(command)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "not Debian" in line
    assert "slirp4netns" in line


def test_service_user_of_an_ordinary_user_has_no_effect_and_that_is_said(checkout: Checkout) -> None:
    lines = checkout.dev("run", AERO_L2_USER="proxy").stderr.splitlines()
    assert [line for line in lines if "AERO_L2_USER=proxy has no effect" in line]
    for user in ("", "somebody"):
        assert "has no effect" not in checkout.dev("run", AERO_L2_USER=user).stderr


@pytest.fixture
def tested(checkout: Checkout) -> Checkout:
    """A checkout whose tests only say how they are called; the calls that match $FAILING fail."""
    skip = "while :; do case $1 in unshare | */.venv/bin/python) break ;; esac; shift; done"
    executable(checkout.tools / "sudo", f'{skip}; exec "$@"')
    executable(checkout.tools / "unshare", 'shift 2; exec "$@"')
    executable(checkout.tools / "ip", "true")
    executable(checkout.tools / "nproc", "echo 3")
    executable(
        checkout.root / ".venv/bin/python",
        'case $2 in pytest | $SHOWN) echo "$*" ;; esac; case "$*" in ${FAILING:-none}) exit 1 ;; esac',
    )
    return checkout


PICKED, ALL_FAST, ALL = ("-k", "dhcp"), "-m pytest --proxy-as=root", "-m pytest"
BESIDE = "-p no:cacheprovider --numprocesses=6 --dist=loadfile --no-loadscope-reorder"


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        ((), [f"{ALL} {BESIDE} -m not alone", f"{ALL} -p no:cacheprovider -m alone"]),
        (("--fast",), [f"{ALL_FAST} {BESIDE} -m not slow and not alone"]),
        (PICKED, [f"{ALL} -k dhcp -p no:cacheprovider"]),
        (
            ("--fast", *PICKED),
            [f"{ALL_FAST} -m not slow and not alone -k dhcp -p no:cacheprovider"],
        ),
    ],
)
def test_tests_run_side_by_side_and_what_was_picked_does_not(
    tested: Checkout, arguments: tuple[str, ...], calls: list[str]
) -> None:
    done = tested.dev("test", *arguments, AERO_L2_USER="proxy")
    assert (done.returncode, done.stdout.splitlines()) == (0, calls), done.stderr


@pytest.mark.parametrize("failing", ["*numprocesses*", "*-m?alone"])
def test_a_failure_in_either_half_of_the_tests_is_one(tested: Checkout, failing: str) -> None:
    done = tested.dev("test", AERO_L2_USER="proxy", FAILING=failing)
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 2), done.stderr


BUILD = "support.containers.build"


@pytest.mark.parametrize(
    ("arguments", "is_built"),
    [((), True), (("tests/integration/containers",), True), (("--fast",), False), (PICKED, False)],
)
def test_container_image_is_built_for_the_tests_that_run_it(
    tested: Checkout, arguments: tuple[str, ...], is_built: bool
) -> None:
    done = tested.dev("test", *arguments, AERO_L2_USER="proxy", SHOWN=BUILD)
    assert done.returncode == 0, done.stderr
    assert (f"-m {BUILD}" in done.stdout.splitlines()) == is_built


def test_no_test_is_run_without_the_container_image(tested: Checkout) -> None:
    done = tested.dev("test", AERO_L2_USER="proxy", FAILING=f"*{BUILD}*")
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "the container image could not be built" in done.stderr


def test_image_is_built_by_a_command_of_its_own(tested: Checkout) -> None:
    done = tested.dev("image", AERO_L2_USER="proxy", SHOWN=BUILD)
    assert (done.returncode, done.stdout) == (0, f"-m {BUILD}\n"), done.stderr


# A mirror on which a package is found once the lists were read; "$MIRROR" keeps what was asked of it.
APT_GET = """
case "$*" in
  *update*) : >"${APT_CONFIG:-$MIRROR/apt.conf}.read" ;;
  *download*)
    [ "$MISSING" != "${*##* }" ] || exit 100
    [ -z "$STALE" ] || [ -e "${APT_CONFIG:-$MIRROR/apt.conf}.read" ] || exit 100
    : >"./${*##* }.deb" ;;
esac
architecture=own
[ -z "$APT_CONFIG" ] || while read -r name value; do
  [ "$name" != APT::Architecture ] || architecture=$value
done <"$APT_CONFIG"
echo "$architecture ${SUDO}$*" >>"$MIRROR/asked"
"""
APT_CACHE = """
[ -n "$STALE" ] || [ -z "$APT_CONFIG" ] || [ -e "$APT_CONFIG.read" ] || exit 100
[ "$3" != linux ] || echo "Depends: linux-image-9.9-1 (= 9.9)"
"""
OWN, ARM64 = "own -qq download -o APT::Sandbox::User=root", '"arm64"; -qq download -o APT::Sandbox::User=root'
READ_ARM64 = '"arm64"; -qq update'


@dataclass
class Mirror:
    """A checkout whose tests take files from two packages, one of another architecture."""

    checkout: Checkout
    folder: Path

    def fill(self, **variables: str) -> subprocess.CompletedProcess[str]:
        """./dev test, as far as it downloads."""
        return self.checkout.dev(
            "test", "-k", "x", AERO_L2_USER="proxy", MIRROR=str(self.folder), **variables
        )

    def asked(self) -> list[str]:
        """The successful calls of apt-get since the last look."""
        log = self.folder / "asked"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def unpacked(self) -> dict[str, str]:
        """Which .deb each folder of the cache was made from, as far as there is one."""
        cache = self.checkout.root / ".cache/guests"
        return {
            path.name: (path / "made-from").read_text().strip() if (path / "made-from").exists() else "?"
            for path in cache.iterdir()
        }


@pytest.fixture
def mirror(tested: Checkout, tmp_path: Path) -> Mirror:
    (tested.root / "tests/packages-download.txt").write_text("linux  # own\nbusybox:arm64\n")
    executable(tested.tools / "apt-get", APT_GET)
    executable(tested.tools / "apt-cache", APT_CACHE)
    executable(tested.tools / "dpkg", 'echo "${2##*/}" >"$3/made-from"')
    sudo = 'while [ "$1" != unshare ] && [ "$1" != apt-get ]; do shift; done; SUDO="sudo " exec "$@"'
    executable(tested.tools / "sudo", sudo)
    folder = tmp_path / "mirror"
    folder.mkdir()
    return Mirror(tested, folder)


def test_packages_of_another_architecture_come_by_lists_of_their_own_and_once(mirror: Mirror) -> None:
    done = mirror.fill()
    assert done.returncode == 0, done.stderr
    assert mirror.asked() == [f"{OWN} linux-image-9.9-1", READ_ARM64, f"{ARM64} busybox"]
    unpacked = {"linux": "linux-image-9.9-1.deb", "busybox:arm64": "busybox.deb"}
    assert mirror.unpacked() == unpacked
    assert mirror.fill().returncode == 0
    assert (mirror.asked(), mirror.unpacked()) == ([], unpacked)


def test_lists_that_are_out_of_date_are_read_again(mirror: Mirror) -> None:
    done = mirror.fill(STALE="1")
    assert done.returncode == 0, done.stderr
    own = ["own sudo -qq update", f"{OWN} linux-image-9.9-1"]
    assert mirror.asked() == [*own, READ_ARM64, f"{ARM64} busybox"]


def test_a_package_that_does_not_come_is_named_and_tried_again_the_next_time(mirror: Mirror) -> None:
    done = mirror.fill(MISSING="busybox")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "dev: could not download and unpack busybox:arm64"
    assert "busybox:arm64" not in mirror.unpacked()
    assert mirror.fill().returncode == 0
    assert mirror.unpacked() == {"linux": "linux-image-9.9-1.deb", "busybox:arm64": "busybox.deb"}


def test_guests_are_run_for_their_table(tested: Checkout) -> None:
    executable(tested.root / ".venv/bin/python", '[ "$1" = -I ] || echo "$*"')
    done = tested.dev("guests", AERO_L2_USER="proxy")
    call = "tests/support/zoo.py --numprocesses=3 --dist=loadfile -p no:cacheprovider"
    assert (done.returncode, done.stdout.splitlines()) == (0, [call]), done.stderr


def test_bench_peer_needs_neither_root_nor_set_up(checkout: Checkout) -> None:
    """It serves, whoever starts it, before there is a .venv and without Debian's packages."""
    shutil.copytree(TREE / "bench", checkout.root / "bench")
    shutil.rmtree(checkout.root / ".venv")
    for name in ("dpkg-query", "sudo", "unshare"):
        executable(checkout.tools / name, 'echo "$0 $*" >&2; exit 1')
    peer = subprocess.Popen(
        ["/bin/sh", str(checkout.root / "dev"), "bench", "peer", "127.0.79.1"],
        env={"PATH": str(checkout.tools)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert peer.stdout is not None
    try:
        assert peer.stdout.readline() == "ready\n"
    finally:
        peer.terminate()
        _, said = peer.communicate(timeout=30)
    assert (peer.returncode, said) == (0, "")


GO = """
[ "$1" != env ] || { echo "$GO_VERSION"; exit; }
case "$*" in ${FAILING:-none}) exit 1 ;; esac
"""
CARGO = """
[ "$*" != --version ] || { echo "cargo $CARGO_VERSION (0123456 2026-01-01)"; exit; }
case "$*" in ${FAILING:-none}) exit 1 ;; esac
"""
NEW_ENOUGH = {"GO_VERSION": "go1.24.0", "CARGO_VERSION": "1.85.0", "AERO_L2_USER": "proxy"}
GVISOR, SMOLTCP = "tests/interop/test_gvisor.py", "tests/interop/test_smoltcp.py"


@pytest.fixture
def interop(tested: Checkout) -> Checkout:
    """A checkout with the two programs' declarations, and toolchains that only say their version."""
    for name in ("gvisor/go.mod", "smoltcp/Cargo.toml"):
        (tested.root / "tests/interop" / name).parent.mkdir(parents=True)
        shutil.copy(TREE / "tests/interop" / name, tested.root / "tests/interop" / name)
    executable(tested.tools / "go", GO)
    executable(tested.tools / "gofmt", 'echo "${UNFORMATTED-}"')
    executable(tested.tools / "cargo", CARGO)
    return tested


@pytest.mark.parametrize("newer", [{}, {"GO_VERSION": "go1.100", "CARGO_VERSION": "2.0.1"}])
def test_interop_runs_the_programs_that_it_built(interop: Checkout, newer: dict[str, str]) -> None:
    done = interop.dev("interop", **{**NEW_ENOUGH, **newer})
    assert (done.returncode, done.stdout) == (0, f"{ALL} {GVISOR} {SMOLTCP} -p no:cacheprovider\n"), (
        done.stderr
    )
    assert "interop:" not in done.stderr


@pytest.mark.parametrize(
    ("tool", "version", "says", "left"),
    [
        ("go", None, "go is not found: gvisor is left out (go 1.24.0 or later builds it)", SMOLTCP),
        ("go", "go1.23.9", "go 1.23.9 is too old: gvisor is left out", SMOLTCP),
        ("cargo", None, "cargo is not found: smoltcp is left out (cargo 1.85 or later builds it)", GVISOR),
        ("cargo", "1.84.1", "cargo 1.84.1 is too old: smoltcp is left out", GVISOR),
        ("cargo", "", "/cargo does not say its version: smoltcp is left out", GVISOR),
    ],
)
def test_interop_says_which_toolchain_is_missing_and_runs_the_other_program(
    interop: Checkout, tool: str, version: str | None, says: str, left: str
) -> None:
    if version is None:
        (interop.tools / tool).unlink()
    done = interop.dev("interop", **{**NEW_ENOUGH, f"{tool.upper()}_VERSION": version or ""})
    assert (done.returncode, done.stdout) == (0, f"{ALL} {left} -p no:cacheprovider\n"), done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "interop:" in line)
    assert says in line


def test_interop_without_any_toolchain_ends_with_status_77(interop: Checkout) -> None:
    (interop.tools / "cargo").unlink()
    done = interop.dev("interop", **{**NEW_ENOUGH, "GO_VERSION": "go1.19.8"})
    assert (done.returncode, done.stdout) == (77, "")
    assert len(done.stderr.splitlines()) == 3
    assert done.stderr.endswith("nothing to build with\n")


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"UNFORMATTED": "main.go"}, "gofmt"),
        ({"FAILING": "vet*"}, "go vet"),
        ({"FAILING": "build -mod*"}, "go build"),
        ({"FAILING": "fmt --check"}, "cargo fmt"),
        ({"FAILING": "clippy --quiet*"}, "cargo clippy"),
        ({"FAILING": "build --quiet*"}, "cargo build"),
    ],
)
def test_interop_runs_nothing_when_a_check_or_a_build_fails(
    interop: Checkout, wrong: dict[str, str], named: str
) -> None:
    done = interop.dev("interop", **NEW_ENOUGH, **wrong)
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.endswith(f"interop failed: {named}\n")
