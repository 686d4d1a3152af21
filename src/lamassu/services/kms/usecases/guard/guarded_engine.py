"""An engine as the KMS uses it: off the event loop, bounded in number and time, measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lamassu.kernel.errors import LamassuError, RuleViolation, Unavailable
from lamassu.services.kms.contract import Engine, KeyPurpose, KeySpec
from lamassu.services.kms.model import FoundKey, MadeKey, PrivateKey, WrappedKey
from lamassu.services.kms.ports import (
    CryptoEngine,
    EngineDown,
    FindsKeys,
    GivesOutKeys,
    ListsKeys,
    SignsInline,
    TakesInKeys,
    WrapsKeys,
)
from lamassu.services.kms.usecases.guard.breaker import Breaker
from lamassu.services.kms.usecases.guard.meter import EngineMeter, Operation, Outcome, Unmetered
from lamassu.services.kms.usecases.guard.pool import WorkerPool

T = TypeVar("T")

RETRY_SECONDS = 5  # when to ask again, where the adapter does not know better
CHECK_SECONDS = 3.5  # below the patience of who asks for readiness


class GuardedEngine:
    """A `CryptoEngine` in threads of its own, behind a time limit and a circuit breaker.

    Whatever it is asked raises `Unavailable` with `retry_after` when the engine cannot do it
    now: `engine_timeout`, `engine_busy`, or the adapter's own code (`EngineDown`).
    """

    def __init__(self, engine: CryptoEngine, meter: EngineMeter | None = None) -> None:
        self._engine = engine
        self._id = engine.facts().id
        self._limits = engine.limits
        self._pool = WorkerPool(self._id, workers=engine.limits.workers)
        self._breaker = Breaker(self._id, time.monotonic)
        self._meter = meter or Unmetered()
        # when each call that runs now should have ended, however long others may wait for it
        self._running: dict[object, float] = {}
        # whoever wants many keys leaves a thread to those who sign
        self._generating = asyncio.Semaphore(max(1, engine.limits.workers - 1))
        self._inline = engine.inline_key if isinstance(engine, SignsInline) else None

    @property
    def id(self) -> str:
        """The configured one."""
        return self._id

    @property
    def lists_keys(self) -> bool:
        """Whether its keys can be enumerated."""
        return isinstance(self._engine, ListsKeys)

    @property
    def takes_in_keys(self) -> bool:
        """Whether a key made elsewhere can be kept in it."""
        return isinstance(self._engine, TakesInKeys)

    @property
    def gives_out_keys(self) -> bool:
        """Whether it can give a private key away."""
        return isinstance(self._engine, GivesOutKeys)

    @property
    def wraps_keys(self) -> bool:
        """Whether its keys can be backed up to another engine, wrapped."""
        return isinstance(self._engine, WrapsKeys)

    def facts(self) -> Engine:
        """What it is and can make, without asking it."""
        return self._engine.facts()

    async def generate(self, spec: KeySpec, *, purpose: KeyPurpose) -> MadeKey:
        """Make and keep a key; durable when this returns.

        A key whose maker was not waited for may come to be all the same, as an orphan.
        """
        return await self._run(
            Operation.GENERATE, lambda: self._engine.generate(spec, purpose=purpose)
        )

    async def use(self, key_id: str, build: Callable[[PrivateKey], T], *, purpose: KeyPurpose) -> T:
        """Run `build`, which only signs, with the key or its stand-in."""
        if self._inline is not None:
            key = self._inline(key_id, purpose=purpose)
            if key is not None:
                started = time.perf_counter()
                made = build(key)
                self._observe(Operation.SIGN, Outcome.DONE, started)
                return made
        return await self._run(
            Operation.SIGN, lambda: build(self._engine.private_key(key_id, purpose=purpose))
        )

    async def public_key(self, key_id: str, *, purpose: KeyPurpose) -> bytes:
        """The SubjectPublicKeyInfo (DER), read from where the private key lives."""
        return await self._run(
            Operation.PUBLIC_KEY,
            lambda: (
                self._engine.private_key(key_id, purpose=purpose)
                .public_key()
                .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            ),
        )

    async def take_in(self, key: PrivateKey, *, purpose: KeyPurpose) -> MadeKey:
        """Keep a key made elsewhere. Raises `RuleViolation` (`key_not_importable`)."""
        engine = self._engine
        if not isinstance(engine, TakesInKeys):
            raise RuleViolation(
                f"engine {self._id} takes no keys made elsewhere; make a new key in it",
                code="key_not_importable",
                field="engine_id",
            )
        return await self._run(Operation.IMPORT, lambda: engine.take_in(key, purpose=purpose))

    async def take_out(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        """The private key itself. Raises `RuleViolation` (`key_not_exportable`)."""
        engine = self._engine
        if not isinstance(engine, GivesOutKeys):
            raise RuleViolation(f"engine {self._id} gives no keys out", code="key_not_exportable")
        return await self._run(Operation.EXPORT, lambda: engine.take_out(key_id, purpose=purpose))

    async def wrap(self, key_id: str, *, purpose: KeyPurpose) -> WrappedKey:
        """The key, encrypted for another engine. Raises as `WrapsKeys.wrap`."""
        engine = self._wrapping()
        return await self._run(Operation.EXPORT, lambda: engine.wrap(key_id, purpose=purpose))

    async def unwrap(self, wrapped: WrappedKey, *, purpose: KeyPurpose) -> MadeKey:
        """Keep a wrapped key. Raises as `WrapsKeys.unwrap`."""
        engine = self._wrapping()
        return await self._run(Operation.IMPORT, lambda: engine.unwrap(wrapped, purpose=purpose))

    async def keep_wrapping_key(
        self, components: Sequence[bytes], *, security_officer_pin: bytes
    ) -> str:
        """See `WrapsKeys`."""
        engine = self._wrapping()
        return await self._run(
            Operation.IMPORT,
            lambda: engine.keep_wrapping_key(components, security_officer_pin=security_officer_pin),
        )

    async def keep_unwrapping_key(self, components: Sequence[bytes]) -> str:
        """See `WrapsKeys`."""
        engine = self._wrapping()
        return await self._run(Operation.IMPORT, lambda: engine.keep_unwrapping_key(components))

    def _wrapping(self) -> WrapsKeys:
        if not isinstance(self._engine, WrapsKeys):
            raise RuleViolation(f"engine {self._id} wraps no keys", code="key_backup_unsupported")
        return self._engine

    async def delete(self, key_id: str) -> None:
        """Destroy a key; one that is not there is fine."""
        await self._run(Operation.DELETE, lambda: self._engine.delete(key_id))

    async def key_ids(self, *, made_before: datetime) -> Sequence[str]:
        """Keys that it holds since before an instant; none if it cannot list them."""
        engine = self._engine
        if not isinstance(engine, ListsKeys):
            return ()
        return await self._run(Operation.LIST, lambda: engine.key_ids(made_before=made_before))

    async def set_aside(self, key_id: str) -> None:
        """Take a listed key out of use without destroying it."""
        engine = self._engine
        if isinstance(engine, ListsKeys):
            await self._run(Operation.LIST, lambda: engine.set_aside(key_id))

    async def unclaimed_keys(self) -> list[FoundKey]:
        """Keys of an earlier installation that wait for adoption; none if it finds none."""
        engine = self._engine
        if not isinstance(engine, FindsKeys):
            return []
        return list(await self._run(Operation.LIST, engine.unclaimed_keys))

    async def claim(self, key_id: str, *, purpose: KeyPurpose) -> None:
        """Give an unclaimed key its purpose, for good."""
        engine = self._engine
        if isinstance(engine, FindsKeys):
            await self._run(Operation.IMPORT, lambda: engine.claim(key_id, purpose=purpose))

    async def check(self) -> None:
        """Ask the engine for a little work. Raises `EngineDown` that says what is wrong.

        While the breaker is open this does not wait for its pause: what it finds, it tells the
        breaker, so that an engine that came back is used at once.
        """
        try:
            await self._attempt(Operation.CHECK, self._engine.check)
        except EngineDown:
            self._meter.usable(self._id, False)
            raise
        self._meter.usable(self._id, True)

    async def close(self) -> None:
        """Let running work finish, for a few seconds, and let go of everything."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._pool.close()
        self._engine.close()

    async def _run(self, operation: Operation, work: Callable[[], T]) -> T:
        try:
            self._breaker.check()
        except EngineDown:
            self._meter.observe(self._id, operation, Outcome.REFUSED, 0.0)
            raise
        return await self._attempt(operation, work)

    async def _attempt(self, operation: Operation, work: Callable[[], T]) -> T:
        started = time.perf_counter()
        patience = self._patience(operation)
        call = _Started(work, patience, self._running)
        try:
            result = await asyncio.wait_for(self._take_turn(operation, call), patience)
        except TimeoutError:
            if not call.begun and self._at_work():
                # it works for others, within their time: that it is busy tells nothing bad of it
                self._observe(operation, Outcome.REFUSED, started)
                raise Unavailable(
                    f"crypto engine {self._id} is busy with other work; try again shortly",
                    code="engine_busy",
                    retry_after=RETRY_SECONDS,
                ) from None
            self._observe(operation, Outcome.TIMEOUT, started)
            late = EngineDown(
                f"crypto engine {self._id} did not answer in {patience:g} s",
                code="engine_timeout",
                retry_after=RETRY_SECONDS,
            )
            self._down(late)
            self._pool.replace_stuck()
            raise late from None
        except EngineDown as error:
            error.retry_after = error.retry_after or RETRY_SECONDS
            self._observe(operation, Outcome.FAILED, started)
            self._down(error)
            raise
        except Unavailable as error:
            # about one key, or about our own queue: nothing is known of the engine
            failed = error.code in ("engine_busy", "engine_closed")
            self._observe(operation, Outcome.REFUSED if failed else Outcome.FAILED, started)
            if not failed:
                self._up()
            raise
        except LamassuError:
            self._observe(operation, Outcome.FAILED, started)
            self._up()
            raise
        self._observe(operation, Outcome.DONE, started)
        self._up()
        return result

    async def _take_turn(self, operation: Operation, call: _Started[T]) -> T:
        if operation is not Operation.GENERATE:
            return await self._pool.run(call.run)
        async with self._generating:
            return await self._pool.run(call.run)

    def _at_work(self) -> bool:
        """Whether some call runs that still has time."""
        now = time.monotonic()
        return any(deadline > now for deadline in list(self._running.values()))

    def _patience(self, operation: Operation) -> float:
        if operation is Operation.GENERATE:
            return self._limits.generate_seconds
        if operation is Operation.CHECK:
            return min(CHECK_SECONDS, self._limits.sign_seconds)
        return self._limits.sign_seconds

    def _up(self) -> None:
        was_open = self._breaker.open
        self._breaker.succeeded()
        if was_open:
            self._meter.usable(self._id, True)

    def _down(self, reason: EngineDown) -> None:
        was_open = self._breaker.open
        self._breaker.failed(reason)
        if self._breaker.open and not was_open:
            self._meter.usable(self._id, False)

    def _observe(self, operation: Operation, outcome: Outcome, started: float) -> None:
        self._meter.observe(self._id, operation, outcome, time.perf_counter() - started)


class _Started(Generic[T]):
    """Work that tells whether a thread has begun with it, and until when it should be done."""

    def __init__(
        self, work: Callable[[], T], patience: float, running: dict[object, float]
    ) -> None:
        self.begun = False
        self._work = work
        self._patience = patience
        self._running = running

    def run(self) -> T:
        """Do it; a thread of the pool calls this."""
        self.begun = True
        self._running[self] = time.monotonic() + self._patience
        try:
            return self._work()
        finally:
            del self._running[self]
