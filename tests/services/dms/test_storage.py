"""DMSs in tables, on both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lamassu.kernel.errors import Conflict
from lamassu.kernel.listing import Filter, ListQuery, Operator
from lamassu.platform.database import Database, Dialect
from lamassu.services.ca.contract import CryptoEnforcement, IssuanceProfile, Validity
from lamassu.services.dms.model.dms import BootstrapUse, Dms
from lamassu.services.dms.model.settings import (
    AuthMode,
    ClientCertificateSettings,
    DmsSettings,
    EnrollmentSettings,
    EstAuthentication,
    ProvisioningProfile,
    ReenrollmentSettings,
    RenewalPolicy,
    RevocationCheck,
    WebhookSettings,
)
from lamassu.services.dms.storage import DmsStorage

AT = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)
WHOLE = DmsSettings(
    enrollment=EnrollmentSettings(
        authentication=EstAuthentication(
            mode=AuthMode.CLIENT_CERTIFICATE_AND_EXTERNAL_WEBHOOK,
            client_certificate=ClientCertificateSettings(
                ("a", "b"), 2, True, False, RevocationCheck.IF_AVAILABLE, True
            ),
            external_webhook=WebhookSettings(
                name="w", url="https://w.example", call_timeout=timedelta(seconds=3)
            ),
        ),
        provisioning_profile=ProvisioningProfile("i", "c", {"deep": [1, {"x": None}]}, ("t",)),
        enrollment_ca="ca",
    ),
    reenrollment=ReenrollmentSettings(
        reenrollment_delta=timedelta(days=7, microseconds=5),
        additional_validation_cas=("c",),
    ),
    issuance_profile=IssuanceProfile(
        id="inline",
        validity=Validity(not_after=AT),
        crypto_enforcement=CryptoEnforcement(True, True, None, True, ()),
    ),
    renewal_policy=RenewalPolicy(False, (60, 30)),
)


@pytest.fixture(params=[Dialect.SQLITE, Dialect.POSTGRESQL])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    chosen = Dialect(request.param)
    if chosen is Dialect.POSTGRESQL:
        request.getfixturevalue("postgres_cluster")
    return chosen


@pytest.fixture
def store(database: Database) -> DmsStorage:
    return DmsStorage(database)


def dms(dms_id: str = "fleet", **given: object) -> Dms:
    return Dms(id=dms_id, name=f"Name of {dms_id}", created_at=AT, **given)  # type: ignore[arg-type]


async def insert(store: DmsStorage, *all_of_them: Dms) -> None:
    async with store.unit() as unit:
        for each in all_of_them:
            await unit.insert(each)


async def test_everything_about_a_dms_comes_back(store: DmsStorage) -> None:
    whole = dms(settings=WHOLE, metadata={"a": [1, {"b": None}]})

    await insert(store, whole)
    found = await store.find("fleet")

    assert found is not None
    assert found.settings.enrollment == WHOLE.enrollment
    assert found.settings.reenrollment == WHOLE.reenrollment
    assert found.settings.renewal_policy == WHOLE.renewal_policy
    profile = found.settings.issuance_profile
    assert profile is not None
    assert profile.validity.not_after == AT
    assert profile.crypto_enforcement.allowed_rsa_key_sizes is None
    assert list(profile.crypto_enforcement.allowed_ecdsa_key_sizes or ["none"]) in ([], ["none"])
    assert (found.metadata, found.created_at, found.version) == (whole.metadata, AT, 1)


async def test_an_id_is_taken_once(store: DmsStorage) -> None:
    await insert(store, dms())

    with pytest.raises(Conflict, match="DMS already exists"):
        await insert(store, dms())
    assert await store.count(ListQuery()) == 1


async def test_a_failed_unit_leaves_nothing(store: DmsStorage) -> None:
    async def fail() -> None:
        async with store.unit() as unit:
            await unit.insert(dms())
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await fail()

    assert await store.find("fleet") is None


async def test_lists_are_filtered_by_wire_names(store: DmsStorage) -> None:
    await insert(store, dms("a"), dms("b"), dms("c"))

    page = await store.list(ListQuery(page_size=2))
    filters = [Filter("name", Operator.CT, "of b")]
    dated = [Filter("creation_date", Operator.AF, AT)]

    assert [each.id for each in page.items] == ["a", "b"]
    assert page.after is not None
    assert await store.count(ListQuery(filters=filters)) == 1
    assert await store.count(ListQuery(filters=dated)) == 0


async def test_the_first_use_of_a_bootstrap_certificate_stands(store: DmsStorage) -> None:
    def use(device_id: str) -> BootstrapUse:
        return BootstrapUse("issuer", "0a", "fleet", device_id, AT)

    async def claim(device_id: str) -> BootstrapUse:
        async with store.unit() as unit:
            return await unit.claim_bootstrap(use(device_id))

    claims = await asyncio.gather(*(claim(f"dev-{n}") for n in range(5)))

    assert len(set(claims)) == 1
    assert await store.find_bootstrap_use("issuer", "0a") == claims[0]
    assert await store.find_bootstrap_use("another", "0a") is None
    async with store.unit() as unit:
        await unit.release_bootstrap(use("nobody"))
    assert await store.find_bootstrap_use("issuer", "0a") == claims[0]
    again = replace(claims[0], at=AT + timedelta(seconds=1))
    async with store.unit() as unit:
        assert await unit.claim_bootstrap(again) == claims[0]
    async with store.unit() as unit:
        assert not await unit.release_bootstrap(claims[0]), "another request relies on it"
    assert await store.find_bootstrap_use("issuer", "0a") == claims[0]


async def test_a_use_that_was_none_for_another_device_can_be_taken_back(store: DmsStorage) -> None:
    use = BootstrapUse("issuer", "0c", "fleet", "dev-1", AT)
    async with store.unit() as unit:
        await unit.claim_bootstrap(use)
        for other in (replace(use, device_id="dev-2"), replace(use, dms_id="other")):
            assert await unit.claim_bootstrap(other) == use
    async with store.unit() as unit:
        assert await unit.release_bootstrap(use)


async def test_a_use_that_nobody_else_met_can_be_taken_back(store: DmsStorage) -> None:
    use = BootstrapUse("issuer", "0b", "fleet", "dev-1", AT)
    async with store.unit() as unit:
        assert await unit.claim_bootstrap(use) == use
    async with store.unit() as unit:
        assert await unit.release_bootstrap(use)
    assert await store.find_bootstrap_use("issuer", "0b") is None


async def test_a_version_of_a_device_is_announced_once(store: DmsStorage) -> None:
    async def announce(**versions: int) -> set[str]:
        async with store.unit() as unit:
            return set(await unit.announce(versions))

    assert await announce(a=2, b=1) == {"a", "b"}
    assert await announce(a=2, b=1, c=1) == {"c"}
    assert await announce(a=3, b=0) == {"a"}
    assert await announce(a=1, b=1, c=1) == set()
