"""An engine or the database fails between the two steps of an import or a deletion."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import Conflict, LamassuError, NotFound, RuleViolation, Unavailable
from lamassu.services.kms.contract import Key, KeyPurpose
from lamassu.services.kms.engines.keystore import Keystore
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.model import ImportedKey, MadeKey, PrivateKey
from lamassu.services.kms.ports import EngineDown, KeyUnit
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService

from .conftest import ALICE, P256, SECRET, Records
from .test_import import pem


class Faulty(SoftwareEngine):
    """A keystore whose steps can be made to fail."""

    failing: frozenset[str] = frozenset()

    def fail_if(self, step: str) -> None:
        if step in self.failing:
            raise EngineDown("the engine is gone")

    def check(self) -> None:
        self.fail_if("check")
        super().check()

    def delete(self, key_id: str) -> None:
        self.fail_if("delete")
        super().delete(key_id)

    def take_in(self, key: PrivateKey, *, purpose: KeyPurpose) -> MadeKey:
        self.fail_if("take_in")
        return super().take_in(key, purpose=purpose)


class FaultyStorage(KmsStorage):
    """Rows whose next insertion ends in an error."""

    error: LamassuError | None = None

    @asynccontextmanager
    async def _unit(self) -> AsyncIterator[KeyUnit]:
        async with super()._unit() as unit:
            yield unit
            if self.error is not None:
                raise self.error


@pytest.fixture
def faulty(fresh_store: Path) -> Faulty:
    return Faulty("software", Keystore.open(fresh_store, SECRET))


@pytest.fixture
def rows(storage: KmsStorage) -> FaultyStorage:
    return FaultyStorage(storage._database)


@pytest.fixture
def kms(rows: FaultyStorage, faulty: Faulty) -> KmsService:
    return KmsService(
        engines=[faulty], default_engine_id="software", storage=rows, clock=SystemClock()
    )


def files(directory: Path) -> list[str]:
    return sorted(path.stem for path in directory.glob("*.key"))


def imported() -> ImportedKey:
    return ImportedKey(pem(ec.generate_private_key(ec.SECP256R1())), "sent")


async def made(kms: KmsService) -> Key:
    return await kms.generate(P256, purpose=KeyPurpose.GENERAL, name="k", caller=ALICE)


async def test_a_refused_row_leaves_no_imported_key_behind(
    kms: KmsService, rows: FaultyStorage, fresh_store: Path, records: Records
) -> None:
    rows.error = RuleViolation("no")
    with pytest.raises(RuleViolation):
        await kms.import_named(imported(), caller=ALICE)

    assert (files(fresh_store), await records()) == ([], [])


async def test_a_lost_commit_leaves_the_key_and_the_import_can_be_repeated(
    kms: KmsService, rows: FaultyStorage, fresh_store: Path
) -> None:
    sent = imported()
    rows.error = Unavailable("the database is gone")
    with pytest.raises(Unavailable):
        await kms.import_named(sent, caller=ALICE)
    [kept] = files(fresh_store)

    rows.error = None
    key = await kms.import_named(sent, caller=ALICE)

    assert key.key_id == kept
    assert await kms.use(kept, lambda _: True, purpose=KeyPurpose.GENERAL)


async def test_an_import_that_another_process_won_takes_nothing_from_it(
    kms: KmsService, rows: FaultyStorage, fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = imported()
    key = await kms.import_named(sent, caller=ALICE)
    really, looked = rows.find, []

    async def find(key_id: str) -> Key | None:
        looked.append(key_id)
        return None if len(looked) == 1 else await really(key_id)  # not yet, at the first look

    monkeypatch.setattr(rows, "find", find)
    with pytest.raises(Conflict) as refusal:
        await kms.import_named(sent, caller=ALICE)

    assert refusal.value.code == "key_exists"
    assert files(fresh_store) == [key.key_id]


async def test_an_engine_that_is_down_takes_no_import(
    kms: KmsService, faulty: Faulty, records: Records
) -> None:
    faulty.failing = frozenset({"take_in"})

    with pytest.raises(EngineDown):
        await kms.import_named(imported(), caller=ALICE)
    assert await records() == []


async def test_a_key_is_not_deleted_while_its_engine_is_down(
    kms: KmsService, faulty: Faulty, records: Records, fresh_store: Path
) -> None:
    key = await made(kms)
    before = await records()
    faulty.failing = frozenset({"check"})

    with pytest.raises(Unavailable):
        await kms.delete_named(key.key_id, caller=ALICE)
    assert await records() == before
    assert await kms.get_named(key.key_id) == key

    faulty.failing = frozenset()
    await kms.delete_named(key.key_id, caller=ALICE)
    assert files(fresh_store) == []


async def test_an_engine_lost_in_the_middle_of_a_deletion_is_told_of(
    kms: KmsService, faulty: Faulty, fresh_store: Path
) -> None:
    key = await made(kms)
    faulty.failing = frozenset({"delete"})

    with pytest.raises(Unavailable, match="engine software still has it") as refusal:
        await kms.delete_named(key.key_id, caller=ALICE)

    assert refusal.value.code == "key_left_in_engine"
    with pytest.raises(NotFound):
        await kms.get_named(key.key_id)
    with pytest.raises(NotFound):
        await kms.use(key.key_id, lambda _: True, purpose=KeyPurpose.GENERAL)
    assert files(fresh_store) == [key.key_id]
