"""Quotas do not depend on how messages come together: any reads give what one message a read gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from aero_l2.quota.traffic import Allowance, Exceeded
from aero_l2.session.spending import Spending
from aero_l2.wire.framing import FramingName, framing
from aero_l2.wire.receive import Aside
from aero_l2.wire.tunnel import Limits, encode

Sent = bytes | Aside
"""A binary message, or another with `before` still to be filled in."""


@dataclass
class Outcome:
    frames: list[bytes] = field(default_factory=list)
    pings: list[bytes] = field(default_factory=list)
    fault: str = ""
    exceeded: Exceeded | None = None


def outcome(reads: list[list[Sent]], max_bytes: int, max_messages: int, name: FramingName) -> Outcome:
    way = framing(name, Limits(100, 20))
    spending, seen = Spending(Allowance(max_bytes, max_messages), way), Outcome()
    for read in reads:
        messages, asides = list[bytes](), list[Aside]()
        for sent in read:
            if isinstance(sent, bytes):
                messages.append(sent)
            else:
                asides.append(sent._replace(before=len(messages)))
        inbound = spending.receive(messages, asides, way.sort(messages), 0.0)
        seen.frames += inbound.frames
        seen.pings += inbound.pings
        if inbound.fault is not None or spending.exceeded is not None:
            seen.fault, seen.exceeded = str(inbound.fault or ""), spending.exceeded
            break
    return seen


def by_hand(sent: list[Sent], max_bytes: int, max_messages: int, name: FramingName) -> Outcome:
    """The rules in their plainest form, one message after the other."""
    way, seen, used, count = framing(name, Limits(100, 20)), Outcome(), 0, 0
    for one in sent:
        alone = way.sort([one] if isinstance(one, bytes) else [])
        size = len(one) if isinstance(one, bytes) else one.size
        reply = sum(4 + len(ping) for ping in alone.pings)
        reply += one.size if isinstance(one, Aside) and one.kind == "ping" else 0
        used, count = used + size, count + 1
        if 0 < max_bytes < used:
            seen.exceeded = Exceeded.BYTES
        elif 0 < max_messages < count:
            seen.exceeded = Exceeded.RATE
        elif alone.fault is not None:
            seen.fault = str(alone.fault)
        elif 0 < max_bytes < (used := used + reply):
            seen.exceeded = Exceeded.BYTES
        else:
            seen.frames += alone.frames
            seen.pings += alone.pings
            continue
        break
    return seen


bodies = st.binary(max_size=12)
messages = st.one_of(
    st.builds(encode, st.just(0), st.binary(max_size=60)),
    st.builds(encode, st.sampled_from([1, 1, 2, 0x7F, 0x42]), bodies),
    st.builds(Aside, st.just(0), st.integers(0, 30), st.sampled_from(["text", "ping", "pong"])),
)
anything = st.lists(st.one_of(messages, messages, messages, bodies), max_size=30)
names = st.sampled_from(["aero-l2-tunnel-v1", "raw"])


@given(anything, st.lists(st.integers(0, 30)), st.integers(0, 500), st.integers(0, 20), names)
def test_any_reads_give_what_the_rules_say(
    sent: list[Sent], cuts: list[int], max_bytes: int, max_messages: int, name: FramingName
) -> None:
    places = sorted({min(cut, len(sent)) for cut in cuts} | {0, len(sent)})
    reads = [sent[a:b] for a, b in pairwise(places)]
    expected = by_hand(sent, max_bytes, max_messages, name)
    assert outcome(reads, max_bytes, max_messages, name) == expected


@given(st.lists(st.lists(st.binary(max_size=40), max_size=8), max_size=10), st.integers(1, 300), names)
def test_batches_for_the_client_pass_up_to_the_frame_that_is_too_much(
    batches: list[list[bytes]], max_bytes: int, name: FramingName
) -> None:
    way, used = framing(name, Limits(100, 20)), 0
    spending = Spending(Allowance(max_bytes), way)
    for batch in batches:
        fits = 0
        for frame in batch:
            if used + len(frame) + way.overhead > max_bytes:
                break
            used += len(frame) + way.overhead
            fits += 1
        assert spending.admit(batch, 0.0) == fits
        if fits < len(batch):
            assert spending.exceeded is Exceeded.BYTES
            return
    assert spending.exceeded is None
