"""Write down, batch by batch, that a CA ended what it had issued; then tell of each certificate.

Relying parties learned of a revocation with its commit: only rows are left to do. They are
marked many at a time, as fast as others are not kept waiting. Whoever follows single certificates
(devices, alerts, the original's consumers) is then told of each, at a pace that they can keep.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lamassu.kernel.clock import Clock
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.ca.contract import CertificateStatus
from lamassu.services.ca.model import CascadeJob, JobKind, JobPlace, JobStatus
from lamassu.services.ca.ports import CaStore, CaTransaction
from lamassu.services.ca.usecases.change_status import Publication, record_certificate

Pause = Callable[[float], Awaitable[None]]
"""Waits for so many seconds."""

FIRST_BATCH = 500
LEAST_BATCH, LARGEST_BATCH = 100, 10_000
LONGEST_BATCH = 0.3
"""Seconds that a batch may take before the next one is smaller: others wait for no more
(SQLite has one writer in all)."""
REST = 0.1
"""Of a batch's time: how long others have the database to themselves before the next one."""
ANNOUNCED = 100
ANNOUNCING_PAUSE = 0.5
"""Certificates told of at once, and the seconds until the next: 200 a second, which consumers
of events keep up with."""
_MOST_QUERIES = 64
_STEPS = (CertificateStatus.ACTIVE, CertificateStatus.INACTIVE, CertificateStatus.REVOKED)


