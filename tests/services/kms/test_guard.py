"""An engine that is slow, hangs or fails stalls nobody else, and says so."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from itertools import groupby

import pytest

from lamassu.kernel.errors import RuleViolation, Unavailable
from lamassu.services.kms.contract import Engine, KeyAlgorithm, KeyPurpose, KeySpec
from lamassu.services.kms.model import MadeKey, PrivateKey
from lamassu.services.kms.ports import EngineDown, EngineLimits, EngineRefused
from lamassu.services.kms.usecases.guard import GuardedEngine, Operation, Outcome
from lamassu.services.kms.usecases.guard.breaker import (
    FAILURES_TO_OPEN,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Breaker,
)
from lamassu.services.kms.usecases.guard.pool import WorkerPool

P256 = KeySpec(KeyAlgorithm.ECDSA, 256)


class Wayward:
    """An engine that does as it is told: answers, fails, or hangs until it is let go."""

    def __init__(self, *, workers: int = 2, seconds: float = 0.1) -> None:
        self.limits = EngineLimits(workers, sign_seconds=seconds, generate_seconds=seconds)
        self.failure: Exception | None = None
        self.hanging = False
        self.released = threading.Event()
        self.asked = 0

    def facts(self) -> Engine:
        return Engine("wayward", "TEST", "", "", 0, False, {KeyAlgorithm.ECDSA: (256,)})

    def generate(self, spec: KeySpec, *, purpose: KeyPurpose) -> MadeKey:
        self._behave()
        return MadeKey("id", b"spki")

    def private_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        self._behave()
        return None  # type: ignore[return-value]

    def delete(self, key_id: str) -> None:
        self._behave()

    def check(self) -> None:
        self._behave()

    def close(self) -> None:
        pass

    def _behave(self) -> None:
        self.asked += 1
        if self.hanging:
            self.released.wait(20)
        if self.failure is not None:
            raise self.failure


class Notes:
    """A meter that writes everything down."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.states: list[bool] = []

    def observe(
        self, engine_id: str, operation: Operation, outcome: Outcome, seconds: float
    ) -> None:
        assert seconds >= 0
        self.seen.append((operation.value, outcome.value))

    def usable(self, engine_id: str, usable: bool) -> None:
        if self.states[-1:] != [usable]:  # it may be said again
            self.states.append(usable)


@pytest.fixture
def wayward() -> Iterator[Wayward]:
    engine = Wayward()
    yield engine
    engine.released.set()


async def use(engine: GuardedEngine) -> str:
    return await engine.use("id", lambda key: "signed", purpose=KeyPurpose.CA)


async def refusal_of(engine: GuardedEngine) -> Unavailable:
    with pytest.raises(Unavailable) as refusal:
        await use(engine)
    return refusal.value


async def test_a_hanging_engine_lets_its_caller_go_and_the_loop_run(wayward: Wayward) -> None:
    engine = GuardedEngine(wayward)
    wayward.hanging = True
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    started = time.monotonic()
    refusal = await refusal_of(engine)
    ticking.cancel()

    assert (refusal.code, refusal.retry_after) == ("engine_timeout", 5)
    assert time.monotonic() - started < 1
    assert ticks > 5


async def test_an_engine_that_hangs_on_every_thread_is_asked_again_when_it_answers(
    wayward: Wayward,
) -> None:
    engine = GuardedEngine(wayward)
    wayward.hanging = True
    await asyncio.gather(*(refusal_of(engine) for _ in range(4)))
    wayward.hanging = False

    assert await use(engine) == "signed"


async def test_one_engine_that_hangs_leaves_another_alone(wayward: Wayward) -> None:
    well = GuardedEngine(Wayward())
    engine = GuardedEngine(wayward)
    wayward.hanging = True
    stuck = [asyncio.create_task(refusal_of(engine)) for _ in range(50)]
    await asyncio.sleep(0)

    assert await asyncio.wait_for(use(well), 0.09) == "signed"
    await asyncio.gather(*stuck)


async def test_after_failures_in_a_row_it_is_not_asked_and_says_when_to_return(
    wayward: Wayward,
) -> None:
    notes = Notes()
    engine = GuardedEngine(wayward, notes)
    wayward.failure = EngineDown("the token was pulled out; put it back", code="token_missing")
    for _ in range(FAILURES_TO_OPEN):
        await refusal_of(engine)
    asked = wayward.asked

    refusal = await refusal_of(engine)

    assert wayward.asked == asked
    assert isinstance(refusal, EngineDown)
    assert refusal.code == "token_missing"
    assert "put it back" in refusal.text
    assert refusal.retry_after is not None
    assert refusal.retry_after >= 1
    assert notes.states == [False]
    assert notes.seen[-1] == ("sign", "refused")


async def test_a_check_finds_that_it_is_back_before_the_pause_ends(wayward: Wayward) -> None:
    notes = Notes()
    engine = GuardedEngine(wayward, notes)
    wayward.failure = EngineRefused("wrong PIN")
    for _ in range(FAILURES_TO_OPEN):
        await refusal_of(engine)
    with pytest.raises(EngineRefused):
        await engine.check()
    wayward.failure = None

    await engine.check()

    assert await use(engine) == "signed"
    # each check says what it found, so that a gauge is right from the first one on
    assert [state for state, _ in groupby(notes.states)] == [False, True]


