"""Starting and stopping the program as a person does: what it says and how it ends."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from support import procfs
from support.proxy import AS_USER

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = str(ROOT / ".venv/bin/aero-l2")
NO_AUTH = {"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1"}
DEADLINE_S = 30
BASE = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LANG": "C.UTF-8"}


def serve(*arguments: str, timeout_s: float = 30, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run ``aero-l2 serve`` to its end."""
    return subprocess.run(
        [PROGRAM, "serve", *arguments],
        env={**BASE, **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def started(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
    """``aero-l2 serve`` on any port of loopback, without authentication; its output is the test's to read."""
    return subprocess.Popen(
        [PROGRAM, "serve", "--bind", "127.0.0.1:0", *arguments],
        env={**BASE, **NO_AUTH},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "AERO_L2_INSECURE_ALLOW_NO_AUTH"),
        ({"AERO_L2_OPEN": "1"}, "AERO_L2_INSECURE_ALLOW_NO_AUTH"),
        ({**NO_AUTH, "AERO_L2_OPEN": "true"}, "AERO_L2_OPEN"),
        ({**NO_AUTH, "AERO_L2_AUTH_MODE": "jwt"}, "AERO_L2_JWT_SECRET"),
        ({**NO_AUTH, "AERO_L2_MAX_CONNECTIONS": "many"}, "AERO_L2_MAX_CONNECTIONS='many'"),
        ({**NO_AUTH, "AERO_L2_ALLOWED_TCP_PORTS": "http"}, "AERO_L2_ALLOWED_TCP_PORTS='http'"),
        ({**NO_AUTH, "AERO_L2_TCP_FORWARD": "10.0.2.2:80=[::1]:80"}, "AERO_L2_TCP_FORWARD"),
        ({**NO_AUTH, "AERO_L2_TCP_FORWARD": "10.0.2.2:80=127.0.0.2:80"}, "127.0.0.1"),
        ({**NO_AUTH, "AERO_L2_USER": "nobody-of-this-name"}, "AERO_L2_USER"),
        ({**NO_AUTH, "AERO_L2_USER": "root"}, "AERO_L2_USER"),
    ],
)
def test_wrong_setting_ends_with_status_2_and_one_line_that_names_it(
    environment: dict[str, str], said: str
) -> None:
    done = serve("--bind", "127.0.0.1:0", **environment)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert said in done.stderr


@pytest.mark.slow
def test_busy_port_ends_with_status_2_and_names_address_and_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve("--bind", f"127.0.0.1:{port}", **NO_AUTH)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"127.0.0.1:{port}" in line
    assert line.startswith("aero-l2: --bind: ")
    assert "choose another port" in line


@pytest.mark.slow
def test_interrupt_of_a_terminals_process_group_ends_with_status_0() -> None:
    process = started("--ready-stdout", start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("AERO_L2_PROXY_READY ws://127.0.0.1:")
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def imports(pid: int) -> bool:
    """Whether Python has loaded a library, which it has not by itself: it imports for us."""
    try:
        return "/lib-dynload/" in Path(f"/proc/{pid}/maps").read_text()
    except PermissionError:  # it is the supervisor already, which shows that to nobody
        return True


def test_nothing_is_imported_before_ctrl_c_is_ours() -> None:
    """What Python does before is its own affair."""
    program = (
        "import sys; before = {*sys.modules}; import aero_l2.cli; print(*sorted({*sys.modules} - before))"
    )
    python = ROOT / ".venv/bin/python"
    done = subprocess.run([python, "-c", program], env=BASE, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["aero_l2", "aero_l2.cli"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("after_s", [0, 0.2, 0.4, 0.6])
def test_stop_signal_during_start_up_is_not_lost_and_no_failure(number: int, after_s: float) -> None:
    """Whatever it meets, the program ends soon, by the signal or with status 0, without a traceback."""
    process = started()
    end = time.monotonic() + DEADLINE_S
    while not imports(process.pid):  # no pause: the sooner it is seen, the more there is to meet
        assert time.monotonic() < end
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(after_s)
    process.send_signal(number)
    _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode in (0, -number), errors
    assert "Traceback" not in errors
    assert "server ended" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [0.5, 0.7, 0.9])
def test_sighup_during_start_up_is_a_reload_once_it_runs(after_s: float) -> None:
    """Before Python is there it ends the program, as it would any other; never later."""
    process = started("--ready-stdout")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(after_s)
    process.send_signal(signal.SIGHUP)
    assert process.stdout is not None
    assert process.stderr is not None
    ready = process.stdout.readline()
    if ready:
        assert any("settings reloaded" in line for line in process.stderr)
        process.terminate()
    _, errors = process.communicate(timeout=20)
    assert process.returncode == (0 if ready else -signal.SIGHUP)
    assert "Traceback" not in errors


@pytest.mark.slow
def test_terminal_that_goes_takes_the_program_with_it() -> None:
    """SIGHUP from a terminal that hung up is no wish to reload."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", PROGRAM, "serve", "--bind", "127.0.0.1:0", "--ready-stdout"],
        env={**BASE, **NO_AUTH},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("AERO_L2_PROXY_READY")
    os.close(ours)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert "shutting down" in errors


def _held(pid: int) -> list[str]:
    """What the descriptors of a process lead to; nothing for one that has ended."""
    files = []
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                files.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return files


@pytest.mark.slow
def test_inherited_descriptors_reach_no_process(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the caller's")
    with secret.open() as file:
        process = subprocess.Popen(
            [PROGRAM, "serve", "--bind", "127.0.0.1:0", "--ready-stdout"],
            env={**BASE, **NO_AUTH},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=(file.fileno(),),
            text=True,
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("AERO_L2_PROXY_READY")
        ours = [process.pid, *procfs.descendants(process.pid)]
        held = {pid: _held(pid) for pid in ours}
        assert len([pid for pid, files in held.items() if files]) >= 3  # and perhaps the first trial's NAT
        assert str(secret) not in {file for files in held.values() for file in files}
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.slow
def test_starters_secrets_do_not_reach_the_processes_that_face_strangers() -> None:
    process = subprocess.Popen(
        [PROGRAM, "serve", "--bind", "127.0.0.1:0", "--ready-stdout"],
        env={**BASE, **NO_AUTH, "CLOUD_SECRET_KEY": "canary-of-the-starter"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("AERO_L2_PROXY_READY")
        ours = procfs.descendants(process.pid)
        assert len(ours) >= 2
        for pid in ours:
            with contextlib.suppress(OSError):  # the first trial's NAT process may just have ended
                assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()
    finally:
        process.terminate()
        process.communicate(timeout=20)


@pytest.mark.slow
def test_too_few_descriptors_end_with_status_2() -> None:
    done = subprocess.run(
        ["prlimit", "--nofile=200:200", PROGRAM, "serve", "--bind", "127.0.0.1:0"],
        env={**BASE, **NO_AUTH},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "200 file descriptors" in line
    assert "LimitNOFILE" in line


@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_service_user_reaches_a_checkout_in_a_closed_folder(tmp_path: Path, mode: int) -> None:
    """Closed above the checkout, and (0700) the checkout itself; its files can be read."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    tree = closed / "tree"
    tree.mkdir()
    for package in ("netns", "slirp", "aero_l2"):
        shutil.copytree(ROOT / package, tree / package)
    tree.chmod(mode)
    done = _as_service_user(tree)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "reached\n"


def test_unreadable_checkout_is_named_with_the_command_to_type(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for package in ("netns", "slirp", "aero_l2"):
        shutil.copytree(ROOT / package, tree / package)
    (tree / "netns/netd.py").chmod(0o600)
    done = _as_service_user(tree)
    assert done.returncode != 0
    assert f"chmod -R go+rX {tree}" in done.stderr


def _as_service_user(tree: Path) -> "subprocess.CompletedProcess[str]":
    """What launch does first, with the packages of ``tree``, and a look from there."""
    script = (
        f"import sys; sys.path.insert(0, {str(tree)!r})\n"
        "from netns import users\n"
        "users.become_service_user(users.find_user('aero-l2')); users.check_code_is_readable()\n"
        f"open({str(tree / 'netns/spec.py')!r}).close(); print('reached')"
    )
    return subprocess.run(
        [str(ROOT / ".venv/bin/python"), "-I", "-c", script],
        capture_output=True,
        text=True,
        env=BASE,
        check=False,
    )


def test_service_user_of_an_ordinary_users_start_is_refused() -> None:
    done = subprocess.run(
        [*AS_USER, PROGRAM, "serve", "--bind", "127.0.0.1:0"],
        env={**BASE, **NO_AUTH, "AERO_L2_USER": "daemon"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "AERO_L2_USER" in done.stderr


def test_version_is_printed() -> None:
    done = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, env=BASE, check=True)
    assert done.stdout.startswith("aero-l2 ")


def test_server_is_not_to_be_started_directly() -> None:
    python = str(ROOT / ".venv/bin/python")
    done = subprocess.run(
        [python, "-I", "-m", "aero_l2.app"],
        env={**BASE, **NO_AUTH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "aero-l2 serve" in done.stderr
