"""The division of file descriptors."""

from hypothesis import given
from hypothesis import strategies as st

from aero_l2.quota.files import (
    LEAST_FILES,
    MOST_WAITING,
    OF_OUR_OWN,
    PER_REDIRECTION,
    PER_TUNNEL,
    file_budget,
)


@given(st.integers(LEAST_FILES, 2_000_000), st.integers(0, 100_000), st.integers(0, 100_000))
def test_parts_never_exceed_the_limit(limit: int, wanted: int, pending: int) -> None:
    budget = file_budget(limit, wanted, pending)
    assert budget.tunnels >= 1
    assert 1 <= budget.waiting <= MOST_WAITING
    assert OF_OUR_OWN + budget.waiting + budget.tunnels * PER_TUNNEL <= limit
    assert wanted == 0 or budget.tunnels <= wanted


def test_ordinary_limit_suffices_for_what_is_wanted() -> None:
    assert file_budget(20_000, 64, 1024).tunnels == 64
    assert file_budget(20_000, 64, 1024).waiting == MOST_WAITING


def test_no_wish_means_as_many_as_go() -> None:
    """The last descriptor that is free for it goes to a tunnel."""
    limit, waiting, dns = 20_000, MOST_WAITING, 2 * 1024
    free = limit - OF_OUR_OWN - waiting - dns
    tunnels = file_budget(limit, 0, 1024).tunnels
    assert tunnels * PER_TUNNEL <= free < (tunnels + 1) * PER_TUNNEL


def test_sockets_of_redirected_dns_are_counted() -> None:
    limit, waiting, dns = 20_000, MOST_WAITING, 2 * 1024
    free = limit - OF_OUR_OWN - waiting - dns
    assert file_budget(limit, 0, 1024, redirects_dns=True).tunnels == free // (PER_TUNNEL + PER_REDIRECTION)
