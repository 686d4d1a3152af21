"""What the issuance log costs: the processor time of an issuance with it and without it.

Issues certificates through the CA's use case, with its transaction, events, audit records and the
relay behind it, in turns with the log and without, and prints milliseconds of processor time a
certificate and the log's share. An enrolment over TLS does more besides (`bench/enroll.py`), so
that the log's share of it is smaller. Figures to read, not a test.

    .venv/bin/python bench/log.py --certificates 1000 --rounds 6
    .venv/bin/python bench/log.py --database postgresql://user@host/name
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.services.ca.world import Listener, World, csr

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.records import LogEntry, Record
from lamassu.platform.database import Database, DatabaseSettings, RecordWriter, migrate
from lamassu.platform.database.prepared import Step
from lamassu.platform.messaging import EventBus
from lamassu.services.ca.storage import CaStorage
from lamassu.services.ca.storage.issuance_log import IssuanceLogStorage
from lamassu.services.ca.usecases import CaService
from lamassu.services.ca.usecases.issuance_log import IssuanceLog
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService

SERVICES = ("ca", "kms")
AT_ONCE = 16


class Unlogged:
    """A database that forgets what is for the log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __getattr__(self, name: str) -> object:
        return getattr(self._database, name)

    async def write(
        self, service: str, steps: Sequence[Step], records: Sequence[Record] = ()
    ) -> bool:
        kept = [each for each in records if not isinstance(each, LogEntry)]
        return await self._database.write(service, steps, kept)


@dataclass
class Side:
    """The CA with the log, or without."""

    name: str
    world: World
    bus: EventBus
    costs: list[float]

    async def issue(self, requests: Sequence[bytes]) -> None:
        """One round; notes processor milliseconds a certificate, the relay's work included."""
        queue = list(requests)

        async def work() -> None:
            while queue:
                await self.world.issue(csr_der=queue.pop(), ca_id="root")

        began = time.process_time()
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        await self.bus.drained()
        self.costs.append((time.process_time() - began) * 1000 / len(requests))


@asynccontextmanager
async def side(
    name: str, settings: DatabaseSettings, engine: SoftwareEngine
) -> AsyncIterator[Side]:
    """A CA of its own in a database of its own."""
    clock = SystemClock()
    await migrate(settings, SERVICES)
    database = await Database.open(
        settings, services=SERVICES, writer=RecordWriter(b"k" * 32), clock=clock
    )
    seen: Database = database if name == "with" else Unlogged(database)  # type: ignore[assignment]
    kms = KmsService(
        engines=[engine], default_engine_id="software", storage=KmsStorage(database), clock=clock
    )
    ca = CaService(storage=CaStorage(seen), keys=kms, clock=clock)
    bus = EventBus(database)
    if name == "with":
        log = IssuanceLog(
            store=IssuanceLogStorage(database), keys=kms, clock=clock, host="bench.test"
        )
        bus.follow("issuance-log", "ca", log.advance)
    world = World(ca, kms, None, clock, database, Listener(), None)  # type: ignore[arg-type]
    await world.profile()
    await world.root()
    try:
        yield Side(name, world, bus, [])
    finally:
        await database.close()


async def compare(certificates: int, rounds: int, database: str) -> None:
    """Both sides, turn by turn, each on the same requests."""
    requests = [csr(f"device-{number}") for number in range(certificates)]
    with tempfile.TemporaryDirectory() as folder:
        engine = SoftwareEngine.open(
            "software", Path(folder) / "keys", b"a passphrase that is long enough"
        )

        def settings(name: str) -> DatabaseSettings:
            url = f"{database}_{name}" if database else f"sqlite:///{folder}/{name}.db"
            return DatabaseSettings.from_url(url)

        async with (
            side("without", settings("without"), engine) as without,
            side("with", settings("with"), engine) as logged,
        ):
            for number in range(rounds + 1):
                for each in (without, logged) if number % 2 else (logged, without):
                    await each.issue(requests)
            told = {each.name: statistics.median(each.costs[1:]) for each in (without, logged)}
    extra = told["with"] - told["without"]
    print(f"{certificates} certificates, {rounds} rounds after a first that does not count")
    for name, cost in told.items():
        print(f"{name:>8} the log: {cost:.3f} ms of processor a certificate")
    print(f"     the log: {extra:.3f} ms, {100 * extra / told['without']:.1f} % of an issuance")


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--certificates", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument(
        "--database", default="", help="PostgreSQL: two databases, NAME_with and NAME_without"
    )
    asked = parser.parse_args()
    asyncio.run(compare(asked.certificates, asked.rounds, asked.database))


if __name__ == "__main__":
    main()
