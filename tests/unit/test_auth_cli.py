"""`aero-l2 token`: what it makes is accepted under the same settings, and its faults are one line each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from aero_l2.auth.jwt import verify_jwt
from aero_l2.auth.session_token import verify_session_token
from aero_l2.cli.program import app

SECRET = "a secret of some length"


@pytest.fixture(autouse=True)
def _only_what_a_test_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("AERO_") or name == "SESSION_SECRET":
            monkeypatch.delenv(name)


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, ["token", *arguments], env=environment)


def printed(*arguments: str, **environment: str) -> str:
    """The one line on stdout of a run that succeeds."""
    result = run(*arguments, **environment)
    assert (result.exit_code, result.stderr) == (0, "")
    (line,) = result.stdout.splitlines()
    return line


def complaint(*arguments: str, **environment: str) -> str:
    """The one line on stderr of a run that fails."""
    result = run(*arguments, **environment)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    return line.removeprefix("aero-l2: ")


@pytest.mark.parametrize("name", ["AERO_GATEWAY_SESSION_SECRET", "SESSION_SECRET", "AERO_L2_SESSION_SECRET"])
def test_session_token_is_signed_with_the_proxys_secret(name: str) -> None:
    now = time.time()
    token = printed("session", "--sid", "alice", "--ttl", "60", **{name: f" {SECRET}\n"})
    claims = verify_session_token(token, [SECRET.encode()], now)
    assert claims.sid == "alice"
    assert now + 59 <= claims.exp <= time.time() + 60


def test_first_session_secret_counts_as_for_the_proxy() -> None:
    token = printed(
        "session", SESSION_SECRET=SECRET, AERO_L2_SESSION_SECRET="x", AERO_GATEWAY_SESSION_SECRET=" "
    )
    assert verify_session_token(token, [SECRET.encode()], time.time()).sid


def test_defaults_are_an_hour_and_a_random_sid() -> None:
    tokens = [printed("session", SESSION_SECRET=SECRET) for _ in range(2)]
    found = [verify_session_token(token, [SECRET.encode()], time.time()) for token in tokens]
    assert found[0].sid != found[1].sid
    assert all(len(claims.sid) >= 20 and 3590 < claims.exp - time.time() <= 3600 for claims in found)


def test_jwt_says_what_it_is_asked_to() -> None:
    now = time.time()
    token = printed(
        "jwt", "--sid", "alice", "--ttl", "100", "--origin", "HTTPS://App.example:443/",
        "--audience", "aud", "--issuer", "iss", "--nbf", "10", AERO_L2_JWT_SECRET=SECRET,
    )  # fmt: skip
    claims = verify_jwt(token, [SECRET.encode()], now + 15, audience="aud", issuer="iss")
    assert (claims.sid, claims.origin, claims.exp - claims.iat) == ("alice", "https://app.example", 100)
    assert claims.nbf == claims.iat + 10
    assert now - 1 <= claims.iat <= time.time()


def test_jwt_has_by_default_what_the_proxy_asks_for() -> None:
    settings = {"AERO_L2_JWT_SECRET": SECRET, "AERO_L2_JWT_AUDIENCE": " aud ", "AERO_L2_JWT_ISSUER": "iss"}
    claims = verify_jwt(printed("jwt", **settings), [SECRET.encode()], time.time())
    assert (claims.aud, claims.iss, claims.origin, claims.nbf) == ("aud", "iss", None, None)
    bare = verify_jwt(printed("jwt", AERO_L2_JWT_SECRET=SECRET), [SECRET.encode()], time.time())
    assert (bare.aud, bare.iss) == (None, None)
    assert (
        verify_jwt(printed("jwt", "--audience", "x", **settings), [SECRET.encode()], time.time()).aud == "x"
    )


def test_secret_is_read_from_files(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n")
    (tmp_path / "settings.toml").write_text('jwt_secret_file = "secret"\njwt_issuer = "iss"\n')
    keys = [SECRET.encode()]
    for token in [
        printed("jwt", AERO_L2_JWT_SECRET_FILE=str(file)),
        printed("jwt", "--secret-file", str(file), AERO_L2_JWT_SECRET="x"),
        printed("jwt", "--config", str(tmp_path / "settings.toml")),
    ]:
        assert verify_jwt(token, keys, time.time()).sid
    for token in [
        printed("session", SESSION_SECRET_FILE=str(file)),
        printed("session", "--secret-file", str(file)),
    ]:
        assert verify_session_token(token, keys, time.time()).sid


def test_key_is_random_text() -> None:
    keys = [printed("key") for _ in range(2)]
    assert keys[0] != keys[1]
    assert [len(key) for key in keys] == [43, 43]
    assert len(printed("key", "--bytes", "16")) == 22


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        (["session", "--ttl", "0"], "--ttl='0' is out of range: give a whole number from 1 to "),
        (["session", "--ttl", "1h"], "--ttl='1h' is not a whole number: "),
        (["session", "--ttl", ""], "--ttl='' is not a whole number: "),
        (["session", "--sid", "s" * 13000], "--sid does not fit a token ("),
        (["session", "--sid", "\ud800"], "--sid does not fit a token ("),
        (["session", "--secret-file", "/nowhere"], "--secret-file='/nowhere' cannot be read: "),
        (["session", "--secret-file", "/dev/null"], "--secret-file='/dev/null' is empty: "),
        (["session", "--secret-file", SECRET], "--secret-file=… cannot be read: "),
        (["session", "--config", ""], "--config='' is blank: "),
        (["session", "--config", "/nowhere"], "--config='/nowhere' cannot be read: "),
        (["jwt", "--origin", "app.example"], "--origin='app.example' is no Origin (an origin begins with "),
        (["jwt", "--nbf", "3600"], "--nbf='3600' is out of range: give a whole number from 0 to 3599"),
        (
            ["jwt", "--audience", "a" * 13000],
            "--sid, --origin, --audience or --issuer does not fit a token (",
        ),
        (["key", "--bytes", "15"], "--bytes='15' is out of range: give a whole number from 16 to 1024"),
    ],
)
def test_fault_is_one_line_that_names_the_option(arguments: list[str], start: str) -> None:
    assert complaint(*arguments, SESSION_SECRET=SECRET, AERO_L2_JWT_SECRET=SECRET).startswith(start)


def test_missing_secret_is_said_with_where_to_put_it() -> None:
    line = complaint("session", SESSION_SECRET=" ", AERO_L2_JWT_SECRET=SECRET)
    for name in ("AERO_GATEWAY_SESSION_SECRET", "SESSION_SECRET", "AERO_L2_SESSION_SECRET", "_FILE"):
        assert name in line
    assert "AERO_L2_JWT_SECRET" in complaint("jwt", SESSION_SECRET=SECRET)


def test_misspelt_names_are_said(tmp_path: Path) -> None:
    result = run("session", SESSION_SECRET=SECRET, AERO_L2_SESION_SECRET="x")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
    assert result.stderr == (
        "aero-l2: warning: AERO_L2_SESION_SECRET is not a setting, did you mean AERO_L2_SESSION_SECRET?\n"
    )
    config = tmp_path / "aero-l2.toml"
    config.write_text(f'sesion_secret = "{SECRET}"')
    assert complaint("session", "--config", str(config)) == (
        f"sesion_secret in {config} is not a setting, did you mean session_secret?"
    )


def test_faulty_secret_is_refused_without_showing_it() -> None:
    line = complaint("jwt", AERO_L2_JWT_SECRET="canary", AERO_L2_JWT_SECRET_FILE="/dev/null")
    assert "AERO_L2_JWT_SECRET" in line
    assert "canary" not in line


def test_no_option_takes_a_secret() -> None:
    for command in ("session", "jwt"):
        assert run(command, "--secret", SECRET).exit_code == 2
        assert run(command, SECRET).exit_code == 2


def test_command_is_there() -> None:
    command = [sys.executable, "-c", "from aero_l2.cli import main; main()", "token", "key"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, "", 44)
