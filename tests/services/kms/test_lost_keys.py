"""Keys that should be in an engine and are not; engines of which nothing is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from lamassu.kernel.clock import SystemClock
from lamassu.services.kms.contract import Engine, KeyPurpose
from lamassu.services.kms.engines.keystore import Keystore
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.model import PrivateKey
from lamassu.services.kms.ports import EngineDown
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService
from tests.services.kms.conftest import ALICE, P256, SECRET

CA, GENERAL = KeyPurpose.CA, KeyPurpose.GENERAL


class Remote(SoftwareEngine):
    """An engine elsewhere, whose network a test cuts after so many keys."""

    answers = 10**9

    def facts(self) -> Engine:
        return replace(super().facts(), id="remote")

    def check(self) -> None:
        if self.answers == 0:
            raise EngineDown("remote cannot be reached")

    def key_ids(self, *, made_before: datetime) -> Sequence[str]:
        return ()  # a list may be of a part

    def private_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        if self.answers == 0:
            raise EngineDown("remote cannot be reached")
        self.answers -= 1
        return super().private_key(key_id, purpose=purpose)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    store = SoftwareEngine.open("remote", tmp_path / "remote", SECRET)
    return Remote("remote", store._keystore)


Restart = Callable[[], KmsService]


@pytest.fixture
def restart(folder: Path, remote: Remote, storage: KmsStorage) -> Restart:
    """The KMS as a new process has it: nothing in memory."""
    return lambda: KmsService(
        engines=[SoftwareEngine.open("software", folder, SECRET), remote],
        default_engine_id="software",
        storage=storage,
        clock=SystemClock(),
    )


async def test_nothing_is_lost_where_all_is_there(restart: Restart) -> None:
    kms = restart()
    key = await kms.generate(P256, purpose=CA, name="ca/a", caller=ALICE)
    await kms.generate(P256, purpose=KeyPurpose.PLATFORM, name="internal", caller=ALICE)

    search = await restart().find_lost([key.key_id])

    assert (search.lost, search.doubts) == ([], {})


async def test_a_key_that_its_engine_has_not_got_is_lost(restart: Restart, folder: Path) -> None:
    kms = restart()
    made = {
        name: await kms.generate(P256, purpose=purpose, name=name, caller=ALICE)
        for name, purpose in (
            ("ca/a", CA),
            ("ca/retired", CA),
            ("internal", KeyPurpose.PLATFORM),
            ("responder", KeyPurpose.RESPONDER),
            ("somebody's", GENERAL),
        )
    }
    for path in folder.glob("*.key"):
        path.unlink()

    search = await restart().find_lost([made["ca/a"].key_id, "0" * 64])

    assert [key.name for key in search.lost] == ["ca/a", "internal", "responder"]
    assert search.doubts == {}


@pytest.mark.parametrize("answers", [0, 1])
async def test_an_engine_that_is_away_is_no_proof_of_anything(
    restart: Restart, remote: Remote, folder: Path, answers: int
) -> None:
    kms = restart()
    here = await kms.generate(P256, purpose=CA, name="ca/here", caller=ALICE)
    there = [
        await kms.generate(P256, purpose=CA, name=name, caller=ALICE, engine_id="remote")
        for name in ("ca/there", "ca/there-too")
    ]
    remote.answers = answers
    (folder / f"{here.key_id}.key").unlink()

    search = await restart().find_lost([here.key_id, *(key.key_id for key in there)])

    assert [key.name for key in search.lost] == ["ca/here"]
    assert search.doubts == {"remote": "remote cannot be reached"}


async def test_an_engine_that_was_just_asked_is_not_asked_again(
    restart: Restart, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that has waited for an engine in vain does not wait for it once more."""
    kms = restart()
    key = await kms.generate(P256, purpose=CA, name="ca/a", caller=ALICE, engine_id="remote")
    asked: list[str] = []

    def watched(name: str) -> Callable[..., object]:
        def ask(*arguments: object, **named: object) -> object:
            asked.append(name)
            return ()

        return ask

    for name in ("check", "key_ids", "unclaimed_keys"):
        monkeypatch.setattr(Remote, name, watched(name))

    away = await restart().find_lost([key.key_id], {"remote": "out of reach", "software": ""})
    assert (away.doubts, away.lost) == ({"remote": "out of reach"}, [])
    assert await restart().unclaimed({"remote": "out of reach"}) == {}
    assert asked == []

    assert (await restart().find_lost([key.key_id], {"remote": ""})).doubts == {}
    assert asked == ["key_ids"]


async def test_no_key_is_opened_to_see_that_it_is_there(
    restart: Restart, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await restart().generate(P256, purpose=CA, name="ca/a", caller=ALICE)
    opened: list[str] = []
    read = Keystore.read

    def watched(store: Keystore, key_id: str, purpose: KeyPurpose) -> PrivateKey:
        opened.append(key_id)
        return read(store, key_id, purpose)

    monkeypatch.setattr(Keystore, "read", watched)

    assert (await restart().find_lost([key.key_id])).lost == []
    assert opened == []


async def test_a_key_that_was_set_aside_and_is_damaged_is_told_of_and_not_called_lost(
    restart: Restart, folder: Path
) -> None:
    aside, damaged = [
        await restart().generate(P256, purpose=CA, name=name, caller=ALICE)
        for name in ("ca/aside", "ca/damaged")
    ]
    for key in (aside, damaged):
        SoftwareEngine.open("software", folder, SECRET).set_aside(key.key_id)
    next(folder.glob(f"{damaged.key_id}.*")).write_text("{}")

    search = await restart().find_lost([aside.key_id, damaged.key_id])

    assert search.lost == []
    assert list(search.doubts) == [damaged.key_id]
    assert "damaged" in search.doubts[damaged.key_id]


async def test_keys_of_an_engine_that_is_configured_no_more_are_lost(
    restart: Restart, folder: Path, storage: KmsStorage
) -> None:
    key = await restart().generate(P256, purpose=CA, name="ca/a", caller=ALICE, engine_id="remote")
    alone = KmsService(
        engines=[SoftwareEngine.open("software", folder, SECRET)],
        default_engine_id="software",
        storage=storage,
        clock=SystemClock(),
    )

    search = await alone.find_lost([key.key_id])

    assert [(lost.key_id, lost.engine_id) for lost in search.lost] == [(key.key_id, "remote")]
    assert search.doubts == {}
