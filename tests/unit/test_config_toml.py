"""The TOML file: its keys and types, what wins over it, and that its faults say where."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.auth.modes import AuthMode
from aero_l2.config import VARIABLES, Loaded, Variable, gather, load, toml_file, unused
from aero_l2.config.names import BY_KEY, PATHS, SECRETS, toml_key
from aero_l2.errors import ConfigError

SECRET = "0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "aero-l2.toml"


def loaded(
    file: Path, text: str, environment: dict[str, str] | None = None, bind: str | None = None
) -> Loaded:
    file.write_text('auth_mode = "none"\n' + text)
    return load(gather(environment or {}, str(file), bind))


def faults(file: Path, text: str, environment: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        loaded(file, text, environment)
    return caught.value.faults


def only_fault(file: Path, text: str) -> str:
    (fault,) = faults(file, text)
    return fault


def test_every_kind_of_value(file: Path) -> None:
    got = loaded(
        file,
        """
        proxy_listen_addr = "127.0.0.1:0"
        max_connections = 7
        trust_proxy = true
        open = 1
        allowed_origins = ["https://a.example", "HTTPS://B.example/"]
        allowed_hosts = "a.example, b.example"
        trusted_proxies = ["10.0.0.0/8"]
        tcp_forward = ["10.0.2.2:80=127.0.0.1:80"]
        dns_a = []
        api_key = "0123456789abcdef"
        api_key_previous = ["fedcba9876543210", "00000000000000000"]
        """,
    ).settings
    assert got.listen == ("127.0.0.1", 0)
    assert (got.max_connections, got.trust_proxy, got.open) == (7, True, True)
    assert got.allowed_origins == ("https://a.example", "https://b.example")
    assert got.allowed_hosts == ("a.example", "b.example")
    assert [str(prefix) for prefix in got.trusted_proxies] == ["10.0.0.0/8"]
    assert (len(got.tcp_forward), got.dns_a) == (1, ())
    assert got.api_keys.verifying() == (b"0123456789abcdef", b"fedcba9876543210", b"0" * 17)


def test_every_name_has_a_key_of_its_own_or_shares_it_with_one_that_means_the_same() -> None:
    names = [
        *(name for variable in VARIABLES for name in variable.names),
        *SECRETS,
        *PATHS,
        *unused.NAMES,
    ]
    shared = {name for name in names if BY_KEY[toml_key(name)] != name}
    assert shared == {"ALLOWED_ORIGINS"} | {name for name in names if name.startswith("SESSION_SECRET")}
    assert BY_KEY["version"] == "VERSION"
    assert BY_KEY["aero_gateway_session_secret"] == "AERO_GATEWAY_SESSION_SECRET"
    assert BY_KEY["session_secret"] == "AERO_L2_SESSION_SECRET"


WRITTEN = {"number": "{}", "yes or no": "false", "exactly 1": "{}", "text": '"{}"'}


@pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.field)
def test_default_of_every_setting_can_be_written_in_its_type(variable: Variable, file: Path) -> None:
    written = WRITTEN[variable.kind].format(variable.default)
    file.write_text(f"{toml_key(variable.name)} = {written}")
    environment = {"AERO_L2_AUTH_MODE": "none"}
    if variable.field == "allowed_tcp_ports":  # else setting it changes another default
        environment["AERO_L2_DENIED_TCP_PORTS"] = "25"
    assert load(gather(environment, str(file))).settings == load(environment).settings


def test_command_line_wins_over_environment_and_that_over_the_file(file: Path) -> None:
    text = 'proxy_listen_addr = "127.0.0.1:1"\nmax_connections = 1\nlog_level = "debug"'
    environment = {"AERO_L2_PROXY_LISTEN_ADDR": "127.0.0.1:2", "AERO_L2_MAX_CONNECTIONS": "2"}
    got = loaded(file, text, environment | {"AERO_L2_LOG_LEVEL": " "}, bind="127.0.0.1:3").settings
    assert (got.listen.port, got.max_connections, got.log_level) == (3, 2, "debug")
    assert loaded(file, text, environment).settings.listen.port == 2


def test_stronger_source_wins_under_whatever_name(file: Path) -> None:
    environment = {"AERO_L2_MAX_TUNNELS_PER_SESSION": "2", "ALLOWED_ORIGINS": "https://env.example"}
    text = 'max_connections_per_session = 1\nallowed_origins = "https://file.example"'
    got = loaded(file, text, environment).settings
    assert (got.max_connections_per_session, got.allowed_origins) == (2, ("https://env.example",))


def test_secret_of_the_environment_wins_over_all_of_the_file(file: Path, tmp_path: Path) -> None:
    text = (
        f'aero_gateway_session_secret = "x"\nsession_secret_file = "{tmp_path}/none"\nauth_mode = "session"'
    )
    file.write_text(text)
    got = load(gather({"AERO_L2_SESSION_SECRET": SECRET}, str(file))).settings
    assert (got.auth_mode, got.session_secrets.current) == (AuthMode.SESSION, SECRET.encode())


def test_setting_is_called_what_whoever_gave_it_calls_it(file: Path) -> None:
    text = 'proxy_listen_addr = "127.0.0.1:1"'
    environment = {"AERO_L2_PROXY_BIND_ADDR": "127.0.0.1:2"}
    assert loaded(file, "").name_of("listen") == "AERO_L2_PROXY_LISTEN_ADDR"
    assert loaded(file, text).name_of("listen") == f"proxy_listen_addr in {file}"
    assert loaded(file, text, environment).name_of("listen") == "AERO_L2_PROXY_BIND_ADDR"
    assert loaded(file, text, environment, "127.0.0.1:3").name_of("listen") == "--bind"


def test_paths_in_the_file_are_relative_to_it(file: Path) -> None:
    (file.parent / "key").write_text(SECRET)
    got = loaded(file, 'api_key_file = "key"')
    assert got.settings.api_keys.current == SECRET.encode()


def test_faults_of_values_say_that_they_are_in_the_file(file: Path) -> None:
    got = faults(file, 'max_connections = 1000001\nlog_level = "loud"\nallowed_hosts = ["a", "b c"]')
    for fault, start in zip(
        got,
        (
            f"allowed_hosts='a,b c' in {file} has 'b c', which is no host",
            f"max_connections='1000001' in {file} is out of range: give a whole number from 0 to 1000000",
            f"log_level='loud' in {file} is not known: choose one of debug, info, warning, error",
        ),
        strict=True,
    ):
        assert fault.startswith(start)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (
            'max_connections = "64"',
            "max_connections='64' in F is a string: write a whole number, without quotes",
        ),
        (
            "max_connections = 6.4",
            "max_connections=6.4 in F is a number with a fraction: write a whole number, ",
        ),
        (
            "max_connections = true",
            "max_connections=true in F is true or false: write a whole number, without",
        ),
        (f"max_connections = 0x{'f' * 5000}", "max_connections in F is too large a number: write a whole"),
        (
            "max_connections = [64]",
            "max_connections=[64] in F is an array: write a whole number, without quotes",
        ),
        (
            "max_connections = -1",
            "max_connections='-1' in F is out of range: give a whole number from 0 to 1000000",
        ),
        (
            f"log_level = [{'1, ' * 99}]",
            f"log_level=[{('1, ' * 99)[:59]}… in F is an array: write a string in quotes",
        ),
        (f"log_level = [0x{'f' * 5000}]", "log_level in F is an array: write a string in quotes"),
        (
            "max_connections = 2026-01-01",
            "max_connections=2026-01-01 in F is a date or time: write a whole number",
        ),
        ('trust_proxy = "yes"', "trust_proxy='yes' in F is a string: write true or false, without quotes"),
        ("trust_proxy = 1", "trust_proxy=1 in F is a number: write true or false, without quotes"),
        ("open = true", "open=true in F is true or false: write 1"),
        ("log_level = 1", "log_level=1 in F is a number: write a string in quotes"),
        ('log_level = ["info"]', "log_level=['info'] in F is an array: write a string in quotes"),
        (
            "allowed_origins = 1",
            'allowed_origins=1 in F is a number: write an array of strings, for example ["a"',
        ),
        ("allowed_origins = [1]", "allowed_origins=[1] in F is an array: write an array of strings"),
        ('allowed_origins = ["a,b"]', "allowed_origins=['a,b'] in F is an array: write an array of strings"),
        ("api_key = 12345", "api_key in F is a number: write a string in quotes"),
        ('api_key = ["a"]', "api_key in F is an array: write a string in quotes"),
        ('api_key_previous = ["a\\nb"]', "api_key_previous in F is an array: write an array of strings"),
        ("api_key_file = 1", "api_key_file in F is a number: write a string in quotes"),
        ("[limits]", "limits in F is not a setting: `aero-l2 settings` lists all there are"),
        ("opne = 1", "opne in F is not a setting: `aero-l2 settings` lists all there are"),
        ("max_conections = 1", "max_conections in F is not a setting, did you mean max_connections?"),
        ("AERO_L2_MAX_CONNECTIONS = 1", "AERO_L2_MAX_CONNECTIONS in F is not a setting, did you mean max_"),
        ('"a\\nb" = 1', "'a\\nb' in F is not a setting"),
        ("log_level = {a = 1}", "log_level in F is a table: write a string in quotes"),
        ("allowed_tcp_ports = 80", "allowed_tcp_ports=80 in F is a number: write an array of strings"),
        (
            "allowed_tcp_ports = [true]",
            "allowed_tcp_ports=[True] in F is an array: write an array of strings",
        ),
        (
            "allowed_tcp_ports = [0]",
            "allowed_tcp_ports='0' in F has '0' for a port: write ports from 1 to 65535",
        ),
        ("denied_cidrs = [1]", "denied_cidrs=[1] in F is an array: write an array of strings"),
        (
            "capture_dir = 1.5",
            "capture_dir=1.5 in F is a number with a fraction: write a string in quotes",
        ),
        ('version = "a\\u0000b"', "version='a\\x00b' in F has a NUL in it: leave it out"),
    ],
)
def test_wrong_key_or_type_is_refused(line: str, fault: str, file: Path) -> None:
    assert only_fault(file, line).startswith(fault.replace(" in F ", f" in {file} "))


def test_secret_and_file_of_it_in_the_file_are_refused(file: Path) -> None:
    fault = only_fault(file, f'api_key = "{SECRET}"\napi_key_file = "key"')
    assert fault == f"api_key=… in {file} is set, and api_key_file too: keep one of them"


def test_former_name_in_the_file_warns(file: Path) -> None:
    assert loaded(file, "max_frame_size = 1600").warnings[:1] == (
        f"max_frame_size in {file} is deprecated, use max_frame_payload",
    )


def test_path_with_a_line_break_does_not_break_the_line(tmp_path: Path) -> None:
    file = tmp_path / "a\nb"
    for text in ("max_connections = true", 'log_level = "loud"', "nonsense = 1", "nonsense"):
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load(gather({"AERO_L2_AUTH_MODE": "none"}, str(file)))
        (fault,) = caught.value.faults
        assert fault.isprintable()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"max_connections = 1\nlog_level = yes\n", "is not TOML at line 2, column 13: invalid value"),
        (
            b"max_connections\n",
            "is not TOML at line 1, column 16: expected '=' after a key in a key/value pair",
        ),
        (b"a = 1\na = 2", "is not TOML at end of document: cannot overwrite a value"),
        (b'api_key = "sekrit', "is not TOML at end of document: unterminated string"),
        (b"a = {sekrit = 1, sekrit = 2}", "is not TOML at line 1, column 28: correct it"),
        (b"a = 1\n\n# \xff", "is not UTF-8 at line 3"),
        (b"a = " + b"[" * 5000, "is "),
        (b"a = " + b"9" * 5000, "is not TOML"),
        (b"#" * 1_048_577, "is larger than 1048576 bytes"),
    ],
)
def test_file_that_is_no_toml_is_refused_with_the_place(data: bytes, said: str, file: Path) -> None:
    file.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        gather({}, str(file))
    (fault,) = caught.value.faults
    assert fault.startswith(f"--config='{file}' {said}")
    assert "sekrit" not in fault
    assert len(fault) < 200 + len(str(file))


def test_file_that_cannot_be_read_is_refused(file: Path) -> None:
    for path, said in (
        (file, "No such file or directory: check the path"),
        (file.parent, "Is a directory: name a file that can be read"),
        ("a\0b", "its path is none: check the path"),
    ):
        with pytest.raises(ConfigError) as caught:
            gather({}, str(path))
        assert caught.value.faults == (f"--config={str(path)!r} cannot be read: {said}",)


@pytest.mark.parametrize("path", ["", " "])
def test_path_that_is_blank_is_refused(path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        gather({}, path)
    assert caught.value.faults == (f"--config={path!r} is blank: name a TOML file, or leave it out",)


@given(st.binary(max_size=200))
def test_any_bytes_are_settings_or_a_fault(data: bytes) -> None:
    with suppress(toml_file.NotToml):
        toml_file.parse(data, os.devnull)


_SCALARS = st.one_of(
    st.booleans(), st.integers(), st.text(st.characters(codec="ascii", categories=["L", "N"]))
)


@given(st.sampled_from(sorted(BY_KEY)), st.one_of(_SCALARS, st.lists(_SCALARS, max_size=3)))
def test_any_value_of_any_key_is_text_or_a_fault(key: str, value: object) -> None:
    written = repr(value).replace("True", "true").replace("False", "false").replace("'", '"')
    values, wrong = toml_file.parse(f"{key} = {written}".encode(), "F")
    assert (list(values) == [BY_KEY[key]]) != (len(wrong) == 1)
