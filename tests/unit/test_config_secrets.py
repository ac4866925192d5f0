"""Secrets: which one counts, files of them, rotation, and what is refused."""

from __future__ import annotations

import os
import string
from pathlib import Path

import pytest

from aero_l2.auth.keys import Keys
from aero_l2.config import Loaded, gather, load
from aero_l2.config.names import toml_key
from aero_l2.config.secrets import MAX_PREVIOUS
from aero_l2.config.sources import MAX_SECRET_BYTES
from aero_l2.errors import ConfigError

FIRST, SECOND, THIRD = "first-secret-of-all", "second-secret-of-all", "third-secret-of-all"
NONE = {"AERO_L2_AUTH_MODE": "none"}
SESSION_NAMES = ["AERO_GATEWAY_SESSION_SECRET", "SESSION_SECRET", "AERO_L2_SESSION_SECRET"]
NAMES = [*SESSION_NAMES, "AERO_L2_API_KEY", "AERO_L2_TOKEN", "AERO_L2_JWT_SECRET"]


def keys(environment: dict[str, str], name: str) -> Keys:
    field = "session_secrets" if name in SESSION_NAMES else "jwt_secrets" if "JWT" in name else "api_keys"
    value = getattr(load(NONE | environment).settings, field)
    assert isinstance(value, Keys)
    return value


def shortness(loaded: Loaded) -> list[str]:
    return [line.split(" ")[0] for line in loaded.warnings if "shorter than 16 bytes" in line]