@dataclass(slots=True)
class _Pace:
    """How many rows a batch has, by how long the last one took."""

    rows: int

    def learn(self, seconds: float) -> None:
        if seconds > LONGEST_BATCH:
            self.rows = max(LEAST_BATCH, self.rows // 2)
        elif seconds < LONGEST_BATCH / 2:
            self.rows = min(LARGEST_BATCH, self.rows * 2)


class CascadeRunner:
    """Safe in several processes: a job is locked while a batch of it is written."""

    def __init__(
        self,
        *,
        store: CaStore,
        clock: Clock,
        publication: Publication,
        pause: Pause = asyncio.sleep,
        measure: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._clock = clock
        self._publication = publication
        self._pause = pause
        self._measure = measure
        self._pace = _Pace(FIRST_BATCH)

    async def run(self) -> int:
        """Work until no job is left that nobody else works on; how many certificates it wrote.

        A job that was begun later is marked before an earlier one goes on telling.
        """
        total = 0
        while True:
            began = self._measure()
            before, after = await self._batch()
            if before is None or after is None:
                return total
            total += after.done - before.done
            took = self._measure() - began
            if before.total is None:
                continue  # it was only counted
            if before.status is JobStatus.ANNOUNCING or before.kind is JobKind.DELETE:
                if after.status is not JobStatus.DONE:
                    await self._pause(ANNOUNCING_PAUSE)
                continue
            self._pace.learn(took)
            if after.status is JobStatus.RUNNING:
                await self._pause(took * REST)
            else:
                await self._publish(after)

    async def _batch(self) -> tuple[CascadeJob | None, CascadeJob | None]:
        """One transaction of one job: the job before and after it."""
        now = self._clock.now()
        async with self._store.unit() as transaction:
            job = await transaction.lock_pending_job()
            if job is None:
                return None, None
            if job.total is None:
                counted = await transaction.count_for_job(job, now=now)
                after = replace(job, total=counted, status=JobStatus.RUNNING, place=JobPlace())
            elif job.status is JobStatus.ANNOUNCING:
                after = await _announce(transaction, job, now)
            elif job.kind is JobKind.DELETE:
                after = await _delete(transaction, job, now)
            else:
                after = await _mark(transaction, job, now, min(self._pace.rows, LARGEST_BATCH))
            await transaction.save_job(after)
        return job, after

    async def _publish(self, job: CascadeJob) -> None:
        """Have the CRLs made that list what was revoked; of a CA that is deleted there is none."""
        for ca_id in job.ca_ids:
            if await self._store.find_ca(ca_id) is not None:
                await self._publication.revocation_changed(ca_id, wait=timedelta(0))


async def _mark(
    transaction: CaTransaction, job: CascadeJob, now: datetime, limit: int
) -> CascadeJob:
    """Go on marking. It ends when a whole pass over all CAs finds nothing any more: what others
    changed behind the place where the last pass was is found by the next."""
    place = job.place or JobPlace()
    marked = 0
    for _ in range(_MOST_QUERIES):
        if place.ca >= len(job.ca_ids):
            if not place.found:
                return replace(
                    job,
                    status=JobStatus.ANNOUNCING,
                    place=JobPlace(),
                    done=job.done + marked,
                    total=max(job.total or 0, job.done + marked),
                )
            place = JobPlace()
        ca_id, status = job.ca_ids[place.ca], _STEPS[place.step]
        found = await transaction.mark_revoked(
            job, ca_id, status, after=place.after, now=now, limit=limit - marked
        )
        if found:
            marked += len(found)
            place = replace(place, after=max(found), found=place.found + len(found))
            _record_batch(transaction, job, "ca.cascade", ca_id, found)
        else:
            following = place.step + 1
            step, ca = (0, place.ca + 1) if following == len(_STEPS) else (following, place.ca)
            place = JobPlace(ca, step, "", place.found)
        if marked >= limit:
            break
    return replace(job, place=place, done=job.done + marked)


async def _announce(transaction: CaTransaction, job: CascadeJob, now: datetime) -> CascadeJob:
    """Tell of some certificates more, as if each had been revoked by itself."""
    place, told = job.place or JobPlace(), 0
    for _ in range(_MOST_QUERIES):
        if place.ca >= len(job.ca_ids):
            await transaction.forget_exceptions(job.id)
            return replace(
                job,
                status=JobStatus.DONE,
                done_at=now,
                place=None,
                announced=job.announced + told,
            )
        if told >= ANNOUNCED:
            break
        found = await transaction.revoked_by_job(
            job, job.ca_ids[place.ca], after=place.after, limit=ANNOUNCED - told
        )
        for was, certificate in found:
            previous = replace(
                certificate,
                stored_status=was.status,
                revocation_time=was.revocation_time,
                revocation_reason=was.revocation_reason,
            )
            record_certificate(transaction, previous, certificate, caller=job.caller, now=now)
        told += len(found)
        place = (
            replace(place, after=found[-1][1].serial_number) if found else JobPlace(place.ca + 1)
        )
    return replace(job, place=place, announced=job.announced + told)


async def _delete(transaction: CaTransaction, job: CascadeJob, now: datetime) -> CascadeJob:
    """Remove some certificates more, and tell of each."""
    place, gone = job.place or JobPlace(), 0
    for _ in range(_MOST_QUERIES):
        if place.ca >= len(job.ca_ids):
            done = job.done + gone
            return replace(
                job,
                status=JobStatus.DONE,
                done_at=now,
                place=None,
                done=done,
                total=max(job.total or 0, done),
                announced=done,
            )
        if gone >= ANNOUNCED:
            break
        ca_id = job.ca_ids[place.ca]
        removed = await transaction.delete_issued(ca_id, limit=ANNOUNCED - gone)
        if not removed:
            place = JobPlace(place.ca + 1)
            continue
        for serial_number, version in removed:
            data = {"SerialNumber": serial_number}
            subject = f"certificate/{serial_number}"
            transaction.emit(Event("certificate.delete", subject, version + 1, data, job.caller))
        _record_batch(transaction, job, "ca.delete.certificates", ca_id, [s for s, _ in removed])
        gone += len(removed)
    done = job.done + gone
    return replace(job, place=place, done=done, announced=done)


def _record_batch(
    transaction: CaTransaction, job: CascadeJob, action: str, ca_id: str, serials: Sequence[str]
) -> None:
    """One record for many certificates; each has its event, in the same journal."""
    transaction.audit(
        AuditRecord(
            action,
            f"ca/{ca_id}",
            job.caller,
            detail={
                "job_id": job.id,
                "certificates": len(serials),
                "first": min(serials),
                "last": max(serials),
            },
        )
    )
