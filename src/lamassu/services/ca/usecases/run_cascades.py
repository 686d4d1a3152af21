"""Write down, batch by batch, that a revoked CA ended what it had issued."""

from __future__ import annotations

from datetime import timedelta

from lamassu.kernel.clock import Clock
from lamassu.services.ca.contract import CertificateStatus
from lamassu.services.ca.model import CascadeJob, StatusChange
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.status import CASCADE_REASON, changed
from lamassu.services.ca.usecases.change_status import Publication, record_certificate

# Small enough that the CA's other writers hardly notice (SQLite has one writer in all).
BATCH = 200


class CascadeRunner:
    """Relying parties learned of the revocation with its commit; only rows are left to do."""

    def __init__(self, *, store: CaStore, clock: Clock, publication: Publication) -> None:
        self._store = store
        self._clock = clock
        self._publication = publication

    async def run(self) -> int:
        """Work until no cascade is pending that nobody else works on; certificates revoked."""
        total = 0
        while True:
            job, done = await self._batch()
            if job is None:
                return total
            total += done
            if done < BATCH:
                for ca_id in job.ca_ids:
                    await self._publication.revocation_changed(ca_id, wait=timedelta(0))

    async def _batch(self) -> tuple[CascadeJob | None, int]:
        now = self._clock.now()
        async with self._store.unit() as transaction:
            job = await transaction.lock_pending_job()
            if job is None:
                return None, 0
            certificates = await transaction.lock_unrevoked(job.ca_ids, now=now, limit=BATCH)
            change = StatusChange(CertificateStatus.REVOKED, CASCADE_REASON)
            for certificate in certificates:
                updated = changed(certificate, change, job.revoked_at)
                await transaction.save_certificate(updated)
                record_certificate(transaction, certificate, updated, caller=job.caller, now=now)
            if len(certificates) < BATCH:
                await transaction.finish_job(job.id, now)
        return job, len(certificates)
