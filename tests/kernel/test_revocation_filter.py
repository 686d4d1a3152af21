"""Revocation filters: exact for whatever they cover, small, and refused when damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.revocation_filter import (
    FilterFacts,
    RevocationFilter,
    Standing,
    Verdict,
    build_delta,
    build_full,
    judge,
    parse_filter,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
FACTS = FilterFacts(
    issuer=hashlib.sha256(b"a key").digest(),
    number=7,
    this_update=NOW,
    next_update=NOW + timedelta(days=1),
    covered_until=NOW,
    log_size=1_000_000,
)
LATER = replace(FACTS, number=8, covered_until=NOW + timedelta(hours=6))
BEFORE, AFTER = NOW - timedelta(days=9), NOW + timedelta(hours=1)


def salts() -> Callable[[], bytes]:
    numbers = count(1)
    return lambda: next(numbers).to_bytes(8, "big")


def certificates(number: int, revoked: int, *, seed: int, not_before: datetime) -> list[Standing]:
    random = Random(seed)
    return [
        Standing(random.getrandbits(127) + 1, not_before, index < revoked)
        for index in range(number)
    ]


def full_of(standings: Sequence[Standing], facts: FilterFacts = FACTS) -> RevocationFilter:
    return parse_filter(build_full(facts, standings, new_salt=salts()))


def wrong(standings: Sequence[Standing], full: RevocationFilter, **more: RevocationFilter) -> int:
    """How many of these certificates it is wrong about."""
    return sum(
        judge(full, one.serial_number, one.not_before, now=NOW, **more)
        is not (Verdict.REVOKED if one.revoked else Verdict.GOOD)
        for one in standings
    )


@pytest.mark.parametrize(
    ("number", "revoked"),
    [
        (0, 0),
        (1, 0),
        (1, 1),
        (50, 50),
        (1000, 0),
        (1000, 1),
        (1000, 500),
        (1000, 999),
        (20_000, 200),
    ],
)
def test_it_is_exact_for_every_share_of_revoked(number: int, revoked: int) -> None:
    standings = certificates(number, revoked, seed=number + revoked, not_before=BEFORE)
    assert wrong(standings, full_of(standings)) == 0


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, 2**159), st.tuples(st.booleans(), st.booleans()), max_size=300),
    st.sets(st.integers(0, 2**159), max_size=40),
)
def test_a_filter_and_its_delta_are_exact(
    older: dict[int, tuple[bool, bool]], newer: set[int]
) -> None:
    first = [Standing(serial, BEFORE, was) for serial, (was, _) in older.items()]
    full = full_of(first)
    now = [Standing(serial, BEFORE, is_now) for serial, (_, is_now) in older.items()]
    now += [Standing(serial, AFTER, serial % 3 == 0) for serial in newer - older.keys()]

    delta = parse_filter(build_delta(LATER, full, now, new_salt=salts()))

    assert wrong(first, full) == 0
    assert wrong(now, full, delta=delta) == 0
    assert delta.facts.base == full.facts.number


def test_a_hundred_thousand_with_one_in_a_hundred_revoked_take_a_kilobyte() -> None:
    standings = certificates(100_000, 1000, seed=3, not_before=BEFORE)
    made = build_full(FACTS, standings, new_salt=salts())
    assert wrong(standings, parse_filter(made)) == 0
    assert len(made) < 1300


def test_a_delta_is_small_beside_its_filter() -> None:
    standings = certificates(50_000, 500, seed=4, not_before=BEFORE)
    full = full_of(standings)
    changed = [replace(one, revoked=not one.revoked) for one in standings[490:510]]
    now = [*standings[:490], *changed, *standings[510:]]
    delta = build_delta(LATER, full, now, new_salt=salts())
    assert len(delta) < 320
    assert wrong(now, full, delta=parse_filter(delta)) == 0


def test_what_it_does_not_cover_it_says_nothing_of() -> None:
    full = full_of(certificates(100, 50, seed=5, not_before=BEFORE))
    newer = judge(full, 1, AFTER, now=NOW)
    expired = judge(full, 1, BEFORE, now=FACTS.next_update)
    early = judge(full, 1, BEFORE, now=FACTS.this_update - timedelta(seconds=1))
    assert {newer, expired, early} == {Verdict.NOT_COVERED}


def test_a_delta_of_another_filter_is_refused() -> None:
    standings = certificates(100, 50, seed=6, not_before=BEFORE)
    full = full_of(standings)
    others = full_of(standings, replace(FACTS, number=9))
    delta = parse_filter(build_delta(LATER, others, standings, new_salt=salts()))
    with pytest.raises(RuleViolation) as raised:
        judge(full, 1, BEFORE, now=NOW, delta=delta)
    assert raised.value.code == "filter_mismatch"


def test_what_is_signed_is_all_but_the_signature() -> None:
    made = build_full(FACTS, certificates(100, 5, seed=7, not_before=BEFORE), new_salt=salts())
    read = parse_filter(made + b"signature")
    assert (read.signed, read.signature) == (made, b"signature")
    assert read.facts == FACTS


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_one_is_malformed_or_another(data: st.DataObject) -> None:
    made = bytearray(
        build_full(FACTS, certificates(200, 20, seed=8, not_before=BEFORE), new_salt=salts())
    )
    for _ in range(data.draw(st.integers(1, 4))):
        made[data.draw(st.integers(0, len(made) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(made)))
    for content in (bytes(made), bytes(made[:cut])):
        with suppress(Malformed):
            parse_filter(content).revoked(1)
