"""A process that writes until it is killed: `python -m tests.support.database_writer URL`.

Prints each item's id once its unit has returned, that is, once it was acknowledged.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid

from sqlalchemy import insert

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.identity import system_caller
from lamassu.kernel.records import AuditRecord, Event
from lamassu.platform.database import Database, DatabaseSettings, RecordWriter
from lamassu.platform.messaging import EventBus
from tests.support.databases import RECORD_KEY
from tests.support.sample.tables import items

CALLER = system_caller("writer")


async def write_for_ever(database: Database) -> None:
    while True:
        name = uuid.uuid4().hex
        async with database.unit("sample") as unit:
            await unit.connection.execute(insert(items), {"id": name})
            unit.emit(Event("item.create", f"item/{name}", 1, None, CALLER))
            unit.audit(AuditRecord("item.create", f"item/{name}", CALLER))
        os.write(1, name.encode() + b"\n")


async def main(url: str) -> None:
    database = await Database.open(
        DatabaseSettings.from_url(url),
        services=["sample"],
        writer=RecordWriter(RECORD_KEY),
        clock=SystemClock(),
    )
    await EventBus(database).start()
    await asyncio.gather(*(write_for_ever(database) for _ in range(8)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
