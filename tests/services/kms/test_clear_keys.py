"""A directory of keys in clear, as the original keeps it: sealed, refused in production, adopted
(security rule 10)."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import RuleViolation, Unavailable
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.contract import Key, KeyAlgorithm, KeyOrigin, KeyPurpose, KeySpec
from lamassu.services.kms.engines import clear_keys
from lamassu.services.kms.engines.clear_keys import refuse_clear_keys
from lamassu.services.kms.engines.keystore import Keystore
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.model import PrivateKey
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService
from lamassu.services.kms.usecases.adopt_keys import Adopting
from lamassu.services.kms.usecases.private_keys import spec_of, spec_of_public_key, spki_of

from .conftest import ALICE, SECRET, Records

P256 = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SMALL = rsa.generate_private_key(public_exponent=65537, key_size=1024)
OLD_NAME = "ca-manufacturing.pem"


def key_id(key: PrivateKey) -> str:
    return key_id_of(spki_of(key))


def clear(key: PrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


@pytest.fixture
def directory(fresh_store: Path) -> Path:
    """Two keys as the original leaves them: one by its id, one by an older name."""
    fresh_store.mkdir(mode=0o700)
    (fresh_store / key_id(P256)).write_bytes(clear(P256))
    (fresh_store / OLD_NAME).write_bytes(clear(RSA, PrivateFormat.TraditionalOpenSSL))
    return fresh_store


def opened(directory: Path, *, keeps_names: bool = True) -> SoftwareEngine:
    return SoftwareEngine.open("pem", directory, SECRET, keeps_names=keeps_names)


def sealed(directory: Path) -> SoftwareEngine:
    engine = opened(directory)
    engine.seal_clear_keys()
    return engine


def contents(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.iterdir() if path.is_file())


async def service(engines: Sequence[SoftwareEngine], storage: KmsStorage) -> KmsService:
    kms = KmsService(
        engines=engines, default_engine_id=engines[0].facts().id, storage=storage,
        clock=SystemClock(),
    )  # fmt: skip
    await kms.start()
    return kms


def test_keys_in_clear_are_sealed_and_open_once_they_were_claimed(directory: Path) -> None:
    engine = sealed(directory)

    assert b"PRIVATE KEY" not in contents(directory)
    for path in directory.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(Unavailable, match="lamassu key adopt") as refusal:
        engine.private_key(key_id(P256), purpose=KeyPurpose.CA)
    assert refusal.value.code == "key_unclaimed"

    for _ in range(2):
        engine.claim(key_id(P256), purpose=KeyPurpose.CA)

    key = engine.private_key(key_id(P256), purpose=KeyPurpose.CA)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.private_numbers() == P256.private_numbers()
    again = opened(directory)
    assert again.private_key(key_id(P256), purpose=KeyPurpose.CA)
    for attempt in (again.private_key, again.claim):
        with pytest.raises(Unavailable):
            attempt(key_id(P256), purpose=KeyPurpose.GENERAL)
    assert [one.key_id for one in again.unclaimed_keys()] == [key_id(RSA)]


def test_production_refuses_keys_in_clear_and_touches_nothing(directory: Path) -> None:
    before = contents(directory)

    with pytest.raises(RuleViolation, match="start an installation in development once") as refusal:
        refuse_clear_keys(directory)

    assert refusal.value.code == "clear_keys_refused"
    assert contents(directory) == before
    sealed(directory)
    refuse_clear_keys(directory)


@pytest.mark.parametrize("moment", ["before sealing", "before removal"])
def test_a_crash_leaves_the_key_in_clear_or_sealed_never_neither(
    directory: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Crash(Exception):
        pass

    def crash(*_: object, **__: object) -> None:
        raise Crash

    with monkeypatch.context() as fault:
        if moment == "before sealing":
            fault.setattr(Keystore, "write_unclaimed", crash)
        else:
            fault.setattr(Path, "unlink", crash)
        with pytest.raises(Crash):
            sealed(directory)
    assert (directory / key_id(P256)).exists()

    engine = sealed(directory)

    assert b"PRIVATE KEY" not in contents(directory)
    for key in (P256, RSA):
        engine.claim(key_id(key), purpose=KeyPurpose.GENERAL)
        assert engine.take_out(key_id(key), purpose=KeyPurpose.GENERAL)


def test_a_file_whose_sealed_form_does_not_read_back_stays(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as fault:
        fault.setattr(Keystore, "holds", lambda *_: False)
        outcome = opened(directory).seal_clear_keys()

    assert set(outcome.left) == {key_id(P256), OLD_NAME}
    assert (directory / OLD_NAME).read_bytes().startswith(b"-----BEGIN RSA PRIVATE KEY")


def test_what_is_no_clear_key_stays_and_is_named(directory: Path) -> None:
    locked = P256.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    (directory / "locked.pem").write_bytes(locked)
    (directory / "notes.txt").write_text("the keys of the factory")
    (directory / "broken").write_text(
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"
    )
    (directory / "strange").write_bytes(clear(ec.generate_private_key(ec.SECP256K1())))
    (directory / "sub").mkdir()
    outside = directory.parent / "outside.pem"
    outside.write_bytes(clear(ec.generate_private_key(ec.SECP256R1())))
    (directory / "link").symlink_to(outside)

    outcome = opened(directory).seal_clear_keys()

    assert set(outcome.sealed) == {key_id(P256), key_id(RSA)}
    assert set(outcome.left) == {"broken", "strange"}
    assert outside.exists()
    for name in ("locked.pem", "notes.txt", "broken", "strange", "link"):
        assert (directory / name).exists()


@pytest.mark.parametrize("where", ["beside the keys", "in a key's file"])
def test_a_web_servers_keys_are_not_taken_from_it(directory: Path, where: str) -> None:
    certificate = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    if where == "beside the keys":
        (directory / "server.crt").write_bytes(certificate)
    else:
        (directory / "zzz").write_bytes(clear(P256) + certificate)
    engine = opened(directory)
    before = contents(directory)

    for attempt in (engine.seal_clear_keys, engine.refuse_clear_keys):
        with pytest.raises(RuleViolation, match="for keys alone") as refusal:
            attempt()
        assert refusal.value.code == "storage_directory_shared"
    assert contents(directory) == before


def test_a_sealed_key_does_not_open_under_another_name(directory: Path) -> None:
    engine = sealed(directory)
    one, other = (directory / f"{key_id(key)}.unclaimed" for key in (P256, RSA))
    aside = directory / "aside"
    os.replace(one, aside)
    os.replace(other, one)
    os.replace(aside, other)

    with pytest.raises(Unavailable) as refusal:
        engine.claim(key_id(P256), purpose=KeyPurpose.GENERAL)
    assert refusal.value.code == "key_damaged"


def test_sealing_twice_or_beside_a_claimed_key_changes_nothing(directory: Path) -> None:
    engine = sealed(directory)
    engine.claim(key_id(P256), purpose=KeyPurpose.CA)
    (directory / "a copy").write_bytes(clear(P256))

    outcome = engine.seal_clear_keys()

    assert outcome == clear_keys.Sealing((key_id(P256),), ())
    assert not (directory / "a copy").exists()
    assert opened(directory).private_key(key_id(P256), purpose=KeyPurpose.CA)


async def test_keys_are_adopted_with_their_old_names_as_aliases(
    directory: Path, storage: KmsStorage, records: Records
) -> None:
    kms = await service([sealed(directory)], storage)
    assert await kms.unclaimed() == {"pem": 2}
    wanted = Adopting("pem", KeyPurpose.GENERAL)

    looked_at = await kms.adopt(dataclasses.replace(wanted, dry_run=True), caller=ALICE)
    assert await records() == []
    adopted = await kms.adopt(wanted, caller=ALICE)

    assert [one.found for one in looked_at] == [one.found for one in adopted]
    assert [one.problem for one in adopted] == ["", ""]
    assert await kms.unclaimed() == {}
    assert await kms.adopt(wanted, caller=ALICE) == []
    rsa_row = await kms.get_named(OLD_NAME)
    assert (rsa_row.key_id, rsa_row.name) == (key_id(RSA), OLD_NAME)
    assert (rsa_row.origin, rsa_row.purpose) == (KeyOrigin.ADOPTED, KeyPurpose.GENERAL)
    assert rsa_row.spec == KeySpec(KeyAlgorithm.RSA, 2048)
    assert (await kms.get_named(key_id(P256))).aliases == ()
    told = sorted((kind, type_) for kind, type_, _ in await records())
    assert told == [("audit", "kms.import")] * 2 + [("event", "kms.import")] * 2
    signature = await kms.use(
        key_id(P256),
        lambda key: key.sign(b"m", ec.ECDSA(hashes.SHA256())),  # type: ignore[call-arg, arg-type]
        purpose=KeyPurpose.GENERAL,
    )
    P256.public_key().verify(signature, b"m", ec.ECDSA(hashes.SHA256()))


async def test_a_row_in_the_database_gives_a_found_key_no_purpose(
    directory: Path, storage: KmsStorage
) -> None:
    kms = await service([sealed(directory)], storage)
    planted = Key(
        key_id(P256), "planted", "pem", KeySpec(KeyAlgorithm.ECDSA, 256), KeyPurpose.GENERAL,
        spki_of(P256), datetime.now(UTC),
    )  # fmt: skip
    async with storage.unit() as unit:
        await unit.insert(planted)

    with pytest.raises(Unavailable) as refusal:
        await kms.use(key_id(P256), lambda _: True, purpose=KeyPurpose.GENERAL)
    assert refusal.value.code == "key_unclaimed"
    outcome = await kms.adopt(Adopting("pem", KeyPurpose.CA), caller=ALICE)
    problems = {one.found.key_id: one.problem for one in outcome}
    assert problems[key_id(P256)] == "the key is known already, in engine pem and for general"
    assert await kms.unclaimed() == {"pem": 1}


async def test_an_adoption_that_was_cut_off_is_finished_by_the_next(
    directory: Path, storage: KmsStorage, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sealed(directory)
    kms = await service([engine], storage)
    wanted = Adopting("pem", KeyPurpose.GENERAL)

    def crash(*_: object, **__: object) -> None:
        raise Unavailable("killed here")

    with monkeypatch.context() as fault:
        fault.setattr(engine, "claim", crash)
        with pytest.raises(Unavailable, match="killed here"):
            await kms.adopt(wanted, caller=ALICE)

    adopted = await kms.adopt(wanted, caller=ALICE)

    assert [one.problem for one in adopted] == ["", ""]
    assert len([kind for kind, _, _ in await records() if kind == "audit"]) == 2
    for key in (P256, RSA):
        assert await kms.use(key_id(key), lambda _: True, purpose=KeyPurpose.GENERAL)


async def test_a_key_that_any_engine_finds_by_its_id_is_adopted(
    fresh_store: Path, storage: KmsStorage, records: Records
) -> None:
    engine = opened(fresh_store)
    made = engine.take_in(P256, purpose=KeyPurpose.GENERAL)
    kms = await service([engine], storage)

    for wanted in (
        Adopting("pem", KeyPurpose.GENERAL, key_ids=("0" * 64,)),
        Adopting("pem", KeyPurpose.CA, key_ids=(made.key_id,)),
    ):
        with pytest.raises(Unavailable):
            await kms.adopt(wanted, caller=ALICE)
    with pytest.raises(RuleViolation):
        await kms.adopt(
            Adopting("pem", KeyPurpose.GENERAL, dry_run=True, key_ids=(made.key_id,)), caller=ALICE
        )
    assert await records() == []

    wanted = Adopting("pem", KeyPurpose.GENERAL, key_ids=(made.key_id,))
    for _ in range(2):
        [adopted] = await kms.adopt(wanted, caller=ALICE)
        assert adopted.problem == ""

    row = await kms.get_named(made.key_id)
    assert (row.origin, row.spec, row.public_key) == (
        KeyOrigin.ADOPTED,
        KeySpec(KeyAlgorithm.ECDSA, 256),
        spki_of(P256),
    )
    assert len(await records()) == 2


@pytest.mark.parametrize(
    "key",
    [RSA, P256, ed25519.Ed25519PrivateKey.generate(), mldsa.MLDSA65PrivateKey.generate()],
    ids=lambda key: type(key).__name__,
)
def test_public_and_private_keys_are_described_alike(key: PrivateKey) -> None:
    assert spec_of_public_key(spki_of(key)) == spec_of(key)


async def test_migrated_names_are_forgotten_as_the_original_forgets_them(
    directory: Path, storage: KmsStorage
) -> None:
    opened(directory).seal_clear_keys()
    kms = await service([opened(directory, keeps_names=False)], storage)
    await kms.adopt(Adopting("pem", KeyPurpose.GENERAL), caller=ALICE)

    row = await kms.get_named(key_id(RSA))
    assert (row.name, row.aliases) == ("", ())


async def test_what_the_engine_would_not_make_is_not_adopted(
    directory: Path, storage: KmsStorage
) -> None:
    (directory / "small.pem").write_bytes(clear(SMALL))
    kms = await service([sealed(directory)], storage)

    adopted = await kms.adopt(Adopting("pem", KeyPurpose.GENERAL), caller=ALICE)

    problems = {one.found.key_id: one.problem for one in adopted}
    assert "no RSA keys of 1024 bits" in problems[key_id(SMALL)]
    assert problems[key_id(P256)] == ""
    assert await kms.unclaimed() == {"pem": 1}


async def test_a_key_that_tells_of_itself_that_it_is_weak_is_not_adopted(
    directory: Path, storage: KmsStorage
) -> None:
    weak = rsa.generate_private_key(public_exponent=3, key_size=2048)
    (directory / "weak.pem").write_bytes(clear(weak))
    kms = await service([sealed(directory)], storage)

    for chosen in ((), (key_id(weak),)):
        wanted = Adopting("pem", KeyPurpose.CA, key_ids=chosen)
        adopted = await kms.adopt(wanted, caller=ALICE)
        problems = {one.found.key_id: one.problem for one in adopted}
        assert "public exponent is out of bounds" in problems[key_id(weak)]
    assert await kms.unclaimed() == {"pem": 1}


async def test_production_adopts_no_ca_key_into_software(
    directory: Path, storage: KmsStorage, records: Records
) -> None:
    kms = await service([sealed(directory)], storage)
    kms.production = True

    with pytest.raises(RuleViolation) as refusal:
        await kms.adopt(Adopting("pem", KeyPurpose.CA), caller=ALICE)
    assert refusal.value.code == "engine_not_for_ca_keys"
    assert await records() == []


async def test_an_unclaimed_key_is_not_swept_and_unknown_to_the_api(
    directory: Path, storage: KmsStorage
) -> None:
    engine = sealed(directory)
    for path in directory.iterdir():
        os.utime(path, (0, 0))

    kms = await service([engine], storage)

    assert await kms.find(key_id(P256)) is None
    assert (directory / f"{key_id(P256)}.unclaimed").exists()


async def test_several_keystores_stand_side_by_side(
    directory: Path, tmp_path: Path, storage: KmsStorage
) -> None:
    other = SoftwareEngine.open("other", tmp_path / "other", SECRET)
    kms = await service([sealed(directory), other], storage)

    keys = [
        await kms.generate(
            KeySpec(KeyAlgorithm.ECDSA, 256),
            purpose=KeyPurpose.GENERAL, name="k", caller=ALICE, engine_id=engine_id,
        )
        for engine_id in ("other", None)
    ]  # fmt: skip

    assert [key.engine_id for key in keys] == ["other", "pem"]
    assert (tmp_path / "other" / f"{keys[0].key_id}.key").exists()
    assert (directory / f"{keys[1].key_id}.key").exists()
    assert [(one.id, one.default) for one in await kms.engines()] == [
        ("pem", True),
        ("other", False),
    ]


@pytest.mark.parametrize(
    "key",
    [ed25519.Ed25519PrivateKey.generate(), mldsa.MLDSA44PrivateKey.generate(),
     mldsa.MLDSA65PrivateKey.generate(), mldsa.MLDSA87PrivateKey.generate(), RSA, P256],
    ids=lambda key: type(key).__name__,
)  # fmt: skip
def test_every_kind_of_key_is_sealed_and_reopened(fresh_store: Path, key: PrivateKey) -> None:
    made = opened(fresh_store).take_in(key, purpose=KeyPurpose.GENERAL)

    read = opened(fresh_store).private_key(made.key_id, purpose=KeyPurpose.GENERAL)

    assert clear(read) == clear(key)
    assert load_der_public_key(made.public_key) == key.public_key()
