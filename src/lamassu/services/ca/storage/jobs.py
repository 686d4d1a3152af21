"""What jobs do to a CA's certificates, many rows a statement and in order of serial numbers.

Each statement walks the index on issuer, status and serial number from where the last one
ended, so that a million rows cost no more each than a thousand.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from lamassu.platform.database import ServiceUnit
from lamassu.services.ca.contract import Certificate, CertificateStatus, RevocationReason
from lamassu.services.ca.model import CascadeJob, JobKind, JobStatus, WasBefore
from lamassu.services.ca.rules.status import CASCADE_REASON
from lamassu.services.ca.storage.rows import (
    CERTIFICATE_COLUMNS,
    certificate_of,
    changeable_of_job,
    job_of,
    values_of_job,
)
from lamassu.services.ca.storage.tables import certificates, job_exceptions, jobs

_REVOKED = CertificateStatus.REVOKED.value
_HELD = and_(
    certificates.c.status == _REVOKED,
    certificates.c.revocation_reason == RevocationReason.CERTIFICATE_HOLD.value,
)


def _revocable(now: datetime) -> ColumnElement[bool]:
    return and_(
        certificates.c.is_ca.is_(False),
        certificates.c.not_after >= now,
        or_(certificates.c.status != _REVOKED, _HELD),
    )


class JobRows(ServiceUnit):
    """The part of the `CaTransaction` port that jobs need."""

    async def insert_job(self, job: CascadeJob) -> None:
        await self._connection.execute(insert(jobs).values(values_of_job(job)))

    async def lock_pending_job(self) -> CascadeJob | None:
        announcing = jobs.c.status == JobStatus.ANNOUNCING.value
        query = (
            select(jobs)
            .where(jobs.c.status != JobStatus.DONE.value)
            .order_by(case((announcing, 1), else_=0), jobs.c.created_at, jobs.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        row = (await self._connection.execute(query)).first()
        return None if row is None else job_of(row)

    async def save_job(self, job: CascadeJob) -> None:
        await self._connection.execute(
            update(jobs).where(jobs.c.id == job.id).values(changeable_of_job(job))
        )

    async def count_for_job(self, job: CascadeJob, *, now: datetime) -> int:
        query = select(func.count()).where(certificates.c.issuer_ca_id.in_(job.ca_ids))
        if job.kind is JobKind.REVOKE:
            query = query.where(_revocable(now))
        return int((await self._connection.execute(query)).scalar_one())

    async def mark_revoked(
        self,
        job: CascadeJob,
        ca_id: str,
        status: CertificateStatus,
        *,
        after: str,
        now: datetime,
        limit: int,
    ) -> Sequence[str]:
        wanted = and_(
            certificates.c.issuer_ca_id == ca_id,
            certificates.c.status == status.value,
            certificates.c.serial_number > after,
            _revocable(now),
        )
        chosen = (
            select(certificates.c.serial_number)
            .where(wanted)
            .order_by(certificates.c.serial_number)
            .limit(limit)
        )
        if status is CertificateStatus.ACTIVE:
            # up to the last one chosen: locking rows first would write each of them twice
            last = select(func.max(chosen.subquery().c.serial_number)).scalar_subquery()
            here = and_(wanted, certificates.c.serial_number <= last)
        else:
            found = list((await self._connection.execute(chosen.with_for_update())).scalars())
            if not found:
                return found
            await self._keep_exceptions(job.id, found)
            here = certificates.c.serial_number.in_(found)
        marking = (
            update(certificates)
            .where(here)
            .values(
                status=_REVOKED,
                revocation_time=job.revoked_at,
                revocation_reason=CASCADE_REASON.value,
                alert_at=None,
                version=certificates.c.version + 1,
            )
            .returning(certificates.c.serial_number)
        )
        return list((await self._connection.execute(marking)).scalars())

    async def _keep_exceptions(self, job_id: str, serial_numbers: Sequence[str]) -> None:
        before: Select[Any] = select(
            literal(job_id),
            certificates.c.serial_number,
            certificates.c.status,
            certificates.c.revocation_time,
            certificates.c.revocation_reason,
        ).where(certificates.c.serial_number.in_(serial_numbers))
        columns = [column.name for column in job_exceptions.c]
        await self._connection.execute(insert(job_exceptions).from_select(columns, before))

    async def revoked_by_job(
        self, job: CascadeJob, ca_id: str, *, after: str, limit: int
    ) -> Sequence[tuple[WasBefore, Certificate]]:
        exception = and_(
            job_exceptions.c.job_id == job.id,
            job_exceptions.c.serial_number == certificates.c.serial_number,
        )
        query: Select[Any] = (
            select(
                *CERTIFICATE_COLUMNS,
                job_exceptions.c.status.label("was_status"),
                job_exceptions.c.revocation_time.label("was_revocation_time"),
                job_exceptions.c.revocation_reason.label("was_revocation_reason"),
            )
            .join_from(certificates, job_exceptions, exception, isouter=True)
            .where(
                certificates.c.issuer_ca_id == ca_id,
                certificates.c.status == _REVOKED,
                certificates.c.serial_number > after,
                certificates.c.revocation_time == job.revoked_at,
                certificates.c.revocation_reason == CASCADE_REASON.value,
                certificates.c.is_ca.is_(False),
            )
            .order_by(certificates.c.serial_number)
            .limit(limit)
        )
        return [
            (
                WasBefore(
                    CertificateStatus(row.was_status or CertificateStatus.ACTIVE),
                    row.was_revocation_time,
                    RevocationReason(row.was_revocation_reason or RevocationReason.UNSPECIFIED),
                ),
                certificate_of(row),
            )
            for row in await self._connection.execute(query)
        ]

    async def forget_exceptions(self, job_id: str) -> None:
        await self._connection.execute(
            delete(job_exceptions).where(job_exceptions.c.job_id == job_id)
        )

    async def delete_issued(self, ca_id: str, *, limit: int) -> Sequence[tuple[str, int]]:
        chosen = (
            select(certificates.c.serial_number)
            .where(certificates.c.issuer_ca_id == ca_id)
            .order_by(certificates.c.serial_number)
            .limit(limit)
            .with_for_update()
        )
        removing = (
            delete(certificates)
            .where(certificates.c.serial_number.in_(chosen.scalar_subquery()))
            .returning(certificates.c.serial_number, certificates.c.version)
        )
        rows = await self._connection.execute(removing)
        return [(row.serial_number, row.version) for row in rows]
