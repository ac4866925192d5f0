"""What a run comes to: exit statuses, lines, JSON, Nagios, Prometheus; and no secret in any of it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from aero_l2.client import (
    ClientError,
    CredentialRefused,
    HostRefused,
    LimitReached,
    NotATunnel,
    OpenTimeout,
    OriginRefused,
    TlsFailed,
    TunnelClosed,
    TunnelLost,
    Unavailable,
    Unreachable,
)
from aero_l2.probe import monitoring
from aero_l2.probe.outcome import Kind, of_client_error
from aero_l2.probe.report import Rate, Report, Step, without
from aero_l2.wire.tunnel import ErrorMessage

PAGE = (Path(__file__).parents[2] / "docs/probe.md").read_text()


def report(kind: Kind | None = None, text: str = "fine", ms: float = 100) -> Report:
    """A run of two steps, the second of which may have failed."""
    steps = [Step("open", None, 0.01, "opened", {}), Step("tcp", "tcp://a:1", 0.02, text, {"port": 1}, kind)]
    return Report("ws://a/l2", 1000.5, steps, [Rate("http://a/", "down", 2.0, 250_000)], ms / 1000)


def test_every_kind_of_failure_has_an_exit_status_of_its_own() -> None:
    statuses = [kind.status for kind in Kind]
    assert len(set(statuses)) == len(statuses)
    assert set(statuses).isdisjoint((0, 1, 2))
    assert max(statuses) < 64
    assert len({kind.word for kind in Kind}) == len(statuses)


def test_exit_statuses_are_documented_as_they_are() -> None:
    rows = re.findall(r"^\| (\d+) \| `([\w-]+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert rows == [(str(kind.status), kind.word, kind.meaning) for kind in Kind]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Unreachable("x"), Kind.UNREACHABLE),
        (OpenTimeout("x"), Kind.UNREACHABLE),
        (TlsFailed("x"), Kind.TLS),
        (CredentialRefused(401, "x"), Kind.CREDENTIAL),
        (OriginRefused(403, "x"), Kind.ORIGIN),
        (HostRefused(403, "x"), Kind.HOST),
        (LimitReached(429, "x"), Kind.LIMIT),
        (Unavailable(503, "x"), Kind.UNAVAILABLE),
        (NotATunnel(404, "x"), Kind.NOT_A_TUNNEL),
        (TunnelClosed(1008, "x", ErrorMessage(6, "byte quota exceeded")), Kind.CLOSED),
        (TunnelLost("x"), Kind.CLOSED),
        (ClientError("x"), Kind.UNREACHABLE),
    ],
)
def test_every_error_of_the_client_has_its_kind(error: ClientError, kind: Kind) -> None:
    failure = of_client_error(error)
    assert (failure.kind, failure.reason) == (kind, str(error))
    assert json.dumps(dict(failure.facts))


def test_401_without_a_credential_names_the_options() -> None:
    failure = of_client_error(CredentialRefused.of_none("missing token", None))
    assert failure.reason.endswith("no credential was sent: AERO_L2_CLIENT_TOKEN or --token-file gives one")


def test_lines_are_aligned_and_end_with_what_it_comes_to() -> None:
    lines = list(report(Kind.REFUSED, "no").lines())
    assert lines == [
        "ws://a/l2",
        "ok      open           10.0 ms  opened",
        "FAILED  tcp            20.0 ms  no",
        "FAILED at tcp after 100 ms: refused (exit status 19)",
    ]
    assert list(report().lines())[-1] == "ok: 2 steps in 100 ms"


def test_nagios_statuses() -> None:
    good, bad = report(), report(Kind.REFUSED, "a|b")
    assert monitoring.nagios([good])[0] == 0
    assert monitoring.nagios([good], 50)[0] == 1
    assert monitoring.nagios([good, bad])[0] == 1
    status, line = monitoring.nagios([bad, bad])
    assert status == 2
    assert line.count("|") == 1
    assert line.startswith("AERO-L2 CRITICAL - 2 of 2 runs failed, tcp: a/b | total=100.0ms open=10.0ms")
    assert "throughput_down=1000000" in line


@given(st.text(max_size=30))
def test_textfile_is_readable_whatever_the_names(text: str) -> None:
    shown = report(Kind.DNS)
    shown.server = text.encode("utf-8", "replace").decode()
    families = {
        family.name: family for family in text_string_to_metric_families(monitoring.textfile(shown).decode())
    }
    assert families["aero_l2_probe_success"].samples[0].value == 0
    assert families["aero_l2_probe_exit_status"].samples[0].labels["kind"] == "dns"
    assert families["aero_l2_probe_throughput_bits_per_second"].samples[0].value == 1e6
    documented = set(re.findall(r"^(aero_l2_probe_\w+)", PAGE, re.MULTILINE))
    assert set(families) == documented


def test_textfile_is_replaced_whole_and_readable_by_all(tmp_path: Path) -> None:
    file = tmp_path / "probe.prom"
    umask = os.umask(0o077)
    try:
        for content in (b"one", b"two"):
            monitoring.write_textfile(file, content)
            assert (file.read_bytes(), file.stat().st_mode & 0o777) == (content, 0o644)
    finally:
        os.umask(umask)
    assert os.listdir(tmp_path) == ["probe.prom"]


def test_textfile_that_cannot_be_replaced_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "probe.prom").mkdir()
    with pytest.raises(OSError, match="not a regular file"):
        monitoring.write_textfile(tmp_path / "probe.prom", b"x")
    assert os.listdir(tmp_path) == ["probe.prom"]


def test_secrets_are_taken_out_also_where_they_are_cut() -> None:
    secret = "abcdefghijklmnop"
    assert without(f"x {secret} y {secret[:10]}", secret) == "x *** y ***"
    assert without("abcdefg is too little to tell", secret) == "abcdefg is too little to tell"
    assert without("anything", "") == "anything"
    assert without("a*** b", "***") == "a*** b"


@given(st.text("ab*", min_size=1, max_size=20), st.text("ab*", max_size=20), st.text("ab*", max_size=20))
def test_taking_secrets_out_always_ends(secret: str, before: str, after: str) -> None:
    without(before + secret + after, secret)
