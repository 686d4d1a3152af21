from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import httpx
import pytest

from lamassu.kernel.identity import Peer, Principal
from lamassu.platform.http import Mount, build_app
from lamassu.services.ca.http import routes
from lamassu.services.ca.storage import CaStorage
from lamassu.services.ca.usecases import CaService
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService
from tests.support.databases import DatabaseFactory

from .world import ALICE, Crowd, Listener, MovedClock, World


@pytest.fixture
def database_services() -> Sequence[str]:
    return ["ca", "kms"]


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> SoftwareEngine:
    """Opened once: the key derivation is slow by design."""
    return SoftwareEngine.open(
        "software", tmp_path_factory.mktemp("store") / "keys", b"a passphrase that is long enough"
    )


@pytest.fixture
async def world(
    database_factory: DatabaseFactory, database_services: Sequence[str], engine: SoftwareEngine
) -> AsyncIterator[World]:
    clock = MovedClock()
    database = await database_factory(services=database_services, clock=clock)
    kms = KmsService(
        engines=[engine], default_engine_id="software", storage=KmsStorage(database), clock=clock
    )
    va = Listener()
    people = Crowd(clock)
    ca = CaService(
        storage=CaStorage(database),
        keys=kms,
        clock=clock,
        validation_urls=["http://pki.test:8080"],
        revocations=va,
        own_hosts=["pki.test", "192.0.2.7"],
        people=people,
    )

    async def authenticate(peer: Peer) -> Principal | None:
        return ALICE.principal

    app = build_app(
        [Mount("/api/ca", "ca", routes(ca))],
        authenticate=authenticate,
        public_hosts=["localhost:8443"],
        bookmark_key=b"b" * 32,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://localhost/api/ca") as api:
        yield World(ca, kms, api, clock, database, va, people)
