"""Sources from one process to another: all of them, unchanged, unchangeable, and shown to nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aero_l2.config import Sources, gather, handover, load
from aero_l2.errors import ConfigError

CANARY = "canary-0123456789abcdef"
_TEXTS = st.text() | st.binary().map(os.fsdecode)  # as os.environ has what is not UTF-8
_MAPS = st.dictionaries(_TEXTS, _TEXTS, max_size=3)


_SOURCES = st.builds(
    Sources,
    environment=_MAPS,
    command_line=_MAPS,
    config_path=st.none() | _TEXTS,
    config=_MAPS,
    config_faults=st.lists(_TEXTS).map(tuple),
    files=_MAPS,
    unreadable=st.dictionaries(_TEXTS, st.tuples(_TEXTS, _TEXTS), max_size=3),
    hidden=st.lists(_TEXTS).map(tuple),
    kept=st.lists(_TEXTS).map(tuple),
)


@given(_SOURCES)
def test_any_sources_survive_as_text(sources: Sources) -> None:
    assert Sources.from_json(sources.to_json()) == sources
    assert sources.to_json().isascii()


def test_sources_arrive_sealed_and_the_descriptor_is_gone(tmp_path: Path) -> None:
    config = tmp_path / "aero-l2.toml"
    config.write_text(f'api_key = "{CANARY}"\nmax_conections = 1')
    sources = gather({"AERO_L2_JWT_SECRET": CANARY, "AERO_L2_UNKNOWN": CANARY}, str(config), "127.0.0.1:0")
    fd = handover.write(sources)
    assert os.get_inheritable(fd)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.lseek(fd, 5, os.SEEK_SET)
    assert handover.read(fd) == sources
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_what_was_handed_over_means_the_same(tmp_path: Path) -> None:
    config = tmp_path / "aero-l2.toml"
    config.write_text("max_connections = 7\n")
    (tmp_path / "key").write_text(CANARY)
    environment = {"AERO_L2_API_KEY_FILE": str(tmp_path / "key"), "AERO_L2_NONSENSE": "x", "PATH": "/bin"}
    sources = gather(environment, str(config), "127.0.0.1:0")
    there = load(handover.read(handover.write(sources)))
    here = load(sources)
    assert (there.settings, there.warnings) == (here.settings, here.warnings)


def test_faults_are_handed_over_too(tmp_path: Path) -> None:
    config = tmp_path / "aero-l2.toml"
    config.write_text("max_conections = 7\n")
    sources = gather({"AERO_L2_API_KEY_FILE": "/none"}, str(config))
    for judged in (sources, handover.read(handover.write(sources))):
        with pytest.raises(ConfigError) as caught:
            load(judged)
        assert len(caught.value.faults) == 2


def test_only_what_is_ours_is_gathered() -> None:
    environment = {
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": CANARY,
        "AERO_GATEWAY_OTHER": CANARY,
        "AERO_L2_CONTROL_FD": "3",
        "AERO_L2_API_KYE": CANARY,
        "SESSION_SECRET_PREVIOUS": "a",
        "VERSION": "1",
    }
    assert gather(environment).environment == {
        "AERO_L2_API_KYE": "",
        "SESSION_SECRET_PREVIOUS": "a",
        "VERSION": "1",
    }


def test_nothing_shows_in_a_repr(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(CANARY)
    sources = gather(
        {
            "AERO_L2_API_KEY_FILE": str(tmp_path / "key"),
            "AERO_L2_JWT_SECRET": CANARY,
            "SESSION_SECRET": CANARY,
        }
    )
    loaded = load(sources)
    for value in (sources, *sources.given("AERO_L2_JWT_SECRET"), loaded, loaded.settings, loaded.given):
        assert CANARY not in repr(value)
