"""Delete CAs that are over, and certificates whose CA is gone.

What relying parties learn of a deleted CA never turns good: OCSP answers for it no more
(`unauthorized`), its last CRL, which lists all that it ended, is served until its next update, and
the CRL of the CA above lists its certificate, whose row stays there, until that expires.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid4

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, Forbidden, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.ca.contract import CertificationAuthority, Demand, Operation
from lamassu.services.ca.model import CascadeJob, JobKind, JobStatus
from lamassu.services.ca.ports import CaStore, CaTransaction
from lamassu.services.ca.rules.lifecycle import (
    check_line,
    check_may_be_deleted,
    check_no_live_child,
)
from lamassu.services.ca.rules.status import revoked_for_good
from lamassu.services.ca.usecases.approvals import ApprovalDesk
from lamassu.services.ca.usecases.approvals.clearance import policies_of
from lamassu.services.ca.usecases.issuers import ca_not_found, certificate_not_found
from lamassu.services.ca.usecases.run_cascades import Pause
from lamassu.services.ca.usecases.trail import record
from lamassu.services.kms.contract import Binding, KeyPurpose, Keys

_PATIENCE = 40  # times that a cascade under way is waited for
_LOOK_AGAIN = 0.05  # seconds
_MOST_CAS = 1000


@dataclass(frozen=True, slots=True)
class CaDeletion:
    """What was deleted, and the job that deals with what these CAs issued, if there is one."""

    ca_ids: Sequence[str]
    job_id: str | None


class Deletions:
    """CAs with their keys, and single certificates."""

    def __init__(
        self,
        *,
        store: CaStore,
        keys: Keys,
        clock: Clock,
        desk: ApprovalDesk,
        allow_cascade: bool = False,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._desk = desk
        self._allow_cascade = allow_cascade
        self._pause = pause

    async def delete_ca(
        self, ca_id: str, *, cascade: bool, caller: Caller, demand: Demand | None = None
    ) -> CaDeletion:
        """Delete a CA that is revoked for good, expired, or whose key never was here; with
        `cascade` also all CAs below it and all certificates that they issued, by a job.

        Without, certificates stay, revoked if they were not. A CA above others that still work is
        not deleted either way. Its key goes with it, unless something else needs it. Raises
        `NotFound`, `Forbidden` (no cascades by configuration), `RuleViolation`
        (`CA Status inconsistent`), `Conflict` (`ca_has_successor`, `ca_has_predecessor`,
        `cascade_running`), and as `Clearance.admit`.
        """
        if cascade and not self._allow_cascade:
            raise Forbidden(
                "cascade delete operations are not allowed by configuration",
                code="cascade_not_allowed",
                field="cascade_delete",
            )
        now = self._clock.now()
        known = await self._store.find_ca(ca_id)
        if known is None:
            raise ca_not_found()
        check_may_be_deleted(known, now)
        await self._settle(ca_id, whole=cascade)
        clearance = await self._desk.clearance(demand)
        async with self._store.unit() as transaction:
            # parents before children, as every transaction that locks both
            if known.parent_id is not None:
                await transaction.lock_ca(known.parent_id)
            top = await transaction.lock_ca(ca_id)
            if top is None:
                raise ca_not_found()
            check_may_be_deleted(top, now)
            going = [top]
            children = await transaction.lock_children([ca_id])
            check_no_live_child(children, now)
            if cascade:
                going += await _all_below(transaction, children, now)
            await _check_lines(transaction, going, now)
            await clearance.admit(transaction, Operation.DELETE, policies_of(going))
            job = _job_for(going, cascade=cascade, caller=caller, now=now)
            if job is not None:
                await transaction.insert_job(job)
            await transaction.delete_cas([one.id for one in going])
            for one in going:
                _record(transaction, one, cascade=cascade, caller=caller)
        for one in going:
            with suppress(Unavailable):  # the event of the deletion has it tried again
                await self.release_key(one.key_id, caller=caller)
        return CaDeletion([one.id for one in going], job.id if job else None)

    async def release_key(self, key_id: str, *, caller: Caller) -> None:
        """Remove the key of a CA that is gone, unless another CA or certificate needs it.

        Idempotent. Raises `Unavailable`.
        """
        if not key_id or await self._store.has_key(key_id):
            return
        key = await self._keys.find(key_id)
        if key is None or key.purpose is not KeyPurpose.CA:
            return
        bound = [one for one in key.bindings if one.resource_type == "certificate"]
        found = await self._store.find_certificates([one.resource_id for one in bound])
        for binding in bound:
            certificate = found.get(binding.resource_id)
            if certificate is None or certificate.is_ca:
                await self._keys.unbind(key_id, binding, caller=caller)
        with suppress(Conflict):  # something else needs it
            await self._keys.discard(key_id, purpose=KeyPurpose.CA, caller=caller)

    async def delete_certificate(self, serial_number: str, *, caller: Caller) -> None:
        """Delete a certificate whose issuer is no CA here any more.

        Raises `NotFound`, and `RuleViolation` (`issuer_exists`, `certificate_of_ca`).
        """
        async with self._store.unit() as transaction:
            locked = await transaction.lock_certificate(serial_number)
            if locked is None:
                raise certificate_not_found()
            certificate = locked.certificate
            if await transaction.lock_ca(certificate.issuer_ca_id) is not None:
                raise RuleViolation(
                    "cannot delete certificate: issuer CA still exists", code="issuer_exists"
                )
            holder = await transaction.ca_id_of_certificate(serial_number)
            if holder is not None:
                raise RuleViolation(
                    f"cannot delete certificate: it is the CA {holder}'s; delete that CA",
                    code="certificate_of_ca",
                )
            await transaction.delete_certificate(serial_number, ca_id=certificate.issuer_ca_id)
            record(
                transaction,
                "certificate.delete",
                f"certificate/{serial_number}",
                version=certificate.version + 1,
                data={"SerialNumber": serial_number},
                caller=caller,
                detail={"ca_id": certificate.issuer_ca_id},
            )
        key_id = key_id_of(certificate_facts(certificate.der).spki)
        with suppress(Unavailable):
            await self._keys.unbind(key_id, Binding("certificate", serial_number), caller=caller)

    async def _settle(self, ca_id: str, *, whole: bool) -> None:
        """Wait a little for a cascade: once the key is gone no CRL lists what it still marks.
        `whole`: also until all were told of, which goes with the rows."""
        over = (JobStatus.DONE,) if whole else (JobStatus.DONE, JobStatus.ANNOUNCING)
        for _ in range(_PATIENCE):
            waiting = [
                job
                for job in await self._store.unfinished_jobs()
                if ca_id in job.ca_ids and job.status not in over
            ]
            if not waiting:
                return
            await self._pause(_LOOK_AGAIN)
        raise Conflict(
            f"its revocation is still being written down, by job {waiting[0].id}; try again when"
            " that has ended",
            code="cascade_running",
            retry_after=30,
        )


async def _all_below(
    transaction: CaTransaction, children: Sequence[CertificationAuthority], now: datetime
) -> list[CertificationAuthority]:
    """All CAs below, level by level. Raises `RuleViolation` for one that still works."""
    found: list[CertificationAuthority] = []
    level = children
    while level:
        check_no_live_child(level, now)
        found += level
        if len(found) > _MOST_CAS:
            raise RuleViolation(
                f"over {_MOST_CAS} CAs stand below it; delete those first",
                code="hierarchy_too_large",
            )
        level = await transaction.lock_children([one.id for one in level])
    return found


async def _check_lines(
    transaction: CaTransaction, going: Sequence[CertificationAuthority], now: datetime
) -> None:
    """Judge the generations that stay, and end a line at the one before."""
    ids = {one.id for one in going}
    for one in going:
        successor = predecessor = None
        if one.successor_id is not None and one.successor_id not in ids:
            successor = await transaction.lock_ca(one.successor_id)
        if one.lineage_id is not None:
            before = await transaction.predecessor_of(one.id)
            if before is not None and before not in ids:
                predecessor = await transaction.lock_ca(before)
        check_line(one, successor=successor, predecessor=predecessor, now=now)
        if predecessor is not None:
            await transaction.save_ca(
                replace(predecessor, successor_id=None, version=predecessor.version + 1)
            )


def _job_for(
    going: Sequence[CertificationAuthority], *, cascade: bool, caller: Caller, now: datetime
) -> CascadeJob | None:
    """Delete what they issued; or revoke it, where no revocation has done so before."""
    top = going[0]
    if not cascade and revoked_for_good(top.certificate):
        return None
    return CascadeJob(
        id=str(uuid4()),
        ca_ids=[one.id for one in going],
        revoked_at=now,
        caller=caller,
        created_at=now,
        kind=JobKind.DELETE if cascade else JobKind.REVOKE,
    )


def _record(
    transaction: CaTransaction,
    authority: CertificationAuthority,
    *,
    cascade: bool,
    caller: Caller,
) -> None:
    record(
        transaction,
        "ca.delete",
        f"ca/{authority.id}",
        version=authority.version + 1,
        data={"CAID": authority.id, "CascadeDelete": cascade, "KeyID": authority.key_id},
        caller=caller,
        detail={
            "serial_number": authority.certificate.serial_number,
            "key_id": authority.key_id,
            "cascade": cascade,
        },
    )
