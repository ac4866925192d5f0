"""No secret shows in anything that settings say of themselves, whatever else is wrong with them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.auth.modes import ALIASES, AuthMode
from aero_l2.config import VARIABLES, Sources, gather, load, reread
from aero_l2.config.effective import lines
from aero_l2.config.names import SECRETS, toml_key
from aero_l2.config.reload import changes, merge
from aero_l2.errors import ConfigError

CANARY = "cAnArY7"
OTHERS = sorted(name for v in VARIABLES if not v.secret and v.field != "auth_mode" for name in v.names)
_MODES = st.sampled_from([*(mode.value for mode in AuthMode), *ALIASES, "nonsense", ""])
_WRAPPINGS = st.sampled_from(
    ["{}", " {}\n", "{}\n\n{}", "{}\n{}x", "x{}" * 20, "{}\udcff", "{}" * 9_500, "{}\0", "{}=1,{}"]
)
_SECRETS = st.builds(lambda wrapping: wrapping.replace("{}", CANARY), _WRAPPINGS)
_PLAIN = st.sampled_from(
    ["1", "0", "true", "x", "*", "https://a.example", "10.0.0.1/8", "a=1.2.3.4", "64", "é"]
)
_ENVIRONMENT = st.builds(
    lambda *parts: {name: value for part in parts for name, value in part.items()},
    _MODES.map(lambda mode: {"AERO_L2_AUTH_MODE": mode}),
    st.dictionaries(st.sampled_from(SECRETS), _SECRETS, max_size=4),
    st.dictionaries(st.sampled_from(OTHERS), _PLAIN, max_size=2),
)
_TOML_VALUES = st.sampled_from(
    [
        f'"{CANARY}"',
        f'["{CANARY}"]',
        f"{{{CANARY} = 1}}",
        f'"{CANARY}',
        f"'{CANARY}' {CANARY}",
        f'["{CANARY}", 1]',
    ]
)
_TOML = st.dictionaries(st.sampled_from([toml_key(name) for name in SECRETS]), _TOML_VALUES, max_size=3)
_FILES = st.dictionaries(st.sampled_from(SECRETS), _SECRETS, max_size=3)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def everything_said(environment: dict[str, str], config: str) -> Iterator[object]:
    """Faults, warnings, the lines of --check, what a reload says, and every repr."""
    try:
        sources = gather(environment, config)
        yield sources
        loaded = load(sources)
    except ConfigError as error:
        yield from (error, *error.faults)
        return
    yield from (loaded, *loaded.warnings, *lines(loaded), *loaded.given.values())
    Path(config).unlink()
    yield from said_by_a_reload(sources)


def said_by_a_reload(sources: Sources) -> Iterator[object]:
    again, warnings = reread(sources)
    yield from (again, *warnings)
    old = load(sources).settings
    changed = load(gather({"AERO_L2_AUTH_MODE": "none"})).settings
    yield from (changes(old, changed), merge(changed, old))


@given(_ENVIRONMENT, _TOML, _FILES)
def test_no_secret_shows(
    folder: Path, environment: dict[str, str], toml: dict[str, str], files: dict[str, str]
) -> None:
    for number, (name, content) in enumerate(files.items()):
        path = folder / str(number)
        path.write_bytes(os.fsencode(content))
        environment[name + "_FILE"] = str(path)
    config = folder / "aero-l2.toml"
    config.write_text("\n".join(f"{key} = {value}" for key, value in toml.items()))
    said = list(everything_said(environment, str(config)))
    assert said
    assert not [thing for thing in said if CANARY.lower() in f"{thing}\n{thing!r}".lower()]


@given(
    st.sampled_from([mode.value for mode in AuthMode]),
    st.dictionaries(st.sampled_from(SECRETS), st.sampled_from([CANARY, CANARY * 3, f"{CANARY}\n{CANARY}x"])),
)
def test_no_secret_shows_where_nothing_is_wrong(folder: Path, mode: str, secrets: dict[str, str]) -> None:
    mains = {name: CANARY for name in SECRETS if not name.endswith("_PREVIOUS")}
    config = folder / "fine.toml"
    config.write_text(f'api_key_previous = ["{CANARY}0", "{CANARY}1"]')
    said = list(everything_said({"AERO_L2_AUTH_MODE": mode, **mains, **secrets}, str(config)))
    assert len(said) > len(VARIABLES)
    assert not [thing for thing in said if CANARY.lower() in f"{thing}\n{thing!r}".lower()]


@given(_ENVIRONMENT)
def test_every_line_is_one_line(environment: dict[str, str]) -> None:
    said: list[str] = []
    try:
        loaded = load({**environment, "AERO_L2_\n": "1"})
        said += [*loaded.warnings, *lines(loaded)]
    except ConfigError as error:
        said += error.faults
    assert not [line for line in said if not line.isprintable()]
