"""In production a CA's key is made only where it can be kept (security rule 11)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import RuleViolation
from lamassu.services.kms.contract import Engine, KeyPurpose
from lamassu.services.kms.engines.keystore import Keystore
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.ports import EngineDown
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService

from .conftest import ALICE, P256, SECRET, Records


class Hsm(SoftwareEngine):
    """A software keystore that says of itself what an HSM says."""

    def facts(self) -> Engine:
        return dataclasses.replace(super().facts(), type="PKCS11", for_ca_keys=True)


@pytest.fixture
def hsm(tmp_path: Path) -> Hsm:
    return Hsm("hsm", Keystore.open(tmp_path / "hsm", SECRET))


async def test_software_gets_no_ca_key_and_whoever_asked_learns_what_would_do(
    storage: KmsStorage, engine: SoftwareEngine, hsm: Hsm, records: Records
) -> None:
    kms = KmsService(
        engines=[engine, hsm],
        default_engine_id="software",
        storage=storage,
        clock=SystemClock(),
        production=True,
    )

    with pytest.raises(RuleViolation, match="name one of these instead: hsm") as refusal:
        await kms.generate(P256, purpose=KeyPurpose.CA, name="ca/x", caller=ALICE)

    assert (refusal.value.code, refusal.value.field) == ("engine_not_for_ca_keys", "engine_id")
    assert await records() == []
    made = await kms.generate(
        P256, purpose=KeyPurpose.CA, name="ca/x", caller=ALICE, engine_id="hsm"
    )
    assert made.engine_id == "hsm"
    for purpose in set(KeyPurpose) - {KeyPurpose.CA}:
        assert await kms.generate(P256, purpose=purpose, name="k", caller=ALICE)


async def test_without_an_engine_that_would_do_it_says_what_to_configure(
    kms: KmsService, records: Records
) -> None:
    kms.production = True

    with pytest.raises(RuleViolation, match="configure one that would do, such as pkcs11"):
        await kms.generate(P256, purpose=KeyPurpose.CA, name="ca/x", caller=ALICE)
    assert await records() == []


async def test_a_ca_key_from_before_production_still_signs(kms: KmsService) -> None:
    key = await kms.generate(P256, purpose=KeyPurpose.CA, name="ca/x", caller=ALICE)
    kms.production = True

    assert await kms.use(key.key_id, lambda _: True, purpose=KeyPurpose.CA)


async def test_what_development_began_puts_no_ca_key_into_software(
    storage: KmsStorage, engine: SoftwareEngine, hsm: Hsm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a move that was cut off nor a key that waits for its CA."""
    kms = KmsService(
        engines=[engine, hsm], default_engine_id="software", storage=storage, clock=SystemClock()
    )
    left = await kms.generate(P256, purpose=KeyPurpose.CA, name="ca/x.2/rekey", caller=ALICE)
    moving = await kms.generate(
        P256, purpose=KeyPurpose.CA, name="ca/y", caller=ALICE, engine_id="hsm"
    )

    def away(*_: object, **__: object) -> None:
        raise EngineDown("away", code="engine_unreachable")

    with monkeypatch.context() as fault:
        fault.setattr(engine, "take_in", away)
        with pytest.raises(EngineDown):
            await kms.move(moving.key_id, "software", purpose=KeyPurpose.CA, caller=ALICE)
    kms.production = True

    with pytest.raises(RuleViolation) as refusal:
        await kms.find_unused(left.name, P256, purpose=KeyPurpose.CA, engine_id="software")
    assert refusal.value.code == "engine_not_for_ca_keys"
    with pytest.raises(RuleViolation) as refusal:
        await kms.move(moving.key_id, "software", purpose=KeyPurpose.CA, caller=ALICE)
    assert refusal.value.code == "engine_not_for_ca_keys"
    assert (await kms.get(moving.key_id, purpose=KeyPurpose.CA)).engine_id == "hsm"


async def test_ca_keys_in_weak_places_are_findings(
    storage: KmsStorage, engine: SoftwareEngine, hsm: Hsm
) -> None:
    kms = KmsService(
        engines=[engine, hsm], default_engine_id="software", storage=storage, clock=SystemClock()
    )
    await kms.generate(P256, purpose=KeyPurpose.GENERAL, name="k", caller=ALICE)
    await kms.generate(P256, purpose=KeyPurpose.CA, name="ca/x", caller=ALICE, engine_id="hsm")
    assert await kms.misplaced_ca_keys() == []

    await kms.generate(P256, purpose=KeyPurpose.CA, name="ca/y", caller=ALICE)

    [finding] = await kms.misplaced_ca_keys()
    assert finding.startswith("high: 1 keys of CAs are in engine software")