def only_fault(environment: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(NONE | environment)
    (fault,) = caught.value.faults
    for secret in (FIRST, SECOND, THIRD):
        assert secret not in fault
    return fault


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{FIRST}\n")
    return path


@pytest.mark.parametrize("ahead", range(3))
@pytest.mark.parametrize("from_file", [False, True])
def test_first_of_the_three_session_secrets_counts(ahead: int, from_file: bool, file: Path) -> None:
    environment = dict.fromkeys(SESSION_NAMES[ahead:], SECOND)
    if from_file:
        del environment[SESSION_NAMES[ahead]]
        environment[SESSION_NAMES[ahead] + "_FILE"] = str(file)
    else:
        environment[SESSION_NAMES[ahead]] = FIRST
    environment |= dict.fromkeys(SESSION_NAMES[:ahead], "  ")
    assert keys(environment, SESSION_NAMES[0]) == Keys(FIRST.encode())


def test_api_key_counts_before_its_other_name() -> None:
    both = {"AERO_L2_API_KEY": FIRST, "AERO_L2_TOKEN": SECOND}
    assert keys(both, "AERO_L2_API_KEY") == Keys(FIRST.encode())
    assert keys(both | {"AERO_L2_API_KEY": ""}, "AERO_L2_API_KEY") == Keys(SECOND.encode())


@pytest.mark.parametrize("name", NAMES)
def test_secret_and_its_rotation_come_from_variables_or_files(name: str, file: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.write_text(f"{SECOND}\r\n{THIRD}\r\n\n")
    expected = Keys(FIRST.encode(), (SECOND.encode(), THIRD.encode()))
    assert keys({name: f" {FIRST}\n", f"{name}_PREVIOUS": f"{SECOND}\n {THIRD} \n"}, name) == expected
    assert keys({f"{name}_FILE": str(file), f"{name}_PREVIOUS_FILE": str(before)}, name) == expected
    assert not [line for line in load(NONE | {f"{name}_FILE": str(file)}).warnings if "not a setting" in line]


def test_previous_secrets_of_every_name_verify() -> None:
    got = keys(
        {
            "SESSION_SECRET": FIRST,
            "AERO_L2_SESSION_SECRET_PREVIOUS": f"{SECOND}\n{FIRST}",
            "AERO_GATEWAY_SESSION_SECRET_PREVIOUS": f"{THIRD}\n{SECOND}",
        },
        "SESSION_SECRET",
    )
    assert got == Keys(FIRST.encode(), (THIRD.encode(), SECOND.encode()))


def test_main_secret_is_never_split() -> None:
    assert keys({"AERO_L2_API_KEY": f"{FIRST}\n{SECOND}"}, "AERO_L2_API_KEY") == Keys(
        f"{FIRST}\n{SECOND}".encode()
    )


def test_previous_secret_without_a_current_one_is_refused() -> None:
    fault = only_fault({"AERO_L2_JWT_SECRET_PREVIOUS": FIRST})
    assert fault.startswith("AERO_L2_JWT_SECRET_PREVIOUS=… stands alone, without AERO_L2_JWT_SECRET")


def test_empty_line_among_previous_secrets_is_refused(file: Path) -> None:
    lines = f"{SECOND}\n \n{THIRD}"
    fault = only_fault({"AERO_L2_API_KEY": FIRST, "AERO_L2_API_KEY_PREVIOUS": lines})
    assert fault == "AERO_L2_API_KEY_PREVIOUS=… has an empty line 2: write one secret per line"
    file.write_text(lines)
    fault = only_fault({"AERO_L2_API_KEY": FIRST, "AERO_L2_API_KEY_PREVIOUS_FILE": str(file)})
    assert fault.startswith(f"AERO_L2_API_KEY_PREVIOUS_FILE='{file}' has an empty line 2")


def test_number_of_previous_secrets_is_limited() -> None:
    many = "\n".join(f"{number:016}" for number in range(MAX_PREVIOUS + 1))
    fits = {"AERO_L2_API_KEY": FIRST, "AERO_L2_API_KEY_PREVIOUS": many[17:]}
    assert len(keys(fits, "AERO_L2_API_KEY").previous) == MAX_PREVIOUS
    fault = only_fault(fits | {"AERO_L2_API_KEY_PREVIOUS": many})
    assert fault == f"AERO_L2_API_KEY_PREVIOUS has {MAX_PREVIOUS + 1} secrets: keep to {MAX_PREVIOUS}"


@pytest.mark.parametrize("name", ["AERO_L2_API_KEY", "SESSION_SECRET", "AERO_L2_JWT_SECRET_PREVIOUS"])
def test_secret_and_file_of_it_together_are_refused(name: str, file: Path) -> None:
    current = {"AERO_L2_JWT_SECRET": SECOND} if name.endswith("PREVIOUS") else {}
    fault = only_fault(current | {name: SECOND, f"{name}_FILE": str(file)})
    assert fault == f"{name}=… is set, and {name}_FILE too: keep one of them"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"x" * (MAX_SECRET_BYTES + 1), "is larger than 65536 bytes"),
        (FIRST.encode() + b"\xff", "is not UTF-8"),
    ],
)
def test_file_that_holds_no_secret_is_refused(content: bytes, said: str, file: Path) -> None:
    file.write_bytes(content)
    fault = only_fault({"AERO_L2_API_KEY_FILE": str(file)})
    assert fault.startswith(f"AERO_L2_API_KEY_FILE='{file}' {said}: ")


def test_largest_file_is_read(file: Path) -> None:
    file.write_bytes(b"x" * (MAX_SECRET_BYTES - 1) + b"\n")
    got = keys({"AERO_L2_API_KEY_FILE": str(file)}, "AERO_L2_API_KEY").current
    assert got == b"x" * (MAX_SECRET_BYTES - 1)


def test_file_that_cannot_be_read_is_refused_by_its_path(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "none", "No such file or directory: check the path"),
        (tmp_path, "Is a directory: name a file that can be read"),
    ):
        fault = only_fault({"AERO_L2_API_KEY_FILE": str(path)})
        assert fault == f"AERO_L2_API_KEY_FILE='{path}' cannot be read: {said}"


