"""The command line as far as it goes before anything is started: what it refuses, shows and hands on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aero_l2.config import Sources, reference

NO_AUTH = {"AERO_L2_OPEN": "1", "AERO_L2_INSECURE_ALLOW_NO_AUTH": "1"}
CANARY = "canary-of-the-operator"
# Runs the command line and shows what the supervisor would be started with
# instead of starting it.
SHOW = """
import json, os
def show(program, command, environment):
    for descriptor in (0, 1, 2):
        os.fstat(descriptor)
        assert os.get_inheritable(descriptor)
    settings = int(command[command.index("--settings-fd") + 1])
    assert os.get_inheritable(settings)
    sources = os.pread(settings, 1 << 20, 0).decode()
    shown = {"command": command, "environment": environment, "sources": sources}
    with open(os.environ["SHOWN"], "w") as file:
        json.dump(shown, file)
    os._exit(0)
os.execve = show
from aero_l2.cli import main
main()
"""


def run(
    shown: Path, *arguments: str, closed: str = "", environment: dict[str, str] = NO_AUTH
) -> subprocess.CompletedProcess[str]:
    # The streams are closed by a shell, so that the interpreter starts without them.
    command = [sys.executable, "-c", SHOW, *arguments]
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command],
        env={"PATH": os.environ["PATH"], "SHOWN": str(shown), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def handed_on(shown: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """What `serve` starts the supervisor with: command, environment, sources."""
    done = run(shown, "serve", *arguments, environment=NO_AUTH | environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    parts: dict[str, Any] = json.loads(shown.read_text())
    return {**parts, "sources": Sources.from_json(parts["sources"])}


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    return tmp_path / "shown"


@pytest.mark.parametrize("value", ["", "  ", "8090", "example.org:80"])
def test_bind_that_is_no_address_ends_with_status_2_and_one_line(shown: Path, value: str) -> None:
    done = run(shown, "serve", "--bind", value)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"aero-l2: --bind={value.strip()!r} ")
    assert not shown.exists()


def test_bind_wins_over_the_environment(shown: Path) -> None:
    got = handed_on(shown, "--bind", "127.0.0.1:1", AERO_L2_PROXY_LISTEN_ADDR="127.0.0.1:2")
    assert got["sources"].command_line == {"AERO_L2_PROXY_LISTEN_ADDR": "127.0.0.1:1"}


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_do_not_matter(shown: Path, closed: str) -> None:
    done = run(shown, "serve", "--bind", "127.0.0.1:1", closed=closed)
    assert (done.returncode, done.stderr) == (0, "")
    assert shown.exists()


def test_closed_standard_error_still_ends_with_status_2(shown: Path) -> None:
    done = run(shown, "serve", "--bind", "", closed="2>&-")
    assert (done.returncode, done.stdout) == (2, "")


def test_settings_go_by_file_and_not_by_environment_or_command_line(shown: Path) -> None:
    secrets = {"AERO_L2_API_KEY": CANARY, "SESSION_SECRET": CANARY, "AERO_GATEWAY_SESSION_SECRET": CANARY}
    others = {"AERO_L2_USER": "guests", "AERO_OTHER": CANARY, "AWS_SECRET_ACCESS_KEY": CANARY, "VERSION": "1"}
    of_systemd = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "LISTEN_PID": "1"}
    of_systemd |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"}
    passed_on = {"LC_TIME": "C", "TZ": "UTC", "NO_COLOR": "1", **of_systemd}
    got = handed_on(shown, "--ready-stdout", **secrets, **others, **passed_on)
    environment = {name: got["environment"][name] for name in got["environment"] if name != "LC_CTYPE"}
    assert environment == {"PATH": os.environ["PATH"], **passed_on}  # LC_CTYPE is the interpreter's own
    assert CANARY not in " ".join(got["command"])
    assert got["command"][got["command"].index("--user") + 1] == "guests"
    assert got["command"][-2:] == ["aero_l2.app", "--ready-stdout"]
    assert got["sources"].environment == {**NO_AUTH, **secrets, "AERO_L2_USER": "guests", "VERSION": "1"}


def test_config_file_is_read_and_handed_on(shown: Path, tmp_path: Path) -> None:
    config = tmp_path / "aero-l2.toml"
    config.write_text('user = "guests"\napi_key_file = "key"\nlog_level = "debug"\nauth_mode = "token"')
    (tmp_path / "key").write_text(CANARY)
    got = handed_on(shown, "--config", str(config))
    sources = got["sources"]
    assert got["command"][got["command"].index("--user") + 1] == "guests"
    assert (sources.config_path, sources.config["AERO_L2_LOG_LEVEL"]) == (
        str(config),
        "debug",
    )
    assert sources.files == {str(tmp_path / "key"): CANARY}


def test_config_file_that_is_not_there_ends_with_status_2_and_one_line(shown: Path, tmp_path: Path) -> None:
    done = run(shown, "serve", "--config", str(tmp_path / "none.toml"))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"aero-l2: --config='{tmp_path}/none.toml' cannot be read: No such file or directory"
    )


def test_faults_are_a_line_each_and_status_2(shown: Path) -> None:
    for check in ([], ["--check"]):
        done = run(
            shown,
            *("serve", "--bind", "nowhere", *check),
            environment={"AERO_L2_LOG_LEVEL": "loud", "AERO_L2_API_KEY": CANARY, "AERO_L2_AUTH_MODE": "jwt"},
        )
        assert (done.returncode, done.stdout) == (2, "")
        names = [line.split("=")[0] for line in done.stderr.splitlines()]
        assert names == [f"aero-l2: {name}" for name in ("--bind", "AERO_L2_LOG_LEVEL", "AERO_L2_AUTH_MODE")]
        assert CANARY not in done.stderr
        assert not shown.exists()


def test_check_shows_settings_with_secrets_masked_and_starts_nothing(shown: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.write_text(f"{CANARY}1\n{CANARY}2\n")
    secrets = {
        "AERO_L2_API_KEY": CANARY,
        "AERO_L2_API_KEY_PREVIOUS_FILE": str(before),
        "AERO_L2_API_KYE": CANARY,
    }
    done = run(shown, "serve", "--check", "--bind", "127.0.0.1:7", environment=secrets)
    assert done.returncode == 0
    assert CANARY not in done.stdout + done.stderr
    assert "127.0.0.1:7" in done.stdout
    assert f"(set, {len(CANARY)} bytes, 2 previous)" in done.stdout
    assert done.stderr == (
        "aero-l2: warning: AERO_L2_API_KYE is not a setting, did you mean AERO_L2_API_KEY?\n"
    )
    assert not shown.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["serve", "--bnd", "x"],
            "no such option: --bnd (Possible options: --bind) (see aero-l2 serve --help)",
        ),
        (["serve", "more"], "got unexpected extra argument(s) (more) (see aero-l2 serve --help)"),
        (["serve", "--bind"], "option '--bind' requires an argument (see aero-l2 --help)"),
        (["srve"], "no such command 'srve'. Did you mean 'serve'? (see aero-l2 --help)"),
        (["token", "keys"], "no such command 'keys'. Did you mean 'key'? (see aero-l2 token --help)"),
    ],
)
def test_mistaken_usage_is_one_line_and_status_2(shown: Path, arguments: list[str], said: str) -> None:
    done = run(shown, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"aero-l2: {said}\n")


@pytest.mark.parametrize("arguments", [[], ["token"]])
def test_no_command_is_help_and_status_2(shown: Path, arguments: list[str]) -> None:
    done = run(shown, *arguments)
    assert done.returncode == 2
    assert "Usage: aero-l2" in done.stdout + done.stderr


def test_blank_path_of_the_file_is_refused(shown: Path) -> None:
    done = run(shown, "serve", "--config", "")
    assert (done.returncode, done.stderr) == (
        2,
        "aero-l2: --config='' is blank: name a TOML file, or leave it out\n",
    )


def test_check_says_what_it_does_not_look_at(shown: Path) -> None:
    text = " ".join(run(shown, "serve", "--help").stdout.replace("│", " ").split())
    assert "Whether the host has what is needed is not looked at." in text


def test_settings_prints_the_reference(shown: Path) -> None:
    assert run(shown, "settings").stdout == reference.text()
    assert run(shown, "settings", "--markdown").stdout == reference.markdown()


def test_commands_are_listed(shown: Path) -> None:
    done = run(shown, "--help")
    assert done.returncode == 0
    assert all(f" {command} " in done.stdout for command in ("serve", "settings", "token"))
