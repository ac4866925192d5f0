"""The division of file descriptors."""

from hypothesis import given
from hypothesis import strategies as st

from aero_l2.quota.files import (
    LEAST_FILES,
    MOST_WAITING,
    OF_OUR_OWN,
    PER_CAPTURE,
    PER_REDIRECTION,
    PER_TUNNEL,
    file_budget,
)


@given(st.integers(LEAST_FILES, 2_000_000), st.integers(0, 100_000), st.booleans(), st.booleans())
def test_parts_never_exceed_the_limit(limit: int, pending: int, redirects: bool, captures: bool) -> None:
    budget = file_budget(limit, pending, redirects_dns=redirects, captures=captures)
    assert budget.tunnels >= 1
    assert 1 <= budget.waiting <= MOST_WAITING
    assert budget.dns_connections >= 32
    tunnels = budget.tunnels * (PER_TUNNEL + PER_REDIRECTION * redirects + PER_CAPTURE * captures)
    assert OF_OUR_OWN + budget.waiting + budget.dns_connections + tunnels <= limit


def test_ordinary_limit_suffices_for_a_thousand_tunnels() -> None:
    budget = file_budget(20_000, 1024)
    assert budget.tunnels >= 1000
    assert (budget.waiting, budget.dns_connections) == (MOST_WAITING, 2500)


def test_tunnels_get_what_the_others_leave() -> None:
    """The last descriptor that is free for it goes to a tunnel."""
    free = 20_000 - OF_OUR_OWN - MOST_WAITING - 2 * 1024 - 20_000 // 8
    assert file_budget(20_000, 1024).tunnels == free // PER_TUNNEL
    assert file_budget(20_000, 1024, redirects_dns=True).tunnels == free // (PER_TUNNEL + PER_REDIRECTION)
    assert file_budget(20_000, 1024, captures=True).tunnels == free // (PER_TUNNEL + PER_CAPTURE)
