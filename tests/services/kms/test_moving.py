"""A key moves into another engine; whatever happens on the way, it can be used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import Conflict, NotFound, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.services.kms.contract import (
    Engine,
    Key,
    KeyAlgorithm,
    KeyMove,
    KeyPurpose,
    KeySpec,
    MoveStep,
)
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.model import MadeKey, PrivateKey
from lamassu.services.kms.ports import EngineDown, EngineLimits
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService

from .conftest import ALICE, P256, SECRET, Records

T = TypeVar("T")
CA = KeyPurpose.CA


class Faulty:
    """An engine that does what another does, but for the one method that is told to fail."""

    def __init__(self, inner: SoftwareEngine) -> None:
        self._inner = inner
        self.failing = ""
        self.limits: EngineLimits = inner.limits

    def facts(self) -> Engine:
        return self._inner.facts()

    def generate(self, spec: KeySpec, *, purpose: KeyPurpose) -> MadeKey:
        return self._do("generate", lambda: self._inner.generate(spec, purpose=purpose))

    def private_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        return self._do("sign", lambda: self._inner.private_key(key_id, purpose=purpose))

    def take_in(self, key: PrivateKey, *, purpose: KeyPurpose) -> MadeKey:
        return self._do("take_in", lambda: self._inner.take_in(key, purpose=purpose))

    def take_out(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        return self._do("take_out", lambda: self._inner.take_out(key_id, purpose=purpose))

    def delete(self, key_id: str) -> None:
        self._do("delete", lambda: self._inner.delete(key_id))

    def check(self) -> None:
        self._inner.check()

    def close(self) -> None:
        self._inner.close()

    def _do(self, what: str, work: Callable[[], T]) -> T:
        if self.failing == what:
            raise EngineDown("away", code="engine_unreachable")
        return work()


class Stays:
    """An engine that neither gives out nor takes in, as most HSMs."""

    limits = EngineLimits(1)

    def __init__(self, inner: SoftwareEngine) -> None:
        self.generate = inner.generate
        self.private_key = inner.private_key
        self.delete = inner.delete
        self.check = inner.check
        self.close = inner.close

    def facts(self) -> Engine:
        return Engine("stays", "PKCS11", "", "", 2, False, {KeyAlgorithm.ECDSA: (256,)})


class Bench:
    """A KMS with engines `old` (the default), `new` and `stays`."""

    def __init__(self, storage: KmsStorage, folder: Path) -> None:
        self.storage = storage
        self.folder = folder
        self.old = Faulty(SoftwareEngine.open("old", folder / "old", SECRET))
        self.new = Faulty(SoftwareEngine.open("new", folder / "new", SECRET))
        self.kms = self.restarted()

    def restarted(self) -> KmsService:
        """The KMS as after a crash: nothing is remembered."""
        stays = Stays(SoftwareEngine.open("stays", self.folder / "stays", SECRET))
        return KmsService(
            engines=[self.old, self.new, stays],
            default_engine_id="old",
            storage=self.storage,
            clock=SystemClock(),
        )

    def places(self, key: Key) -> list[str]:
        """The engines that hold the key."""
        return [
            name for name in ("old", "new") if (self.folder / name / f"{key.key_id}.key").exists()
        ]


@pytest.fixture
def bench(storage: KmsStorage, tmp_path: Path) -> Bench:
    return Bench(storage, tmp_path)


async def signs(kms: KmsService, key: Key) -> bool:
    signature = await kms.use(
        key.key_id, lambda private: private.sign(b"m", ec.ECDSA(hashes.SHA256())), purpose=CA
    )
    load_der_public_key(key.public_key).verify(signature, b"m", ec.ECDSA(hashes.SHA256()))
    return True


async def test_a_moved_key_signs_from_its_new_place_and_has_left_the_old(
    bench: Bench, records: Records
) -> None:
    key = await bench.kms.generate(P256, purpose=CA, name="ca/x", caller=ALICE)
    assert await signs(bench.kms, key)

    moved = await bench.kms.move(key.key_id, "new", purpose=CA, caller=ALICE)

    assert (moved.engine_id, moved.version) == ("new", key.version + 1)
    assert bench.places(key) == ["new"]
    assert await signs(bench.kms, key)
    assert await signs(bench.restarted(), key)
    kinds = [(kind, type_) for kind, type_, _ in await records() if "move" in type_]
    assert kinds == [
        ("audit", "kms.move.begin"),
        ("event", "kms.move"),
        ("audit", "kms.move"),
        ("audit", "kms.move.end"),
    ]
    counts = await bench.storage.count(purposes=[CA], filters=[], limit=1)
    assert counts is not None
    assert {engine: n for engine, n in counts.by_engine.items() if n} == {"new": 1}


async def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    bench: Bench, records: Records
) -> None:
    key = await bench.kms.generate(P256, purpose=CA, name="ca/x", caller=ALICE)
    before = await records()

    plan = await bench.kms.plan_move(key.key_id, "new", purpose=CA)

    assert (plan.source, plan.target, plan.step) == ("old", "new", MoveStep.PLANNED)
    assert bench.places(key) == ["old"]
    assert await records() == before


@pytest.mark.parametrize(
    ("engine", "what", "places"),
    [
        ("old", "take_out", ["old"]),
        ("new", "take_in", ["old"]),
        ("new", "sign", ["old", "new"]),  # the copy could not be proven
    ],
)
async def test_what_fails_before_the_switch_leaves_the_key_in_use_and_is_gone_on_with(
    bench: Bench, engine: str, what: str, places: list[str]
) -> None:
    key = await bench.kms.generate(P256, purpose=CA, name="ca/x", caller=ALICE)
    faulty: Faulty = getattr(bench, engine)
    faulty.failing = what
    with pytest.raises(Unavailable):
        await bench.kms.move(key.key_id, "new", purpose=CA, caller=ALICE)
    faulty.failing = ""

    kms = bench.restarted()
    await kms.start()
    assert (await kms.get(key.key_id, purpose=CA)).engine_id == "old"
    assert bench.places(key) == places
    assert await signs(kms, key)
    with pytest.raises(Conflict) as other:
        await kms.plan_move(key.key_id, "stays", purpose=CA)
    assert other.value.code == "move_in_progress"

    moved = await kms.move(key.key_id, "new", purpose=CA, caller=ALICE)

    assert moved.engine_id == "new"
    assert bench.places(key) == ["new"]


@pytest.mark.parametrize("again", ["asked again", "started again"])
async def test_what_fails_after_the_switch_is_finished(bench: Bench, again: str) -> None:
    key = await bench.kms.generate(P256, purpose=CA, name="ca/x", caller=ALICE)
    bench.old.failing = "delete"
    with pytest.raises(Unavailable):
        await bench.kms.move(key.key_id, "new", purpose=CA, caller=ALICE)
    assert bench.places(key) == ["old", "new"]
    kms = bench.restarted()
    await kms.start()  # the old engine is still away
    assert await signs(kms, key)
    bench.old.failing = ""

    if again == "asked again":
        await kms.move(key.key_id, "new", purpose=CA, caller=ALICE)
    else:
        await bench.restarted().start()

    assert bench.places(key) == ["new"]
    assert await bench.storage.moves() == []


async def test_another_process_that_remembers_the_old_place_finds_the_new(bench: Bench) -> None:
    key = await bench.kms.generate(P256, purpose=CA, name="ca/x", caller=ALICE)
    other = bench.restarted()
    assert await signs(other, key)

    await bench.kms.move(key.key_id, "new", purpose=CA, caller=ALICE)

    assert await signs(other, key)


async def test_what_cannot_move_is_refused_before_anything_is_written(
    bench: Bench, records: Records
) -> None:
    key = await bench.kms.generate(P256, purpose=CA, name="ca/x", caller=ALICE)
    fixed = await bench.kms.generate(P256, purpose=CA, name="ca/y", caller=ALICE, engine_id="stays")
    before = await records()

    async def refused(key: Key, engine: str) -> str:
        with pytest.raises((RuleViolation, Conflict)) as refusal:
            await bench.kms.move(key.key_id, engine, purpose=CA, caller=ALICE)
        return refusal.value.code

    assert await refused(key, "nowhere") == "unknown_engine"
    assert await refused(key, "old") == "key_already_there"
    assert await refused(key, "stays") == "key_not_importable"
    assert await refused(fixed, "new") == "key_not_exportable"
    bench.kms.production = True
    assert await refused(key, "new") == "engine_not_for_ca_keys"
    assert await records() == before


async def test_no_move_removes_a_key_from_where_another_brought_it(bench: Bench) -> None:
    key = await bench.kms.generate(P256, purpose=CA, name="ca/x", caller=ALICE)

    outcomes = await asyncio.gather(
        *(
            bench.kms.move(key.key_id, engine, purpose=CA, caller=ALICE)
            for engine in ("new", "new", "old", "new", "old", "old")
        ),
        return_exceptions=True,
    )

    assert all(isinstance(one, Key | Conflict) for one in outcomes), outcomes
    at_last = await bench.kms.get(key.key_id, purpose=CA)
    assert bench.places(key) == [at_last.engine_id]
    assert await signs(bench.restarted(), key)


async def test_no_copy_of_a_deleted_key_stays_in_the_engine_that_it_was_moving_to(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await bench.kms.generate(
        P256, purpose=KeyPurpose.GENERAL, name="short-lived", caller=ALICE
    )
    bench.new.failing = "sign"
    with pytest.raises(Unavailable):
        await bench.kms.move(key.key_id, "new", purpose=KeyPurpose.GENERAL, caller=ALICE)
    bench.new.failing = ""
    with pytest.raises(Conflict) as refused:
        await bench.kms.delete_named(key.key_id, caller=ALICE)
    assert refused.value.code == "move_in_progress"

    moving = bench.kms._moving
    switch = moving._switch

    async def deleted_first(move: KeyMove, caller: Caller) -> KeyMove:
        await bench.kms.discard(key.key_id, purpose=KeyPurpose.GENERAL, caller=ALICE)
        return await switch(move, caller)

    monkeypatch.setattr(moving, "_switch", deleted_first)
    with pytest.raises(NotFound):
        await bench.kms.move(key.key_id, "new", purpose=KeyPurpose.GENERAL, caller=ALICE)

    assert bench.places(key) == []
