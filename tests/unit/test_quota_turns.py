"""Turns: in order for each client, one of each in a round, bounded, and none is ever lost."""

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aero_l2.quota.turns import TurnLimits, Turns


def all_next(turns: Turns[str]) -> list[str]:
    """Everything that has its turn now, each finished before the next."""
    served = []
    while (thing := turns.next()) is not None:
        served.append(thing)
        turns.leave(thing)
    return served


def joined(turns: Turns[str], *things: str) -> list[str]:
    """Let them join, each of the client that its first letter names; what went for them."""
    return [goes for thing in things if (goes := turns.join(thing, thing[0])) is not None]


def test_clients_with_one_each_are_served_in_order_of_arrival() -> None:
    turns: Turns[str] = Turns(TurnLimits(1, 10))
    assert joined(turns, "c1", "a1", "b1") == []
    assert all_next(turns) == ["c1", "a1", "b1"]


def test_client_with_many_waits_for_itself() -> None:
    turns: Turns[str] = Turns(TurnLimits(1, 10))
    joined(turns, "a1", "a2", "a3", "b1", "c1", "b2")
    assert all_next(turns) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_as_many_as_may_have_their_turn() -> None:
    turns: Turns[str] = Turns(TurnLimits(2, 10))
    joined(turns, "a1", "b1", "c1")
    assert (turns.next(), turns.next(), turns.next()) == ("a1", "b1", None)
    turns.leave("b1")
    assert (turns.next(), turns.at_it, turns.waiting) == ("c1", 2, 0)


def test_one_too_many_costs_the_loudest_its_newest() -> None:
    turns: Turns[str] = Turns(TurnLimits(1, 3))
    turns.join("first", "x")
    assert turns.next() == "first"
    assert joined(turns, "a1", "a2", "a3") == []
    assert turns.is_full("a")
    assert joined(turns, "a4") == ["a4"]
    assert not turns.is_full("b")
    assert joined(turns, "b1") == ["a3"]
    assert turns.is_full("b")  # as loud as the other by then
    assert joined(turns, "b2") == ["b2"]
    turns.leave("first")
    assert all_next(turns) == ["a1", "b1", "a2"]


def test_free_turn_is_no_waiting() -> None:
    turns: Turns[str] = Turns(TurnLimits(1, 1))
    assert joined(turns, "a1") == []
    assert turns.next() == "a1"
    assert joined(turns, "a2") == []
    assert joined(turns, "a3") == ["a3"]


def test_no_limits() -> None:
    turns: Turns[str] = Turns(TurnLimits())
    assert joined(turns, *(f"a{number}" for number in range(500))) == []
    assert len([turns.next() for _ in range(500)]) == turns.at_it == 500


CLIENTS = st.sampled_from("abcd")


class TurnsMachine(RuleBasedStateMachine):
    """Against a list of what waits."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: Turns[int] = Turns(TurnLimits(2, 4))
        self.waits: list[tuple[int, str]] = []
        self.at_it: list[int] = []
        self.number = 0

    @rule(client=CLIENTS)
    def join(self, client: str) -> None:
        self.number += 1
        refused = self.turns.is_full(client)
        goes = self.turns.join(self.number, client)
        assert (goes == self.number) == refused
        if goes != self.number:
            self.waits.append((self.number, client))
        if goes not in (None, self.number):
            counts = Counter(of for _, of in self.waits)
            loudest = next(of for thing, of in self.waits if thing == goes)
            assert counts[loudest] == max(counts.values()) > counts[client]
            assert goes == max(thing for thing, of in self.waits if of == loudest)
            self.waits.remove((goes, loudest))

    @rule()
    def next(self) -> None:
        thing = self.turns.next()
        may = bool(self.waits) and len(self.at_it) < self.turns.limits.at_once
        assert (thing is not None) == may
        if thing is not None:
            client = next(of for waiting, of in self.waits if waiting == thing)
            assert thing == min(waiting for waiting, of in self.waits if of == client)
            self.waits.remove((thing, client))
            self.at_it.append(thing)

    @precondition(lambda self: self.at_it)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        thing = data.draw(st.sampled_from(self.at_it))
        self.at_it.remove(thing)
        self.turns.leave(thing)

    @precondition(lambda self: self.waits)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.waits))
        self.waits.remove(one)
        self.turns.leave(one[0])

    @rule(at_once=st.integers(1, 3), waiting=st.integers(1, 5))
    def change_limits(self, at_once: int, waiting: int) -> None:
        self.turns.limits = TurnLimits(at_once, waiting)

    @invariant()
    def counts_agree(self) -> None:
        assert (self.turns.at_it, self.turns.waiting) == (len(self.at_it), len(self.waits))


TestTurns = TurnsMachine.TestCase