@pytest.mark.parametrize("name", ["AERO_L2_API_KEY_FILE", "SESSION_SECRET_FILE", "AERO_L2_JWT_SECRET_FILE"])
@pytest.mark.parametrize("secret", [FIRST, FIRST * 100, f"{FIRST}/{SECOND}"])
def test_secret_given_for_its_path_is_not_shown(name: str, secret: str, tmp_path: Path) -> None:
    assert only_fault({name: secret}).startswith(f"{name}=… cannot be read: ")
    config = tmp_path / "aero-l2.toml"
    config.write_text(f'{toml_key(name)} = "{secret}"')
    with pytest.raises(ConfigError) as caught:
        load(gather(NONE, str(config)))
    (fault,) = caught.value.faults
    assert fault.startswith(f"{toml_key(name)}=… in {config} cannot be read: ")


def test_path_of_something_that_cannot_be_used_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for path in ("folder", "./none"):
        fault = only_fault({"AERO_L2_API_KEY_FILE": path})
        assert fault.startswith(f"AERO_L2_API_KEY_FILE='{(tmp_path / path).resolve()}' cannot be read: ")


def test_file_of_a_name_that_does_not_count_may_be_missing(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    environment = {"SESSION_SECRET": FIRST, "AERO_L2_SESSION_SECRET_FILE": missing}
    assert keys(environment, "SESSION_SECRET") == Keys(FIRST.encode())


def test_secret_may_come_through_a_pipe() -> None:
    reading, writing = os.pipe()
    os.write(writing, FIRST.encode())
    os.close(writing)
    got = keys({"AERO_L2_API_KEY_FILE": f"/proc/self/fd/{reading}"}, "AERO_L2_API_KEY")
    os.close(reading)
    assert got == Keys(FIRST.encode())


def test_secret_that_is_no_text_is_refused() -> None:
    fault = only_fault({"AERO_L2_API_KEY": FIRST + os.fsdecode(b"\xff")})
    assert fault == "AERO_L2_API_KEY=… is not UTF-8: write text, base64 for example"


def test_short_secrets_are_a_warning(file: Path) -> None:
    environment = NONE | {"AERO_L2_API_KEY": "fifteen bytes..", "AERO_L2_JWT_SECRET": FIRST}
    assert shortness(load(environment)) == ["AERO_L2_API_KEY"]
    assert shortness(load(environment | {"AERO_L2_API_KEY": "sixteen bytes..."})) == []
    file.write_text("short")
    rotation = {"AERO_L2_JWT_SECRET_PREVIOUS_FILE": str(file)}
    assert shortness(load(environment | rotation)) == ["AERO_L2_API_KEY", "AERO_L2_JWT_SECRET_PREVIOUS_FILE"]


def said_of(environment: dict[str, str], start: str) -> list[str]:
    """Warnings that begin with `start`."""
    warnings = load(NONE | environment).warnings
    assert not [line for line in warnings if FIRST in line or SECOND in line]
    return [line.removeprefix(start) for line in warnings if line.startswith(f"{start} ")]


def said_of_quirks(environment: dict[str, str], start: str) -> list[str]:
    return [line for line in said_of(environment, start) if "AERO_L2_AUTH_MODE is none" not in line]


@pytest.mark.parametrize(
    "key", [f"{FIRST}/", f"{FIRST}=", f"{FIRST} x", f"{FIRST}é", f'{FIRST}"', f"({FIRST}"]
)
def test_api_key_that_is_no_subprotocol_is_a_warning(key: str, file: Path) -> None:
    (line,) = said_of_quirks({"AERO_L2_API_KEY": key}, "AERO_L2_API_KEY")
    assert line.startswith(" has a character that a subprotocol cannot have")
    file.write_text(key)
    assert said_of_quirks({"AERO_L2_API_KEY_FILE": str(file)}, "AERO_L2_API_KEY_FILE") == [line]
    for other in ("AERO_L2_JWT_SECRET", "SESSION_SECRET"):
        assert said_of_quirks({other: key}, other) == []


def test_every_token_character_may_be_in_an_api_key() -> None:
    letters = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
    assert said_of_quirks({"AERO_L2_API_KEY": letters}, "AERO_L2_API_KEY") == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_end_within_a_secret_is_a_warning(name: str, end: str, file: Path) -> None:
    both = f"{FIRST}{end}{SECOND}"
    start = " holds a line end: it is one secret, not several; former ones belong into "
    assert said_of_quirks({name: both}, name) == [f"{start}{name}_PREVIOUS"]
    file.write_bytes(both.encode())
    assert said_of_quirks({f"{name}_FILE": str(file)}, f"{name}_FILE") == [f"{start}{name}_PREVIOUS_FILE"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("quote", ['"', "'"])
def test_quotes_around_a_secret_are_a_warning(name: str, quote: str) -> None:
    (line,) = said_of_quirks({name: f"{quote}{FIRST}{quote}"}, name)
    assert line.startswith(" is in quotes, which count as part of the secret")
    former = {name: SECOND, f"{name}_PREVIOUS": f"{quote}{FIRST}{quote}"}
    assert said_of_quirks(former, f"{name}_PREVIOUS") == [line]


def test_secret_that_another_one_shadows_is_a_warning(file: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    for environment, idle, counts in (
        (
            {"SESSION_SECRET": FIRST, "AERO_L2_SESSION_SECRET": SECOND},
            "AERO_L2_SESSION_SECRET",
            "SESSION_SECRET",
        ),
        ({"AERO_L2_API_KEY": FIRST, "AERO_L2_TOKEN": SECOND}, "AERO_L2_TOKEN", "AERO_L2_API_KEY"),
        (
            {"AERO_L2_API_KEY_FILE": str(file), "AERO_L2_TOKEN": SECOND},
            "AERO_L2_TOKEN",
            "AERO_L2_API_KEY_FILE",
        ),
        (
            {"AERO_L2_API_KEY": SECOND, "AERO_L2_TOKEN_FILE": str(file)},
            "AERO_L2_TOKEN_FILE",
            "AERO_L2_API_KEY",
        ),
        ({"AERO_L2_API_KEY": FIRST, "AERO_L2_TOKEN_FILE": missing}, "AERO_L2_TOKEN_FILE", "AERO_L2_API_KEY"),
    ):
        assert said_of(environment, idle) == [f" has no effect: {counts} counts first"]


def test_secret_given_twice_alike_is_none(file: Path) -> None:
    for other in ({"AERO_L2_TOKEN": f" {FIRST}"}, {"AERO_L2_TOKEN_FILE": str(file)}):
        assert said_of({"AERO_L2_API_KEY": FIRST, **other}, next(iter(other))) == []


def test_secret_of_the_environment_shadows_the_one_in_the_file(tmp_path: Path) -> None:
    config = tmp_path / "aero-l2.toml"
    config.write_text(f'api_key = "{SECOND}"\napi_key_previous = "{THIRD}"')
    environment = {"AERO_L2_API_KEY": FIRST, "AERO_L2_API_KEY_PREVIOUS": SECOND, "AERO_L2_AUTH_MODE": "token"}
    assert load(gather(environment, str(config))).warnings == (
        f"api_key in {config} has no effect: AERO_L2_API_KEY counts first",
        f"api_key_previous in {config} has no effect: AERO_L2_API_KEY_PREVIOUS counts first",
    )


def test_misspelt_name_of_a_secrets_file_is_a_warning_with_the_nearest(file: Path) -> None:
    warnings = load({"AERO_L2_API_KEY": FIRST, "AERO_L2_API_KEY_FLIE": str(file)}).warnings
    assert warnings == ("AERO_L2_API_KEY_FLIE is not a setting, did you mean AERO_L2_API_KEY_FILE?",)
