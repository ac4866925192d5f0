"""Who goes when too many wait at the door."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aero_l2.quota.waiting import Waiting


def test_client_with_the_most_connections_loses_its_oldest() -> None:
    waiting: Waiting[str] = Waiting(4)
    assert [waiting.add(name, name[0]) for name in ("quiet", "a1", "a2", "a3")] == [None] * 4
    assert waiting.add("late", "l") == "a1"
    assert waiting.add("b1", "b") == "a2"
    assert "quiet" in waiting


def test_churn_of_one_client_evicts_nobody_else() -> None:
    waiting: Waiting[tuple[str, int]] = Waiting(256)
    others = [("other", n) for n in range(100)]
    for n, other in enumerate(others):
        assert waiting.add(other, f"10.0.0.{n}") is None
    evicted = {waiting.add(("churn", n), "10.9.9.9") for n in range(5000)} - {None}
    assert not evicted & set(others)
    assert len(waiting) == 256


def test_of_single_connections_the_one_that_waited_longest_goes() -> None:
    waiting: Waiting[int] = Waiting(3)
    assert [waiting.add(n, str(n)) for n in range(5)] == [None, None, None, 0, 1]


def test_connection_that_waits_already_changes_nothing() -> None:
    waiting: Waiting[str] = Waiting(1)
    assert waiting.add("a", "x") is None
    assert waiting.add("a", "x") is None
    assert list(waiting) == ["a"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 3))))
def test_decisions_agree_with_counting(steps: list[tuple[bool, int, int]]) -> None:
    waiting: Waiting[tuple[int, int]] = Waiting(5)
    model: list[tuple[int, int]] = []
    for adds, number, client in steps:
        connection = (client, number)
        if not adds:
            waiting.discard(connection)
            model = [one for one in model if one != connection]
            continue
        model += [connection] if connection not in model else []
        clients = [one[0] for one in model]
        most = max(map(clients.count, clients))
        evicted = waiting.add(connection, str(client))
        assert (evicted is not None) == (len(model) > 5)
        if evicted is not None:
            assert clients.count(evicted[0]) == most
            assert evicted == next(one for one in model if one[0] == evicted[0])
            model.remove(evicted)
        assert list(waiting) == model
