"""Keys for the platform's own slices: made durably, used by purpose, never lost by accident."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import Conflict, NotFound, RuleViolation, Unavailable
from lamassu.kernel.x509.keys import key_id
from lamassu.services.kms.contract import (
    KeyAlgorithm,
    KeyPurpose,
    KeySpec,
    PlatformKeys,
)
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.model import PrivateKey
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService

from .conftest import ALICE, P256, SECRET, MakeKey, Records


async def test_a_made_key_can_be_found_and_signs_certificates(
    kms: KmsService, make_key: MakeKey
) -> None:
    contract: PlatformKeys = kms
    key = await make_key(KeyPurpose.CA)

    assert key.key_id == key_id(key.public_key)
    assert await contract.get(key.key_id, purpose=KeyPurpose.CA) == key
    assert await contract.find_by_public_key(key.public_key) == key
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a")])
    now = SystemClock().now()
    builder = x509.CertificateBuilder(
        name, name, ec.generate_private_key(ec.SECP256R1()).public_key(), 1, now, now
    )
    certificate = await contract.use(
        key.key_id, lambda private: builder.sign(private, hashes.SHA256()), purpose=KeyPurpose.CA
    )
    assert certificate.signature


@pytest.mark.parametrize("other", [p for p in KeyPurpose if p is not KeyPurpose.CA])
async def test_a_key_is_not_there_for_another_purpose(
    kms: KmsService, make_key: MakeKey, other: KeyPurpose
) -> None:
    key = await make_key(KeyPurpose.CA)

    with pytest.raises(NotFound, match="key not found"):
        await kms.get(key.key_id, purpose=other)
    with pytest.raises(NotFound, match="key not found"):
        await kms.use(key.key_id, lambda private: private, purpose=other)
    await kms.discard(key.key_id, purpose=other, caller=ALICE)
    assert await kms.get(key.key_id, purpose=KeyPurpose.CA) == key


@pytest.mark.parametrize(
    ("algorithm", "size"),
    [(KeyAlgorithm.RSA, 1024), (KeyAlgorithm.RSA, 2049), (KeyAlgorithm.ECDSA, 224)],
)
async def test_a_key_that_no_engine_makes_is_refused_before_anything_is_written(
    kms: KmsService, records: Records, algorithm: KeyAlgorithm, size: int
) -> None:
    with pytest.raises(RuleViolation) as refusal:
        await kms.generate(
            KeySpec(algorithm, size), purpose=KeyPurpose.CA, name="weak", caller=ALICE
        )

    assert (refusal.value.code, refusal.value.field) == ("unsupported_key", "size")
    assert await records() == []


async def test_an_unknown_engine_is_refused(kms: KmsService, records: Records) -> None:
    with pytest.raises(RuleViolation, match="unknown engine hsm; configured: software"):
        await kms.generate(P256, purpose=KeyPurpose.CA, name="x", caller=ALICE, engine_id="hsm")
    assert await records() == []


async def test_making_a_key_is_published_and_recorded_unless_it_is_the_platforms(
    make_key: MakeKey, records: Records
) -> None:
    ca = await make_key(KeyPurpose.CA)
    await make_key(KeyPurpose.PLATFORM)
    await make_key(KeyPurpose.RESPONDER)

    written = await records()
    assert [(kind, type_) for kind, type_, _ in written] == [
        ("event", "kms.create"),
        ("audit", "kms.create"),
        ("audit", "kms.create"),
        ("audit", "kms.create"),
    ]
    event = json.loads(written[0][2])
    assert event["data"]["key_id"] == ca.key_id
    assert "PRIVATE" not in written[0][2]


@pytest.mark.parametrize(("fault", "stays"), [(Conflict("no"), False), (Unavailable("lost"), True)])
async def test_a_refused_commit_takes_the_key_along_and_an_unknown_one_leaves_it(
    storage: KmsStorage, fresh_store: Path, fault: Exception, stays: bool
) -> None:
    engine = SoftwareEngine.open("software", fresh_store, SECRET)
    failing = AsyncMock(wraps=storage)
    failing.unit = lambda: _Failing(fault)
    kms = KmsService(
        engines=[engine], default_engine_id="software", storage=failing, clock=SystemClock()
    )

    with pytest.raises(type(fault)):
        await kms.generate(P256, purpose=KeyPurpose.CA, name="x", caller=ALICE)

    assert bool(list(fresh_store.glob("*.key"))) is stays


class _Failing:
    """A transaction that fails when it begins."""

    def __init__(self, fault: Exception) -> None:
        self._fault = fault

    async def __aenter__(self) -> None:
        raise self._fault

    async def __aexit__(self, *_: object) -> None:
        return None


async def test_old_orphans_are_set_aside_at_start_and_nothing_else(
    storage: KmsStorage, fresh_store: Path
) -> None:
    engine = SoftwareEngine.open("software", fresh_store, SECRET)
    kms = KmsService(
        engines=[engine], default_engine_id="software", storage=storage, clock=SystemClock()
    )
    known = await kms.generate(P256, purpose=KeyPurpose.CA, name="known", caller=ALICE)
    old = engine.generate(P256, purpose=KeyPurpose.CA)
    young = engine.generate(P256, purpose=KeyPurpose.CA)
    yesterday = (SystemClock().now() - timedelta(days=1)).timestamp()
    for made in (known.key_id, old.key_id):
        os.utime(fresh_store / f"{made}.key", (yesterday, yesterday))

    assert await kms.start() == [old.key_id]

    left = {file.stem for file in fresh_store.glob("*.key")}
    assert left == {known.key_id, young.key_id}


async def test_discarding_removes_row_and_key_and_may_be_repeated(
    kms: KmsService, make_key: MakeKey, engine: SoftwareEngine
) -> None:
    key = await make_key(KeyPurpose.CA)
    await kms.use(key.key_id, lambda private: private, purpose=KeyPurpose.CA)

    for _ in range(2):
        await kms.discard(key.key_id, purpose=KeyPurpose.CA, caller=ALICE)

    with pytest.raises(NotFound):
        await kms.use(key.key_id, lambda private: private, purpose=KeyPurpose.CA)
    with pytest.raises(Unavailable):
        engine.private_key(key.key_id, purpose=KeyPurpose.CA)


async def test_only_platform_keys_can_be_exported_and_it_is_recorded(
    kms: KmsService, make_key: MakeKey, records: Records
) -> None:
    key = await make_key(KeyPurpose.PLATFORM)
    ca = await make_key(KeyPurpose.CA)

    pem = await kms.export(key.key_id, passphrase=SECRET, caller=ALICE)

    assert load_pem_private_key(pem, SECRET)
    with pytest.raises(NotFound):
        await kms.export(ca.key_id, passphrase=SECRET, caller=ALICE)
    with pytest.raises(RuleViolation, match="passphrase"):
        await kms.export(key.key_id, passphrase=b"short", caller=ALICE)
    exports = [body for _, type_, body in await records() if type_ == "kms.export"]
    assert len(exports) == 1
    assert SECRET.decode() not in exports[0]


async def test_the_engine_that_is_the_default_must_exist(
    storage: KmsStorage, engine: SoftwareEngine
) -> None:
    with pytest.raises(RuleViolation, match="unknown engine hsm"):
        KmsService(engines=[engine], default_engine_id="hsm", storage=storage, clock=SystemClock())


async def healthy(kms: KmsService) -> bool:
    [engine] = await kms.health()
    return engine.healthy


async def test_health_follows_the_keystore(storage: KmsStorage, fresh_store: Path) -> None:
    engine = SoftwareEngine.open("software", fresh_store, SECRET)
    kms = KmsService(
        engines=[engine], default_engine_id="software", storage=storage, clock=SystemClock()
    )
    assert await healthy(kms)

    (fresh_store / "keystore.json").unlink()

    assert not await healthy(kms)


async def test_a_closed_engine_is_not_healthy(storage: KmsStorage, fresh_store: Path) -> None:
    engine = SoftwareEngine.open("software", fresh_store, SECRET)
    kms = KmsService(
        engines=[engine], default_engine_id="software", storage=storage, clock=SystemClock()
    )

    await kms.close()

    assert not await healthy(kms)


async def test_an_engine_that_signs_wrongly_gives_no_key(
    storage: KmsStorage, fresh_store: Path, records: Records
) -> None:
    class Lies(SoftwareEngine):
        """Its signatures are another key's, as an emulator's or a broken token's."""

        def private_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
            return ec.generate_private_key(ec.SECP256R1())

        def inline_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey | None:
            return None

    kms = KmsService(
        engines=[Lies.open("lies", fresh_store, SECRET)],
        default_engine_id="lies",
        storage=storage,
        clock=SystemClock(),
    )

    with pytest.raises(Unavailable, match="signs wrongly"):
        await kms.generate(P256, purpose=KeyPurpose.CA, name="ca/x", caller=ALICE)

    assert await records() == []
    assert not list(fresh_store.glob("*.key"))
