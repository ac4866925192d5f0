"""Secrets that give a tunnel back: unguessable, for one owner, good once."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from aero_l2.door.http import HeadReader
from aero_l2.door.resume import ResumeOffer, resume_offer
from aero_l2.session.tickets import Tickets
from aero_l2.wire.framing import FramingName, framing
from aero_l2.wire.tunnel import RESUME_SECRET_BYTES, Limits


def test_secret_fits_a_subprotocol_and_has_192_random_bits() -> None:
    tickets: Tickets[int] = Tickets()
    secrets = [tickets.issue(1, "me") for _ in range(1000)]
    assert len(set(secrets)) == 1000
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", secret) for secret in secrets)
    assert RESUME_SECRET_BYTES * 6 == 192


def test_secret_is_found_by_its_owner_and_nobody_else() -> None:
    tickets: Tickets[int] = Tickets()
    secret = tickets.issue(1, "me")
    assert tickets.find(secret, "me") == 1
    assert tickets.find(secret, "you") is None
    assert tickets.find(secret, "me") == 1, "whoever tries with another's costs it nothing"


def test_secret_is_known_whoever_asks_and_nothing_else_is() -> None:
    tickets: Tickets[int] = Tickets()
    secret = tickets.issue(1, "me")
    assert tickets.knows(secret)
    assert not any(
        map(tickets.knows, ("", secret[:-1], f"{secret}a", "a" * RESUME_SECRET_BYTES, "\udcff" * 32))
    )
    tickets.revoke(1)
    assert not tickets.knows(secret)


def test_next_secret_ends_the_one_before() -> None:
    tickets: Tickets[int] = Tickets()
    first, second = tickets.issue(1, "me"), tickets.issue(1, "me")
    assert tickets.find(first, "me") is None
    assert tickets.find(second, "me") == 1
    assert len(tickets) == 1
    tickets.revoke(1)
    tickets.revoke(1)
    assert tickets.find(second, "me") is None
    assert len(tickets) == 0


@given(st.text(max_size=300))
def test_no_other_text_finds_anything(guess: str) -> None:
    tickets: Tickets[int] = Tickets()
    secret = tickets.issue(1, "me")
    assert guess == secret or tickets.find(guess, "me") is None


def test_secrets_are_not_kept() -> None:
    tickets: Tickets[int] = Tickets()
    secret = tickets.issue(1, "me")
    assert secret not in repr(vars(tickets))


def offered(*lines: str, name: FramingName = "aero-l2-tunnel-v1") -> ResumeOffer | None:
    fields = "".join(f"Sec-WebSocket-Protocol: {line}\r\n" for line in lines)
    found = HeadReader(16384).feed(f"GET /l2 HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode())
    assert found is not None
    return resume_offer(found[0], framing(name, Limits()))


def test_what_is_offered_is_read_from_the_subprotocols() -> None:
    assert offered("aero-l2-tunnel-v1") is None
    assert offered("aero-l2-tunnel-v1, aero-l2-resume") == ResumeOffer()
    assert offered("aero-l2-tunnel-v1", "aero-l2-resume.abc ,\taero-l2-resume.def") == ResumeOffer("abc")
    assert offered("aero-l2-resume, aero-l2-resume.abc") == ResumeOffer("abc")
    assert offered("aero-l2-resumeX, Aero-L2-Resume, xaero-l2-resume.abc, aero-l2-resume.") is None
    assert offered("aero-l2-resume", name="raw") is None


def test_what_is_offered_shows_no_secret() -> None:
    assert "abc" not in repr(offered("aero-l2-resume.abc"))
