"""Access over each database, with the real KMS behind it and a clock that tests move."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from lamassu.kernel.identity import Caller, Peer, system_caller
from lamassu.kernel.x509.pem import ders_of
from lamassu.platform.database import Database
from lamassu.platform.database.journal_tables import tables
from lamassu.services.access.contract import IssuedCredential
from lamassu.services.access.storage import AccessStorage, HostFiles
from lamassu.services.access.usecases import AccessService
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService

HOST: Caller = system_caller("test")


class MovedClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def move(self, by: timedelta) -> None:
        self.time += by


@pytest.fixture
def database_services() -> Sequence[str]:
    return ["kms", "access"]


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> SoftwareEngine:
    directory = tmp_path_factory.mktemp("access") / "keys"
    return SoftwareEngine.open("software", directory, b"a passphrase for access")


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def kms(database: Database, engine: SoftwareEngine, clock: MovedClock) -> KmsService:
    return KmsService(
        engines=[engine],
        default_engine_id="software",
        storage=KmsStorage(database),
        clock=clock,
    )


@pytest.fixture
def start(database: Database, kms: KmsService, clock: MovedClock) -> Callable[[], AccessService]:
    """`start()` gives access as one more process has it: same database, nothing remembered."""
    return lambda: AccessService(
        storage=AccessStorage(database), keys=kms, files=HostFiles(), clock=clock
    )


@pytest.fixture
async def access(start: Callable[[], AccessService]) -> AccessService:
    """Access with its hierarchy made."""
    service = start()
    await service.establish(caller=HOST)
    return service


Audited = Callable[[], Awaitable[list[tuple[str, str]]]]


@pytest.fixture
def audited(database: Database) -> Audited:
    """`await audited()` gives action and body of each audit record of access, in order."""

    async def read() -> list[tuple[str, str]]:
        outbox = tables("access").outbox
        query = select(outbox.c.type, outbox.c.body).order_by(outbox.c.seq)
        async with database.reading("access") as connection:
            return [(row.type, row.body) for row in await connection.execute(query)]

    return read


def peer_of(issued: IssuedCredential) -> Peer:
    """What a handshake with this credential leaves behind."""
    return Peer(tuple(ders_of(issued.chain_pem)))
