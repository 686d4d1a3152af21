"""How long the certificates of a revoked CA take to be marked, and what others notice of it.

Fills a durable PostgreSQL of its own with copies of one certificate (each with a serial number of
its own), revokes their CA, runs the job that marks them, and prints the rate, how long the
revoking call took, and how long others waited meanwhile for a certificate under another CA. What
the job tells of each certificate afterwards goes at a fixed pace and is not part of the figure.

    .venv/bin/python bench/cascade.py --certificates 1000000
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import asyncpg
from tests.services.ca.world import ALICE, DEVICE_PROFILE, YEAR, csr
from tests.support.postgres import PostgresCluster

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.x509.names import Subject
from lamassu.platform.database import Database, DatabaseSettings, RecordWriter, migrate
from lamassu.services.ca.contract import CertificateStatus, IssueRequest, Validity
from lamassu.services.ca.model import CaRequest, JobStatus, KeyRequest, StatusChange
from lamassu.services.ca.storage import CaStorage
from lamassu.services.ca.usecases import CaService
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases import KmsService

SERVICES = ("ca", "kms")
SERVER = (
    "shared_buffers = '1GB'",
    "max_wal_size = '8GB'",
    "checkpoint_timeout = '15min'",
    "work_mem = '16MB'",
    "random_page_cost = 1.1",
)
BETWEEN_REQUESTS = 0.02  # seconds


async def make_ca(ca: CaService, name: str) -> None:
    await ca.create_ca(
        CaRequest(
            id=name,
            subject=Subject(common_name=name),
            key=KeyRequest("ECDSA", 256),
            validity=Validity(duration=5 * YEAR),
            profile_id="device",
        ),
        caller=ALICE,
    )


async def issue(ca: CaService, ca_id: str, name: str) -> str:
    request = IssueRequest(ca_id=ca_id, csr_der=csr(name), caller=ALICE)
    return (await ca.issue(request)).certificate.serial_number


async def fill(url: str, serial_number: str, certificates: int) -> None:
    """Copies of a row, made by the database."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SET search_path TO ca")
        names = [
            row["column_name"]
            for row in await connection.fetch(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_schema = 'ca' AND table_name = 'ca_certificates'"
                " ORDER BY ordinal_position"
            )
        ]
        values = ["md5(n::text)" if name == "serial_number" else name for name in names]
        await connection.execute(
            f"INSERT INTO ca_certificates ({', '.join(names)})"
            f" SELECT {', '.join(values)} FROM ca_certificates,"
            f" generate_series(1, {certificates}) n"
            f" WHERE serial_number = '{serial_number}'"
        )
        await connection.execute("ANALYZE ca_certificates")
    finally:
        await connection.close()


async def others(ca: CaService, waits: list[float]) -> None:
    """Somebody who wants a certificate of another CA, again and again."""
    number = 0
    while True:
        began = time.perf_counter()
        await issue(ca, "other", f"device-{number}")
        waits.append(time.perf_counter() - began)
        number += 1
        await asyncio.sleep(BETWEEN_REQUESTS)


def spread(waits: list[float]) -> str:
    ordered = sorted(waits)
    p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    return f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, longest {ordered[-1] * 1000:.0f} ms"


async def watched(ca: CaService, seconds: float) -> list[float]:
    waits: list[float] = []
    task = asyncio.create_task(others(ca, waits))
    await asyncio.sleep(seconds)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return waits


async def run(cluster: PostgresCluster, folder: Path, certificates: int) -> None:
    settings = DatabaseSettings.from_url(cluster.url())
    await migrate(settings, SERVICES)
    database = await Database.open(
        settings, services=SERVICES, writer=RecordWriter(b"k" * 32), clock=SystemClock()
    )
    engine = SoftwareEngine.open("software", folder / "keys", b"a passphrase for a bench")
    kms = KmsService(
        engines=[engine],
        default_engine_id="software",
        storage=KmsStorage(database),
        clock=SystemClock(),
    )
    ca = CaService(storage=CaStorage(database), keys=kms, clock=SystemClock())
    await ca.create_profile(DEVICE_PROFILE, caller=ALICE)
    for name in ("big", "other"):
        await make_ca(ca, name)
    began = time.perf_counter()
    await fill(cluster.url(), await issue(ca, "big", "template"), certificates)
    print(f"{certificates:,} certificates stored in {time.perf_counter() - began:.0f} s")
    print(f"a certificate of another CA before: {spread(await watched(ca, 5))}")

    began = time.perf_counter()
    change = StatusChange(CertificateStatus.REVOKED)
    outcome = await ca.change_ca_status("big", change, caller=ALICE)
    print(f"the revoking call: {(time.perf_counter() - began) * 1000:.0f} ms")
    assert outcome.job_id is not None
    waits: list[float] = []
    crowd = asyncio.create_task(others(ca, waits))
    job = asyncio.create_task(ca.run_jobs())
    began = time.perf_counter()
    while True:
        await asyncio.sleep(1)
        found = await ca.find_job(outcome.job_id)
        assert found is not None
        if found.status in (JobStatus.ANNOUNCING, JobStatus.DONE):
            break
        if job.done():
            job.result()
    took = time.perf_counter() - began
    print(f"{found.done:,} of {found.total:,} marked in {took:.0f} s: {found.done / took:,.0f}/s")
    print(f"a certificate of another CA meanwhile: {spread(waits)} ({len(waits)} of them)")
    for task in (crowd, job):
        task.cancel()
    await asyncio.gather(crowd, job, return_exceptions=True)
    await kms.close()
    await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--certificates", type=int, default=1_000_000)
    arguments = parser.parse_args()
    cluster = PostgresCluster(durable=True, options=SERVER)
    try:
        cluster.create()
        cluster.start()
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(run(cluster, Path(folder), arguments.certificates))
    finally:
        cluster.remove()


if __name__ == "__main__":
    main()
