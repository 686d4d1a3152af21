"""A KMS over each database, with one software keystore for the whole run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.identity import Caller, Peer, Principal, PrincipalKind
from lamassu.platform.database import Database
from lamassu.platform.database.journal_tables import tables
from lamassu.platform.http import Mount, build_app
from lamassu.services.kms.contract import Key, KeyAlgorithm, KeyPurpose, KeySpec
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.http import routes
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService

SECRET = b"a passphrase that is long enough"
P256 = KeySpec(KeyAlgorithm.ECDSA, 256)
ALICE = Caller(Principal(PrincipalKind.ADMIN, "alice"), "request-1")


@pytest.fixture
def database_services() -> Sequence[str]:
    return ["kms"]


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> SoftwareEngine:
    """Opened once: the key derivation is slow by design."""
    return SoftwareEngine.open("software", tmp_path_factory.mktemp("store") / "keys", SECRET)


@pytest.fixture
def storage(database: Database) -> KmsStorage:
    return KmsStorage(database)


@pytest.fixture
def kms(storage: KmsStorage, engine: SoftwareEngine) -> KmsService:
    return KmsService(
        engines=[engine], default_engine_id="software", storage=storage, clock=SystemClock()
    )


MakeKey = Callable[..., Awaitable[Key]]


@pytest.fixture
def make_key(kms: KmsService) -> MakeKey:
    """`await make_key(purpose)` makes a P-256 key, or one of another `spec`."""

    async def make(
        purpose: KeyPurpose = KeyPurpose.GENERAL, spec: KeySpec = P256, name: str = "a key"
    ) -> Key:
        return await kms.generate(spec, purpose=purpose, name=name, caller=ALICE)

    return make


@pytest.fixture
async def api(kms: KmsService) -> AsyncIterator[httpx.AsyncClient]:
    """The API as an admin sees it."""

    async def authenticate(peer: Peer) -> Principal | None:
        return ALICE.principal

    app = build_app(
        [Mount("/api/kms", "kms", routes(kms))],
        authenticate=authenticate,
        public_hosts=["localhost:8443"],
        bookmark_key=b"b" * 32,
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://localhost/api/kms") as api:
        yield api


Records = Callable[[], Awaitable[list[tuple[str, str, str]]]]


@pytest.fixture
def records(database: Database) -> Records:
    """`await records()` gives kind, type and body of all that was committed, in order."""

    async def read() -> list[tuple[str, str, str]]:
        outbox = tables("kms").outbox
        query = select(outbox.c.kind, outbox.c.type, outbox.c.body).order_by(outbox.c.seq)
        async with database.reading("kms") as connection:
            return [tuple(row) for row in await connection.execute(query)]

    return read


@pytest.fixture
def fresh_store(tmp_path: Path) -> Path:
    """Where a keystore of the test's own can be made."""
    return tmp_path / "keys"
