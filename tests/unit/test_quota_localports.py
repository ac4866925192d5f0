"""Which ports the kernel gives by itself, and which are left to ask for."""

import random
from pathlib import Path

import pytest

from aero_l2.quota.localports import PATH, local_ports, other_port


@pytest.mark.parametrize("text", ["", "1\n", "9\t8\n", "-1 5\n", "1 2 3\n", "some\tports\n"])
def test_nonsense_is_no_range(text: str) -> None:
    assert local_ports(text) is None


@pytest.mark.parametrize(
    ("given", "others"),
    [
        ("32768\t60999\n", {*range(1024, 32768), *range(61000, 65536)}),
        ("1\t65000\n", {*range(65001, 65536)}),
        ("1100\t65535\n", {*range(1024, 1100)}),
        ("1\t1000\n", {*range(1024, 65536)}),
        ("", {*range(1024, 65536)}),
        ("1024\t65535\n", {None}),
    ],
)
def test_ports_to_ask_for_are_outside_and_need_no_privilege(
    tmp_path: Path, given: str, others: set[int | None]
) -> None:
    path = tmp_path / PATH
    path.parent.mkdir(parents=True)
    path.write_text(given)
    chance = random.Random(1)
    found = {other_port(chance, tmp_path) for _ in range(2000)}
    assert found <= others
    assert len(found) >= min(len(others), 70) * 0.9
