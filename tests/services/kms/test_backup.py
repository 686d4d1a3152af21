"""Keys of an engine backed up, restored and rehearsed, over each database; two engines that wrap
as tokens do, without a token."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.keywrap import (
    aes_key_unwrap_with_padding,
    aes_key_wrap_with_padding,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from sqlalchemy import text

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import Conflict, NotFound, RuleViolation, Unavailable
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.platform.database import Database
from lamassu.services.kms.contract import Engine, Key, KeyMove, KeyPurpose, KeySpec, MoveStep
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.model import MadeKey, PrivateKey, WrappedKey
from lamassu.services.kms.ports import EngineDown, EngineLimits
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService
from lamassu.services.kms.usecases.backup import (
    Rehearsal,
    Restoration,
    read_backup,
    restore_backup,
)
from lamassu.services.kms.usecases.guard import GuardedEngine
from lamassu.services.kms.usecases.private_keys import spki_of
from lamassu.services.kms.usecases.prove_copy import prove_copy

from .conftest import ALICE, P256, SECRET, Records

CA = KeyPurpose.CA
MAC_SECRET = b"m" * 32
BACKUP_KEY = b"\x5a" * 32


class Token:
    """Keys in memory that leave it wrapped."""

    limits = EngineLimits(4)

    def __init__(self, engine_id: str) -> None:
        self.id = engine_id
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.under = BACKUP_KEY
        self.stubborn: frozenset[str] = frozenset()  # keys that it does not wrap
        self.away = False
        self.unwraps = 1000  # until it is away

    def facts(self) -> Engine:
        supported = {P256.algorithm: (P256.size,)}
        return Engine(self.id, "PKCS11", "tests", "token", 2, False, supported)

    def generate(self, spec: KeySpec, *, purpose: KeyPurpose) -> MadeKey:
        return self.keep(ec.generate_private_key(ec.SECP256R1()))

    def keep(self, key: ec.EllipticCurvePrivateKey) -> MadeKey:
        spki = spki_of(key)
        self.keys.setdefault(key_id_of(spki), key)
        return MadeKey(key_id_of(spki), spki)

    def private_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        self.check()
        if key_id not in self.keys:
            raise Unavailable("it has no such key", code="key_lost")
        return self.keys[key_id]

    def delete(self, key_id: str) -> None:
        self.check()
        self.keys.pop(key_id, None)

    def check(self) -> None:
        if self.away:
            raise EngineDown("away")

    def close(self) -> None:
        pass

    def wrap(self, key_id: str, *, purpose: KeyPurpose) -> WrappedKey:
        if key_id in self.stubborn:
            raise RuleViolation("made without backup in mind", code="key_not_wrappable")
        key = self.private_key(key_id, purpose=purpose)
        content = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        wrapped = aes_key_wrap_with_padding(self.under, content)
        return WrappedKey(key_id, spki_of(key), "aabbcc", wrapped)

    def unwrap(self, wrapped: WrappedKey, *, purpose: KeyPurpose) -> MadeKey:
        self.away = self.away or self.unwraps == 0
        self.check()
        self.unwraps -= 1
        if self.under != BACKUP_KEY:
            raise RuleViolation("another backup key", code="backup_key_differs")
        content = aes_key_unwrap_with_padding(self.under, wrapped.content)
        key = load_der_private_key(content, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return self.keep(key)

    def keep_wrapping_key(self, components: Sequence[bytes], *, security_officer_pin: bytes) -> str:
        return "aabbcc"

    def keep_unwrapping_key(self, components: Sequence[bytes]) -> str:
        return "aabbcc"


class Place:
    """A KMS with three engines: `hsm` and `spare` wrap, `software` does not."""

    def __init__(self, storage: KmsStorage, plain: SoftwareEngine) -> None:
        self.storage = storage
        self.hsm, self.spare = Token("hsm"), Token("spare")
        self.plain = plain
        self.kms = self.restarted()

    def restarted(self) -> KmsService:
        return KmsService(
            engines=[self.hsm, self.spare, self.plain],
            default_engine_id="hsm",
            storage=self.storage,
            clock=SystemClock(),
        )

    async def make(self, purpose: KeyPurpose = CA, engine_id: str = "hsm") -> Key:
        return await self.kms.generate(
            P256, purpose=purpose, name=f"a {purpose}", caller=ALICE, engine_id=engine_id
        )

    async def where(self, keys: Sequence[Key]) -> list[str]:
        found = [await self.storage.find(key.key_id) for key in keys]
        return [key.engine_id for key in found if key is not None]

    async def back_up(self, *names: str, partial: bool = False) -> bytes:
        written: list[bytes] = []

        async def write(content: bytes) -> None:
            written.append(content)

        backups = self.kms.backups
        selection = await backups.select("hsm", names, partial=partial)
        await backups.make(selection, secret=MAC_SECRET, write=write, caller=ALICE, tell=_quiet)
        return written[0]

    async def restore(self, file: bytes, engine_id: str = "spare") -> Restoration:
        return await self.kms.backups.restore(
            file, engine_id, secret=MAC_SECRET, production=False, caller=ALICE, tell=_quiet
        )

    async def rehearse(self, file: bytes, engine_id: str = "spare") -> Rehearsal:
        return await self.kms.backups.rehearse(
            file, engine_id, secret=MAC_SECRET, caller=ALICE, tell=_quiet
        )


def _quiet(_: str) -> None:
    pass


@pytest.fixture
def place(storage: KmsStorage, engine: SoftwareEngine) -> Place:
    return Place(storage, engine)


async def test_all_keys_of_an_engine_come_back_in_another(place: Place, records: Records) -> None:
    keys = [await place.make(purpose) for purpose in KeyPurpose]
    elsewhere = await place.make(engine_id="software")

    file = await place.back_up()
    done = await place.restore(file)

    assert {one.key.key_id for one in done.restored} == {key.key_id for key in keys}
    assert {one.was_in for one in done.restored} == {"hsm"}
    for key in keys:
        found = await place.storage.find(key.key_id)
        assert found is not None
        assert (found.engine_id, found.version) == ("spare", key.version + 1)
        assert (found.purpose, found.name) == (key.purpose, key.name)
    assert elsewhere.key_id.encode() not in file
    told = [(kind, type_) for kind, type_, _ in await records()]
    assert told.count(("audit", "kms.restore")) == 4
    assert told.count(("event", "kms.move")) == 2  # of platform and responder nobody is told
    assert ("audit", "kms.backup.begin") in told
    assert ("event", "kms.backup") in told


async def test_a_running_platform_finds_the_restored_key_when_the_engine_is_away(
    place: Place,
) -> None:
    key = await place.make()

    async def public_key() -> bytes:
        return await place.kms.use(
            key.key_id,
            lambda private: private.public_key().public_bytes(
                Encoding.DER, PublicFormat.SubjectPublicKeyInfo
            ),
            purpose=CA,
        )

    await public_key()  # it remembers where the key is
    file = await place.back_up()
    await place.restarted().backups.restore(
        file, "spare", secret=MAC_SECRET, production=False, caller=ALICE, tell=_quiet
    )
    place.hsm.away = True
    assert await public_key() == key.public_key


async def test_a_restore_repeated_changes_nothing(place: Place, records: Records) -> None:
    key = await place.make()
    file = await place.back_up()
    await place.restore(file)
    before = await place.storage.find(key.key_id)

    again = await place.restore(file)

    assert [one.was_in for one in again.restored] == ["spare"]
    assert await place.storage.find(key.key_id) == before


async def test_another_token_behind_the_same_engine_gets_its_keys_back(place: Place) -> None:
    key = await place.make()
    file = await place.back_up()
    place.hsm.keys.clear()

    [one] = (await place.restore(file, "hsm")).restored

    assert (one.key, one.was_in) == (key, "hsm")
    assert key.key_id in place.hsm.keys
    assert await place.storage.find(key.key_id) == key


async def test_a_restore_that_was_cut_off_goes_on(place: Place) -> None:
    keys = [await place.make() for _ in range(3)]
    file = await place.back_up()
    place.spare.unwraps = 1

    with pytest.raises(EngineDown):
        await place.restore(file)
    assert sorted(await place.where(keys)) == ["hsm", "hsm", "spare"]

    place.spare.away, place.spare.unwraps = False, 1000
    place.kms = place.restarted()
    await place.restore(file)
    assert await place.where(keys) == ["spare"] * 3


async def test_a_key_deleted_since_does_not_come_back(place: Place) -> None:
    kept, gone = await place.make(), await place.make()
    file = await place.back_up()
    await place.kms.discard(gone.key_id, purpose=CA, caller=ALICE)

    done = await place.restore(file)

    assert [one.key.key_id for one in done.restored] == [kept.key_id]
    assert [one.key_id for one in done.unknown] == [gone.key_id]
    assert gone.key_id not in place.spare.keys
    assert await place.storage.find(gone.key_id) is None


async def test_a_backup_of_which_nothing_is_known_is_refused(place: Place) -> None:
    key = await place.make()
    file = await place.back_up()
    await place.kms.discard(key.key_id, purpose=CA, caller=ALICE)
    for work in (place.restore, place.rehearse):
        with pytest.raises(NotFound, match="restore the database"):
            await work(file)
    assert not place.spare.keys


async def test_a_database_that_tells_another_purpose_gets_nothing(
    place: Place, database: Database
) -> None:
    """So that no edited row turns a CA's key into one that signs for everybody."""
    key = await place.make()
    file = await place.back_up()
    async with database.unit("kms") as unit:
        await unit.connection.execute(text("UPDATE kms_keys SET purpose = 'general'"))

    for work in (place.restore, place.rehearse):
        with pytest.raises(RuleViolation) as raised:
            await work(file)
        assert raised.value.code == "backup_unfit"
    assert key.key_id not in place.spare.keys


