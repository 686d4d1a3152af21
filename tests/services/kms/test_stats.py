"""Counts of keys: kept beside the rows, the same as counted, filtered where asked."""

from __future__ import annotations

import httpx
import pytest
from sqlalchemy import func, select

from lamassu.kernel.clock import SystemClock
from lamassu.platform.database import Database, migrate
from lamassu.platform.database.migrate import downgrade
from lamassu.services.kms.contract import KeyAlgorithm, KeyOrigin, KeyPurpose, KeySpec
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.storage import KmsStorage, counts, keys
from lamassu.services.kms.usecases import KmsService
from lamassu.services.kms.usecases.count_keys import count_keys
from tests.support.databases import DatabaseFactory

from .conftest import ALICE, MakeKey

ED25519 = KeySpec(KeyAlgorithm.ED25519, 256)
Counts = dict[tuple[str, str, str], int]


async def kept_and_counted(database: Database) -> tuple[Counts, Counts]:
    of = [keys.c.engine_id, keys.c.algorithm, keys.c.purpose]
    async with database.reading("kms") as connection:
        kept = (await connection.execute(select(counts).where(counts.c["keys"] != 0))).all()
        counted = (await connection.execute(select(*of, func.count()).group_by(*of))).all()
    return {tuple(row[:3]): row[3] for row in kept}, {tuple(row[:3]): row[3] for row in counted}


async def test_no_keys_are_counted_as_none(api: httpx.AsyncClient) -> None:
    assert (await api.get("/v1/stats")).json() == {
        "total_keys": 0,
        "keys_distribution_per_engine": {"software": 0},
        "keys_distribution_per_algorithm": {"RSA": 0, "ECDSA": 0, "Ed25519": 0, "ML-DSA": 0},
    }


async def test_counts_follow_making_and_deleting(
    api: httpx.AsyncClient, kms: KmsService, make_key: MakeKey, database: Database
) -> None:
    first = await make_key()
    await make_key(KeyPurpose.CA)
    await make_key(spec=ED25519)
    await make_key(KeyPurpose.PLATFORM)
    assert (await api.get("/v1/stats")).json() == {
        "total_keys": 3,
        "keys_distribution_per_engine": {"software": 3},
        "keys_distribution_per_algorithm": {"RSA": 0, "ECDSA": 2, "Ed25519": 1, "ML-DSA": 0},
    }

    await kms.delete_named(first.key_id, caller=ALICE)

    assert (await api.get("/v1/stats")).json()["total_keys"] == 2
    kept, counted = await kept_and_counted(database)
    assert kept == counted


async def test_a_refused_deletion_counts_nothing(
    api: httpx.AsyncClient, make_key: MakeKey, database: Database
) -> None:
    ca = await make_key(KeyPurpose.CA)
    await api.delete(f"/v1/keys/{ca.key_id}")

    kept, counted = await kept_and_counted(database)
    assert kept == counted == {("software", "ECDSA", "ca"): 1}


async def test_stats_are_filtered_as_the_list_is(api: httpx.AsyncClient, make_key: MakeKey) -> None:
    for number in range(3):
        await make_key(name=f"k{number}")
    await make_key(spec=ED25519, name="k0")
    await make_key(KeyPurpose.PLATFORM, name="k0")

    async def total(*filters: str) -> int:
        answer = await api.get("/v1/stats", params={"filter": list(filters)})
        assert answer.status_code == 200, answer.text
        return int(answer.json()["total_keys"])

    assert await total("name[eq]k0") == 2
    assert await total("name[eq]k0", "algorithm[eq]ECDSA") == 1
    assert await total("name[ct]k") == 4
    assert await total("engine_id[eq]elsewhere") == 0
    for wrong in ("name[xx]k", "purpose[eq]ca", "size[eq]many"):
        assert (await api.get("/v1/stats", params={"filter": wrong})).status_code == 400


async def test_too_many_to_count_are_not_counted(
    api: httpx.AsyncClient, make_key: MakeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(count_keys.__globals__, "COUNTED_MAX", 2)
    for number in range(3):
        await make_key(name=f"k{number}")

    answer = await api.get("/v1/stats", params={"filter": "name[ct]k"})

    assert (answer.status_code, answer.json()["code"]) == (400, "too_many_to_count")
    assert (await api.get("/v1/stats", params={"filter": "name[eq]k1"})).status_code == 200
    assert (await api.get("/v1/stats")).json()["total_keys"] == 3


async def test_keys_of_an_earlier_release_are_counted_once(
    database_factory: DatabaseFactory, engine: SoftwareEngine
) -> None:
    settings = await database_factory.settings(["kms"])
    database = await database_factory.open(settings, services=["kms"])
    kms = KmsService(
        engines=[engine],
        default_engine_id="software",
        storage=KmsStorage(database),
        clock=SystemClock(),
    )
    for purpose in (KeyPurpose.GENERAL, KeyPurpose.GENERAL, KeyPurpose.CA):
        key = await kms.generate(ED25519, purpose=purpose, name="k", caller=ALICE)
    await database.close()

    await downgrade(settings, "kms", "0001")
    await migrate(settings, ["kms"])

    database = await database_factory.open(settings, services=["kms"])
    kept, counted = await kept_and_counted(database)
    assert (
        kept
        == counted
        == {
            ("software", "Ed25519", "general"): 2,
            ("software", "Ed25519", "ca"): 1,
        }
    )
    again = await KmsStorage(database).find(key.key_id)
    assert again is not None
    assert (again.origin, again.bindings) == (KeyOrigin.GENERATED, ())