async def test_a_lost_key_or_a_refused_request_is_no_failure_of_the_engine(
    wayward: Wayward,
) -> None:
    engine = GuardedEngine(wayward)
    wayward.failure = Unavailable("gone", code="key_lost")
    for _ in range(FAILURES_TO_OPEN * 2):
        assert (await refusal_of(engine)).code == "key_lost"
    wayward.failure = RuleViolation("no", code="unsupported_key")
    for _ in range(FAILURES_TO_OPEN * 2):
        with pytest.raises(RuleViolation):
            await engine.generate(P256, purpose=KeyPurpose.CA)
    wayward.failure = None

    assert await use(engine) == "signed"


async def test_who_wants_many_keys_neither_stops_signing_nor_makes_the_engine_look_down() -> None:
    """Generation may take long; a client that asks for much of it is no outage for others."""
    slow = Wayward(workers=2, seconds=0.1)
    slow.limits = EngineLimits(2, sign_seconds=0.1, generate_seconds=20)
    generate, released = slow.generate, threading.Event()

    def slowly(spec: KeySpec, *, purpose: KeyPurpose) -> MadeKey:
        released.wait(10)
        return generate(spec, purpose=purpose)

    slow.generate = slowly  # type: ignore[method-assign]
    notes = Notes()
    engine = GuardedEngine(slow, notes)
    asked = [
        asyncio.create_task(engine.generate(P256, purpose=KeyPurpose.GENERAL)) for _ in range(8)
    ]
    await asyncio.sleep(0.02)

    signed = [await use(engine) for _ in range(FAILURES_TO_OPEN + 1)]
    released.set()

    assert set(signed) == {"signed"}
    assert len(await asyncio.gather(*asked)) == 8
    assert False not in notes.states


async def test_a_queue_behind_work_that_has_its_time_is_busy_and_not_down() -> None:
    one = Wayward(workers=1)
    one.limits = EngineLimits(1, sign_seconds=0.05, generate_seconds=20)
    one.hanging = True  # the one generation, which may take 20 s
    notes = Notes()
    engine = GuardedEngine(one, notes)
    generating = asyncio.create_task(engine.generate(P256, purpose=KeyPurpose.GENERAL))
    await asyncio.sleep(0.02)

    refusals = [await refusal_of(engine) for _ in range(FAILURES_TO_OPEN + 1)]
    one.hanging = False
    one.released.set()

    assert {refusal.code for refusal in refusals} == {"engine_busy"}
    assert (await generating).key_id == "id"
    assert await use(engine) == "signed"
    assert False not in notes.states


async def test_what_an_engine_cannot_is_a_rule_and_not_an_outage(wayward: Wayward) -> None:
    engine = GuardedEngine(wayward)

    with pytest.raises(RuleViolation) as out:
        await engine.take_out("id", purpose=KeyPurpose.CA)
    with pytest.raises(RuleViolation) as taken:
        await engine.take_in(None, purpose=KeyPurpose.CA)  # type: ignore[arg-type]

    assert (out.value.code, taken.value.code) == ("key_not_exportable", "key_not_importable")
    assert wayward.asked == 0


async def test_closing_does_not_wait_for_what_hangs(wayward: Wayward) -> None:
    pool = WorkerPool("hung", workers=1)
    pool.submit(lambda: wayward.released.wait(20))
    waiting = pool.submit(lambda: None)
    started = time.monotonic()

    await asyncio.to_thread(pool.close, 0.1)

    assert time.monotonic() - started < 2
    refusal = waiting.exception()
    assert isinstance(refusal, Unavailable)
    assert refusal.code == "engine_closed"


async def test_threads_started_in_place_of_stuck_ones_are_bounded() -> None:
    release = threading.Event()
    pool = WorkerPool("stuck", workers=1)
    before = threading.active_count()
    for _ in range(50):
        pool.submit(lambda: release.wait(20))
        pool.replace_stuck()

    assert threading.active_count() - before <= 5
    release.set()
    pool.close(0.1)


async def test_a_pool_works_for_as_many_as_it_has_threads() -> None:
    pool = WorkerPool("two", workers=2)
    meeting = threading.Barrier(2)

    first, second = pool.run(lambda: meeting.wait(5)), pool.run(lambda: meeting.wait(5))

    assert sorted(await asyncio.gather(first, second)) == [0, 1]
    assert await asyncio.gather(*(pool.run(lambda n=n: n * n) for n in range(50))) == [
        n * n for n in range(50)
    ]
    pool.close()


class Time:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_each_failed_try_doubles_the_pause_up_to_a_bound_and_success_ends_it() -> None:
    now = Time()
    breaker = Breaker("hsm", now)
    down = EngineDown("away")
    for _ in range(FAILURES_TO_OPEN):
        breaker.check()
        breaker.failed(down)
    pauses = []
    for _ in range(8):
        with pytest.raises(EngineDown) as refusal:
            breaker.check()
        assert refusal.value.retry_after is not None
        pauses.append(refusal.value.retry_after)
        now.seconds += refusal.value.retry_after
        breaker.check()  # one is let through
        with pytest.raises(EngineDown):
            breaker.check()  # and one only
        breaker.failed(down)

    assert pauses[:3] == [FIRST_PAUSE, FIRST_PAUSE * 2, FIRST_PAUSE * 4]
    assert max(pauses) == LONGEST_PAUSE
    breaker.succeeded()
    breaker.check()
    assert not breaker.open
