"""Settings of a process that goes on: what is read again, what stays, what may change, what is said of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from aero_l2.auth.keys import Keys
from aero_l2.auth.modes import AuthMode
from aero_l2.config import VARIABLES, Settings, Sources, gather, load, reread
from aero_l2.config.files import unreadable
from aero_l2.config.reload import Changes, changes, merge
from aero_l2.config.sources import MAX_SECRET_BYTES
from aero_l2.errors import ConfigError

SECRET = "0123456789abcdef"
NEXT = "fedcba9876543210"
RELOADABLE = {
    *("auth_mode", "session_secrets", "api_keys", "jwt_secrets", "jwt_audience", "jwt_issuer"),
    *("close_on_expiry", "insecure_allow_no_auth", "open", "allowed_origins", "allowed_hosts"),
    *("session_endpoint", "session_ttl_secs", "sessions_per_minute_per_ip"),
    *("trust_proxy", "trust_proxy_host", "trusted_proxies"),
    *("max_connections", "max_connections_per_session", "max_connections_per_ip"),
    *("upgrades_per_minute_per_ip", "raw_frames", "log_level", "drain_ms", "shutdown_grace_ms"),
    *("max_setups", "max_waiting_setups", "max_loop_lag_ms"),
    *("max_bytes_per_connection", "max_bytes_per_principal_hour", "max_frames_per_second"),
    *(
        "max_session_seconds",
        "idle_timeout_ms",
        "ping_interval_ms",
        "send_stall_timeout_ms",
        "resume_seconds",
    ),
    *("tcp_connect_timeout_ms", "max_packets_per_second", "max_packets_burst"),
}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(SECRET)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "aero-l2.toml"
    path.write_text("max_connections = 5\n")
    return path


@pytest.fixture
def sources(key: Path, config: Path) -> Sources:
    return gather({"AERO_L2_API_KEY_FILE": str(key)}, str(config))


def settings(sources: Sources) -> Settings:
    return load(sources).settings


def test_files_are_read_again(sources: Sources, key: Path, config: Path) -> None:
    key.write_text(NEXT)
    config.write_text(f'max_connections = 6\napi_key_previous = "{SECRET}"')
    again, warnings = reread(sources)
    got = settings(again)
    assert warnings == ()
    assert (got.max_connections, got.api_keys) == (6, Keys(NEXT.encode(), (SECRET.encode(),)))


def test_environment_and_command_line_stay(sources: Sources) -> None:
    sources = replace(sources, command_line={"AERO_L2_PROXY_LISTEN_ADDR": "127.0.0.1:7"})
    again, _ = reread(sources)
    assert (again.environment, again.command_line) == (sources.environment, sources.command_line)


def _remove(path: Path) -> None:
    path.unlink()


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _replace_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


UNREADABLE = [
    (_remove, "No such file or directory", "put it back, or name another one and restart"),
    (_loop, "Too many levels of symbolic links", "name a file that can be read and restart"),
    (_replace_by_folder, "Is a directory", "name a file that can be read and restart"),
    (
        _replace_by_fifo,
        "it is a FIFO, which gives its content once",
        "name a file that can be read and restart",
    ),
]


@pytest.mark.parametrize(("damage", "reason", "fix"), UNREADABLE)
def test_secret_that_cannot_be_read_any_more_stays_in_force(
    sources: Sources, key: Path, damage: Callable[[Path], None], reason: str, fix: str
) -> None:
    damage(key)
    again, warnings = reread(sources)
    assert settings(again) == settings(sources)
    assert again.kept == (str(key),)
    said = f"AERO_L2_API_KEY_FILE='{key}' cannot be read: {reason}; what it held before stays in force: {fix}"
    assert warnings == (said,)


@pytest.mark.parametrize(("damage", "reason", "fix"), UNREADABLE)
def test_file_that_cannot_be_read_any_more_stays_in_force(
    sources: Sources, config: Path, damage: Callable[[Path], None], reason: str, fix: str
) -> None:
    damage(config)
    again, warnings = reread(sources)
    assert settings(again) == settings(sources)
    assert again.kept == (str(config),)
    said = f"--config='{config}' cannot be read: {reason}; what it held before stays in force: {fix}"
    assert warnings == (said,)


def test_writer_of_a_fifo_does_not_change_a_secret(sources: Sources, key: Path) -> None:
    _replace_by_fifo(key)
    fd = os.open(key, os.O_RDWR)
    os.write(fd, NEXT.encode())
    again, _ = reread(sources)
    os.close(fd)
    assert settings(again) == settings(sources)


def test_file_that_can_be_read_again_is_not_kept_any_more(sources: Sources, key: Path) -> None:
    key.unlink()
    again, _ = reread(sources)
    key.write_text(NEXT)
    again, warnings = reread(again)
    assert (settings(again).api_keys.current, again.kept, warnings) == (NEXT.encode(), (), ())


def test_permission_that_is_missing_has_advice_of_its_own() -> None:
    """What the kernel answers to a user without permission; tests may run as root, who always has it."""
    reason = unreadable(PermissionError(errno.EACCES, "Permission denied"))
    assert str(reason) == "cannot be read: Permission denied"
    assert reason.fix == "let the user who starts the program read it"
    assert reason.fix_later == "let the user the proxy runs as read it, or restart"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"\n", "is empty: write the secret into it"),
        (b"\xff", "is not UTF-8: write text, base64 for example"),
        (b"x" * (MAX_SECRET_BYTES + 1), "is larger than 65536 bytes: shorten it, or name another file"),
    ],
)
def test_secret_that_is_faulty_refuses_the_reload(
    sources: Sources, key: Path, config: Path, content: bytes, fault: str
) -> None:
    key.write_bytes(content)
    config.write_text("max_connections = 6")
    again, warnings = reread(sources)
    with pytest.raises(ConfigError) as caught:
        load(again)
    assert (caught.value.faults, warnings) == ((f"AERO_L2_API_KEY_FILE='{key}' {fault}",), ())


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"max_connections = x", "is not TOML at line 1, column 19: invalid value: correct it"),
        (b"\xff", "is not UTF-8 at line 1: correct it"),
        (b"#" * 1_048_577, "is larger than 1048576 bytes: shorten it, or name another file"),
    ],
)
def test_file_that_is_faulty_refuses_the_reload(
    sources: Sources, key: Path, config: Path, content: bytes, fault: str
) -> None:
    config.write_bytes(content)
    key.write_text(NEXT)
    again, warnings = reread(sources)
    with pytest.raises(ConfigError) as caught:
        load(again)
    assert (caught.value.faults, warnings) == ((f"--config='{config}' {fault}",), ())


def test_faults_of_the_new_file_are_those_of_a_start(sources: Sources, config: Path) -> None:
    config.write_text('max_connections = "6"')
    again, warnings = reread(sources)
    assert warnings == ()
    with pytest.raises(ConfigError, match=r"max_connections='6' in .* is a string"):
        load(again)


def test_file_of_a_secret_that_was_never_read_is_a_fault(sources: Sources, config: Path) -> None:
    config.write_text('jwt_secret_file = "none"')
    again, _ = reread(sources)
    with pytest.raises(ConfigError, match=r"jwt_secret_file=.*No such file"):
        load(again)


def test_rotation_ends_with_an_empty_file(key: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.write_text(NEXT)
    sources = gather({"AERO_L2_API_KEY_FILE": str(key), "AERO_L2_API_KEY_PREVIOUS_FILE": str(before)})
    assert settings(sources).api_keys.previous == (NEXT.encode(),)
    before.write_text("\n")
    again, warnings = reread(sources)
    assert (settings(again).api_keys, warnings) == (Keys(SECRET.encode()), ())


def other(value: object) -> object:
    """Some other value of the same kind."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case Keys():
            return Keys(b"another", value.previous)
        case AuthMode():
            return AuthMode.JWT
        case tuple():
            return (*value, "more")
        case None:
            return "something"
    return f"{value}!"


