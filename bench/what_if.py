"""How long a replay of recorded enrolments takes: 100,000 of them in under a minute.

Fills an embedded database with certificates of one profile, each with a CSR of its own, then
asks page by page what a changed profile would do, with the worker process that the server uses.

    .venv/bin/python bench/what_if.py --enrolments 100000
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cryptography import x509
from sqlalchemy import insert, select
from tests.services.ca.world import ALICE, DEVICE_PROFILE, YEAR, csr

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.x509.names import Subject
from lamassu.platform.database import Database, DatabaseSettings, Dialect, RecordWriter
from lamassu.platform.worker import WorkerProcess
from lamassu.services.ca.contract import IssuanceProfile, IssueRequest, SubjectRules, Validity
from lamassu.services.ca.model import CaRequest, KeyRequest
from lamassu.services.ca.storage import CaStorage
from lamassu.services.ca.storage.tables import certificates
from lamassu.services.ca.usecases import CaService
from lamassu.services.ca.usecases.replay_enrolments import replay
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService

SAN = x509.SubjectAlternativeName([x509.DNSName("d.devices.example")])
BATCH = 2000


async def service(folder: Path, worker: WorkerProcess) -> tuple[CaService, Database]:
    """A CA with a root, in a database of its own."""
    database = await Database.open(
        DatabaseSettings(Dialect.SQLITE, path=folder / "bench.db"),
        services=["ca", "kms"],
        writer=RecordWriter(b"k" * 32),
        clock=SystemClock(),
    )
    engine = SoftwareEngine.open("software", folder / "keys", b"a passphrase that is long enough")
    kms = KmsService(
        engines=[engine],
        default_engine_id="software",
        storage=KmsStorage(database),
        clock=SystemClock(),
    )
    ca = CaService(
        storage=CaStorage(database),
        keys=kms,
        clock=SystemClock(),
        validation_urls=["http://pki.example:8080"],
        replay_worker=partial(worker.run, replay),
    )
    await ca.create_profile(DEVICE_PROFILE, caller=ALICE)
    request = CaRequest(
        id="issuing",
        subject=Subject(common_name="Issuing"),
        key=KeyRequest("ECDSA", 256),
        validity=Validity(duration=YEAR * 10),
        profile_id="device",
    )
    await ca.create_ca(request, caller=ALICE)
    return ca, database


async def fill(ca: CaService, database: Database, count: int) -> None:
    """Rows like the first one, with serial numbers, names and CSRs of their own."""
    first = await ca.issue(
        IssueRequest("issuing", csr("device-0", extensions=[SAN]), ALICE, profile_id="device")
    )
    async with database.reading("ca") as connection:
        query = select(certificates).where(
            certificates.c.serial_number == first.certificate.serial_number
        )
        row = dict((await connection.execute(query)).mappings().one())
    for start in range(1, count, BATCH):
        rows = [
            row
            | {
                "serial_number": f"{number:032x}",
                "common_name": f"device-{number}",
                "csr": csr(f"device-{number}", extensions=[SAN]),
            }
            for number in range(start, min(start + BATCH, count))
        ]
        async with database.unit("ca") as unit:
            await unit.connection.execute(insert(certificates), rows)


async def measured(ca: CaService, changed: IssuanceProfile) -> None:
    """Replay all of them, page by page as the command line asks."""
    examined = failures = differing = pages = 0
    longest, after = 0.0, ""
    began = time.monotonic()
    while True:
        asked = time.monotonic()
        page = await ca.what_if.replay("device", changed, after=after, limit=BATCH)
        longest = max(longest, time.monotonic() - asked)
        examined += page.replayed.examined
        failures += len(page.replayed.failures)
        differing += page.replayed.differing
        pages += 1
        after = page.after
        if not after:
            break
    took = time.monotonic() - began
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{examined} enrolments in {took:.1f} s ({examined / took:.0f}/s), {pages} pages,")
    print(f"the longest page {longest:.2f} s; {failures} would fail, {differing} would differ;")
    print(f"this process reached {own} MiB, with the rows that it filled in")


async def main(count: int) -> None:
    worker = WorkerProcess()
    with tempfile.TemporaryDirectory() as folder:
        ca, database = await service(Path(folder), worker)
        try:
            await fill(ca, database, count)
            changed = replace(
                DEVICE_PROFILE,
                validity=Validity(duration=timedelta(days=90)),
                subject_rules=SubjectRules(patterns=Subject(common_name="device-[0-9]{1,4}")),
            )
            await measured(ca, changed)
        finally:
            worker.close()
            await database.close()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--enrolments", type=int, default=100_000)
    asyncio.run(main(options.parse_args().enrolments))