def _cut(file: bytes) -> bytes:
    return file[: len(file) // 2]


def _renamed(file: bytes) -> bytes:
    return file.replace(b'"a ca"', b'"b ca"')


def _another_purpose(file: bytes) -> bytes:
    return file.replace(b'"purpose": "ca"', b'"purpose": "general"')


def _one_key_less(file: bytes) -> bytes:
    document = json.loads(file)
    del document["keys"][0]
    return json.dumps(document).encode()


def _said_twice(file: bytes) -> bytes:
    return file.replace(b'"version": 1,', b'"version": 1, "version": 1,')


def _no_mac(file: bytes) -> bytes:
    document = json.loads(file)
    del document["mac"]
    return json.dumps(document).encode()


def _deep(_: bytes) -> bytes:
    return b"[" * 100_000


@pytest.mark.parametrize(
    "change", [_cut, _renamed, _another_purpose, _one_key_less, _said_twice, _no_mac, _deep]
)
async def test_a_changed_backup_is_refused_before_a_key_is_touched(
    place: Place, change: Callable[[bytes], bytes]
) -> None:
    await place.make()
    file = change(await place.back_up())
    for work in (place.restore, place.rehearse):
        with pytest.raises(RuleViolation) as raised:
            await work(file)
        assert raised.value.code == "backup_damaged"
    assert not place.spare.keys


async def test_every_octet_of_a_backup_counts(place: Place) -> None:
    await place.make()
    file = await place.back_up()
    read_backup(file, MAC_SECRET)
    for at in range(0, len(file), 7):
        changed = bytearray(file)
        changed[at] ^= 0x20 if chr(file[at]).isalnum() else 0x01
        with contextlib.suppress(RuleViolation):
            read = read_backup(bytes(changed), MAC_SECRET)
            assert read == read_backup(file, MAC_SECRET)  # white space


async def test_another_installations_backup_and_a_newer_one_are_told_apart(place: Place) -> None:
    await place.make()
    file = await place.back_up()
    with pytest.raises(RuleViolation, match="another installation made it") as raised:
        read_backup(file, b"n" * 32)
    assert raised.value.code == "backup_damaged"
    with pytest.raises(RuleViolation) as raised:
        read_backup(file.replace(b'"version": 1', b'"version": 2'), MAC_SECRET)
    assert raised.value.code == "backup_version"


async def test_nothing_is_in_clear(place: Place) -> None:
    key = await place.make()
    private = place.hsm.keys[key.key_id]
    secret = private.private_numbers().private_value.to_bytes(32, "big")
    file = await place.back_up()
    assert secret not in file
    assert secret.hex().encode() not in file
    [held] = json.loads(file)["keys"]
    assert secret not in base64.b64decode(held["wrapped_key"])


async def test_one_key_that_cannot_leave_stops_it_all_unless_it_may_be_left_out(
    place: Place,
) -> None:
    good, bad = await place.make(), await place.make()
    place.hsm.stubborn = frozenset({bad.key_id})

    with pytest.raises(RuleViolation, match="nothing was written") as raised:
        await place.back_up()
    assert raised.value.code == "keys_not_wrappable"
    assert bad.key_id in raised.value.text
    assert await place.storage.backups() == []

    backup = read_backup(await place.back_up(partial=True), MAC_SECRET)
    assert [key.key_id for key in backup.keys] == [good.key_id]
    assert backup.left_out == (bad.key_id,)
    [standing, *_] = await place.kms.backups.standings()
    assert standing.missing == 1
    assert "1 of 2 keys" in standing.warnings[0]


async def test_only_named_keys_of_the_engine_are_taken(place: Place) -> None:
    one, _, elsewhere = (
        await place.make(),
        await place.make(),
        await place.make(engine_id="software"),
    )
    backup = read_backup(await place.back_up(one.key_id, one.key_id), MAC_SECRET)
    assert [key.key_id for key in backup.keys] == [one.key_id]
    with pytest.raises(RuleViolation, match="lives in engine software"):
        await place.back_up(elsewhere.key_id)
    with pytest.raises(NotFound, match="there is no key nobody"):
        await place.back_up("nobody")


async def test_an_engine_that_wraps_nothing_says_how_it_is_backed_up(place: Place) -> None:
    await place.make(engine_id="software")
    with pytest.raises(RuleViolation, match="a copy of its directory") as raised:
        await place.kms.backups.select("software", ())
    assert raised.value.code == "key_backup_unsupported"
    await place.make()
    file = await place.back_up()
    for work in (place.restore, place.rehearse):
        with pytest.raises(RuleViolation) as refused:
            await work(file, "software")
        assert refused.value.code == "key_backup_unsupported"
        with pytest.raises(RuleViolation) as unknown:
            await work(file, "nowhere")
        assert unknown.value.code == "unknown_engine"


async def test_a_file_that_cannot_be_written_is_no_backup(place: Place, records: Records) -> None:
    await place.make()
    selection = await place.kms.backups.select("hsm", ())

    async def write(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        await place.kms.backups.make(
            selection, secret=MAC_SECRET, write=write, caller=ALICE, tell=_quiet
        )
    assert await place.storage.backups() == []
    told = [type_ for kind, type_, _ in await records() if kind == "audit"]
    assert told[-1] == "kms.backup.begin"  # it may have left the engine, so it is recorded


async def test_a_move_that_has_begun_is_ended_first(place: Place) -> None:
    key = await place.make()
    file = await place.back_up()
    async with place.storage.unit() as unit:
        move = KeyMove(key.key_id, "hsm", "software", MoveStep.COPYING, SystemClock().now())
        await unit.save_move(move)
    with pytest.raises(Conflict) as raised:
        await place.restore(file)
    assert raised.value.code == "move_in_progress"


# --- rehearsals


async def test_a_rehearsal_leaves_nothing_but_its_date(place: Place, records: Records) -> None:
    keys = [await place.make(purpose) for purpose in KeyPurpose]
    file = await place.back_up()
    [before, *_] = await place.kms.backups.standings()
    assert "never rehearsed" in before.warnings[0]

    held = await place.rehearse(file)

    assert held.passed
    assert {trial.key.key_id for trial in held.trials} == {key.key_id for key in keys}
    assert not place.spare.keys
    found = [await place.storage.find(key.key_id) for key in keys]
    assert found == keys
    [after, *_] = await place.kms.backups.standings()
    assert after.warnings == []
    assert after.last_rehearsal is not None
    assert after.last_rehearsal.rehearsed_in == "spare"
    _, _, body = (await records())[-1]
    assert '"failed": []' in body or '"failed":[]' in body


async def test_a_key_that_does_not_come_back_fails_the_rehearsal(
    place: Place, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = await place.make(), await place.make()
    file = await place.back_up()
    unwrap = place.spare.unwrap

    def breaks(wrapped: WrappedKey, *, purpose: KeyPurpose) -> MadeKey:
        if wrapped.key_id == bad.key_id:
            raise RuleViolation("it does not open", code="wrapped_key_invalid")
        return unwrap(wrapped, purpose=purpose)

    monkeypatch.setattr(place.spare, "unwrap", breaks)

    held = await place.rehearse(file)

    assert not held.passed
    assert {trial.key.key_id: trial.problem for trial in held.trials} == {
        good.key_id: "",
        bad.key_id: "it does not open",
    }
    [standing, *_] = await place.kms.backups.standings()
    assert standing.last_rehearsal is None
    assert not place.spare.keys
    assert any("failure" in body for kind, _, body in await records() if kind == "audit")


async def test_another_backup_key_is_told_at_once(place: Place) -> None:
    for _ in range(3):
        await place.make()
    file = await place.back_up()
    place.spare.under = b"\x00" * 32
    for work in (place.restore, place.rehearse):
        with pytest.raises(RuleViolation) as raised:
            await work(file)
        assert raised.value.code == "backup_key_differs"
    assert not place.spare.keys


async def test_a_key_is_never_rehearsed_where_it_lives(place: Place) -> None:
    key = await place.make()
    file = await place.back_up()
    with pytest.raises(RuleViolation) as raised:
        await place.rehearse(file, "hsm")
    assert raised.value.code == "engine_not_scratch"
    await place.restore(file)
    with pytest.raises(RuleViolation):
        await place.rehearse(file, "spare")
    assert key.key_id in place.hsm.keys
    assert key.key_id in place.spare.keys


async def test_a_copy_that_was_there_before_stays_and_counts_for_nothing(place: Place) -> None:
    """Such as when scratch and origin are two names of one token."""
    key = await place.make()
    file = await place.back_up()
    place.spare.keep(place.hsm.keys[key.key_id])

    held = await place.rehearse(file)

    assert not held.passed
    assert "before the rehearsal" in held.trials[0].problem
    assert key.key_id in place.spare.keys


async def test_a_rehearsal_that_was_cut_off_is_cleared_by_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await place.make()
    file = await place.back_up()

    def away(_: str) -> None:
        raise EngineDown("away")

    with monkeypatch.context() as broken:
        broken.setattr(place.spare, "delete", away)
        with pytest.raises(EngineDown):
            await place.rehearse(file)
    assert key.key_id in place.spare.keys
    place.kms = place.restarted()
    _, spare, _ = await place.kms.backups.standings()
    assert spare.warnings[0].startswith("engine spare may still hold copies of 1 key, of a")
    with pytest.raises(Conflict) as raised:  # the copy may be removed any moment
        await place.restore(file)
    assert raised.value.code == "rehearsal_in_progress"

    held = await place.rehearse(file)

    assert held.passed
    assert not place.spare.keys
    await place.restore(file)
    assert key.key_id in place.spare.keys


async def test_a_restore_and_a_rehearsal_at_once_lose_no_key(place: Place) -> None:
    keys = [await place.make() for _ in range(3)]
    file = await place.back_up()
    other = place.restarted()

    async def restore() -> None:
        await other.backups.restore(
            file, "spare", secret=MAC_SECRET, production=False, caller=ALICE, tell=_quiet
        )

    async def rehearse() -> None:
        await place.rehearse(file)

    await asyncio.gather(restore(), rehearse(), return_exceptions=True)

    for key in keys:
        found = await place.storage.find(key.key_id)
        assert found is not None
        assert key.key_id in {"hsm": place.hsm, "spare": place.spare}[found.engine_id].keys


async def test_a_rehearsal_inside_a_restore_takes_no_key_from_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole of it between the key's coming in and its row's switch."""
    key = await place.make()
    file = await place.back_up()
    other = place.restarted()

    async def interrupted(key: Key, engine: GuardedEngine) -> None:
        await prove_copy(key, engine)
        place.spare.keys.clear()  # the rehearsal looked before the key came in
        assert (await place.rehearse(file)).passed

    with monkeypatch.context() as between:
        between.setattr(f"{restore_backup.__name__}.prove_copy", interrupted)
        with pytest.raises(Conflict) as raised:
            await other.backups.restore(
                file, "spare", secret=MAC_SECRET, production=False, caller=ALICE, tell=_quiet
            )

    assert raised.value.code == "rehearsal_in_progress"
    assert await place.where([key]) == ["hsm"]
    await place.restore(file)
    assert await place.where([key]) == ["spare"]
    assert key.key_id in place.spare.keys


async def test_a_key_on_its_way_is_not_rehearsed_into_its_new_engine(place: Place) -> None:
    key = await place.make()
    file = await place.back_up()
    async with place.storage.unit() as unit:
        await unit.save_move(KeyMove(key.key_id, "hsm", "spare", MoveStep.COPYING, key.created_at))

    with pytest.raises(Conflict) as raised:
        await place.rehearse(file)

    assert raised.value.code == "move_in_progress"


async def test_a_rehearsal_with_the_database_of_before_the_backup_is_kept(
    place: Place, database: Database
) -> None:
    await place.make()
    file = await place.back_up()
    async with database.unit("kms") as unit:
        await unit.connection.execute(text("DELETE FROM kms_backups"))
    await place.rehearse(file)
    [record] = await place.storage.backups()
    assert record.rehearsed_at is not None
    assert len(record.key_ids) == 1


async def test_a_copy_of_a_directory_is_rehearsed_without_being_changed(
    storage: KmsStorage, tmp_path: Path
) -> None:
    store, copy = tmp_path / "keys", tmp_path / "copy"
    engine = await asyncio.to_thread(SoftwareEngine.open, "software", store, SECRET)
    place = Place(storage, engine)
    kept = await place.make(engine_id="software")
    shutil.copytree(store, copy)
    late = await place.make(engine_id="software")
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    copied = await asyncio.to_thread(SoftwareEngine.open, "copy", copy, SECRET)

    held = await place.kms.backups.rehearse_copy("software", copied, caller=ALICE, tell=_quiet)

    assert {trial.key.key_id: bool(trial.problem) for trial in held.trials} == {
        kept.key_id: False,
        late.key_id: True,
    }
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


async def test_standings_say_what_was_never_done(place: Place) -> None:
    await place.make()
    hsm, spare, software = await place.kms.backups.standings()
    assert [warning.split(";")[0] for warning in hsm.warnings] == [
        "the keys of engine hsm were never backed up",
        "the backup of engine hsm was never rehearsed",
    ]
    assert (spare.keys, spare.warnings) == (0, [])
    assert "copy of its directory" in software.way