@pytest.mark.parametrize("field", [field.name for field in fields(Settings)])
def test_field_is_taken_over_or_needs_a_restart(field: str, sources: Sources) -> None:
    old = settings(sources)
    new = replace(old, **{field: other(getattr(old, field))})
    name = next(variable.name for variable in VARIABLES if variable.field == field)
    if field in RELOADABLE:
        assert changes(old, new) == Changes(applied=(name,), needs_restart=())
        assert merge(old, new) == new
    else:
        assert changes(old, new) == Changes(applied=(), needs_restart=(name,))
        assert merge(old, new) == old


def test_nothing_changed_is_nothing_to_say(sources: Sources) -> None:
    old = settings(sources)
    assert changes(old, old) == Changes((), ())
    assert merge(old, old) == old


def test_halves_of_a_secret_are_told_apart(sources: Sources) -> None:
    old = settings(sources)
    rotated = replace(old, api_keys=Keys(b"new", (SECRET.encode(),)))
    assert changes(old, rotated).applied == ("AERO_L2_API_KEY", "AERO_L2_API_KEY_PREVIOUS")
    finished = replace(old, api_keys=Keys(b"new"))
    assert changes(rotated, finished).applied == ("AERO_L2_API_KEY_PREVIOUS",)


def test_mode_follows_the_secrets_that_choose_it(sources: Sources, config: Path) -> None:
    config.write_text(f'session_secret = "{NEXT}"')
    again, _ = reread(sources)
    old, new = settings(sources), settings(again)
    assert (old.auth_mode, new.auth_mode) == (AuthMode.TOKEN, AuthMode.SESSION_OR_TOKEN)
    assert merge(old, new).auth_rules == new.auth_rules
    assert changes(old, new).applied == (
        "AERO_L2_AUTH_MODE",
        "AERO_L2_SESSION_SECRET",
        "AERO_L2_MAX_CONNECTIONS",
    )
