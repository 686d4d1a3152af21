"""Revoke, hold, release and deactivate: certificates, and CAs with all below them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol
from uuid import uuid4

from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import (
    ApprovalPolicy,
    Certificate,
    CertificateStatus,
    CertificationAuthority,
    Demand,
    Operation,
    RevocationReason,
    certificate_document,
)
from lamassu.services.ca.model import (
    NO_CA,
    CaRevocation,
    CascadeJob,
    CertificateRevocation,
    LockedCertificate,
    StatusChange,
)
from lamassu.services.ca.ports import CaStore, CaTransaction
from lamassu.services.ca.rules.status import (
    CASCADE_REASON,
    changed,
    changes_nothing,
    check_may_be_released,
    check_reason,
    check_transition,
    on_hold,
    revoked_for_good,
)
from lamassu.services.ca.usecases.approvals import ApprovalDesk
from lamassu.services.ca.usecases.approvals.clearance import policies_of
from lamassu.services.ca.usecases.documents import ca_document, update_document
from lamassu.services.ca.usecases.issuers import ca_not_found, certificate_not_found
from lamassu.services.ca.usecases.trail import record

# How long a revoking call waits for OCSP and CRL to show it (decision 21).
PATIENCE = timedelta(seconds=2)


class Publication(Protocol):
    """Tells relying parties; the facade gives the VA, or says that nobody is there."""

    async def revocation_changed(self, ca_id: str, *, wait: timedelta) -> bool: ...


class StatusChanges:
    """Changes of status, each one transaction, and then the word to the VA."""

    def __init__(
        self, *, store: CaStore, clock: Clock, desk: ApprovalDesk, publication: Publication
    ) -> None:
        self._store = store
        self._clock = clock
        self._desk = desk
        self._publication = publication

    async def change_certificate(
        self,
        serial_number: str,
        change: StatusChange,
        *,
        caller: Caller,
        demand: Demand | None = None,
    ) -> CertificateRevocation:
        """Change a certificate's status; a CA's own certificate takes the CA with it.

        Raises `NotFound`, `RuleViolation` (`status_transition`, `reason_not_allowed`), and as
        `change_ca`.
        """
        return await self._change(serial_number, change, caller=caller, strict=True, demand=demand)

    async def revoke(
        self, serial_number: str, reason: RevocationReason, *, caller: Caller
    ) -> CertificateRevocation:
        """See `Authorities.revoke`: an expired certificate is revoked all the same (security
        rule 23), and a final revocation stays as it is."""
        change = StatusChange(CertificateStatus.REVOKED, reason)
        check_reason(change)
        return await self._change(serial_number, change, caller=caller, strict=False)

    async def _change(
        self,
        serial_number: str,
        change: StatusChange,
        *,
        caller: Caller,
        strict: bool,
        demand: Demand | None = None,
    ) -> CertificateRevocation:
        now = self._clock.now()
        clearance = await self._desk.clearance(demand)
        async with self._store.unit() as transaction:
            ca_id = await transaction.ca_id_of_certificate(serial_number)
            if ca_id is None:
                locked = await transaction.lock_certificate(serial_number)
                if locked is None:
                    raise certificate_not_found()
                certificate = _change_locked(
                    transaction, locked, change, caller=caller, now=now, strict=strict
                )
                if certificate is not locked.certificate:
                    if certificate.is_ca:
                        guarding = await self._guarding(transaction, certificate)
                        await clearance.admit(transaction, Operation.CHANGE_STATUS, guarding)
                    await transaction.save_certificate(certificate)
        if ca_id is not None:
            return await self._change_own_certificate(ca_id, change, caller, strict, demand)
        return CertificateRevocation(certificate, await self._published({certificate.issuer_ca_id}))

    async def _guarding(
        self, transaction: CaTransaction, certificate: Certificate
    ) -> Mapping[str, ApprovalPolicy]:
        """Who guards a CA's certificate that is not its present one, such as one across to
        another generation: those of the CA that signed it and of the one whose key it carries."""
        holder = await self._store.find_ca_by_key_id(certificate.subject_key_id)
        concerned = {certificate.issuer_ca_id, *([holder.id] if holder else [])}
        return await transaction.policies(sorted(concerned))

    async def _change_own_certificate(
        self,
        ca_id: str,
        change: StatusChange,
        caller: Caller,
        strict: bool,
        demand: Demand | None,
    ) -> CertificateRevocation:
        if not strict:
            authority = await self._store.find_ca(ca_id)
            if authority is not None and revoked_for_good(authority.certificate):
                shown = await self._published({authority.certificate.issuer_ca_id})
                return CertificateRevocation(authority.certificate, shown)
        outcome = await self.change_ca(ca_id, change, caller=caller, demand=demand)
        return CertificateRevocation(outcome.authority.certificate, outcome.shown, outcome.job_id)

    async def change_ca(
        self, ca_id: str, change: StatusChange, *, caller: Caller, demand: Demand | None = None
    ) -> CaRevocation:
        """Change a CA's status; with a revocation all CAs below it are revoked in the same
        transaction, and what they issued by a job (security rule 24, decision 20).

        A hold marks the CAs below and is undone by the release; it leaves end-entity rows
        alone. What other generations vouch for these CAs' keys shares their fate: a stolen key
        is trusted by nobody who trusts its successor. The approvers of each CA that it changes
        have to agree. Raises `NotFound`, `RuleViolation` (`status_transition`, `issuer_revoked`),
        and as `Clearance.admit`.
        """
        now = self._clock.now()
        job: CascadeJob | None = None
        across: Sequence[Certificate] = ()
        known = await self._store.find_ca(ca_id)
        if known is None:
            raise ca_not_found()
        clearance = await self._desk.clearance(demand)
        async with self._store.unit() as transaction:
            # parents before children, as every transaction that locks both
            parent = await transaction.lock_ca(known.parent_id) if known.parent_id else None
            authority = await transaction.lock_ca(ca_id)
            if authority is None:
                raise ca_not_found()
            current = authority.certificate
            check_transition(current, change, now)
            touched = [authority]
            if not changes_nothing(current, change):
                if change.status is CertificateStatus.ACTIVE and on_hold(current):
                    check_may_be_released(parent)
                pairs = await _changed_tree(transaction, authority, change, now)
                guarding = policies_of([before for before, _ in pairs])
                await clearance.admit(transaction, Operation.CHANGE_STATUS, guarding)
                for before, after in pairs:
                    await transaction.save_ca(after)
                    _record_ca(transaction, before, after, caller=caller, now=now)
                touched = [after for _, after in pairs]
                across = await _changed_across(transaction, pairs, caller=caller, now=now)
                if _final(change):
                    job = CascadeJob(
                        id=str(uuid4()),
                        ca_ids=[member.id for member in touched],
                        revoked_at=now,
                        caller=caller,
                        created_at=now,
                    )
                    await transaction.insert_job(job)
        listed_by = _listed_by(touched) | {one.issuer_ca_id for one in across}
        shown = await self._published(listed_by)
        return CaRevocation(touched[0], job.id if job else None, shown)

    async def _published(self, ca_ids: set[str]) -> bool:
        """Whether all of these CAs' OCSP and CRL show their present rows."""
        asked = [
            self._publication.revocation_changed(ca_id, wait=PATIENCE)
            for ca_id in sorted(ca_ids - {NO_CA})
        ]
        return all(await asyncio.gather(*asked))


def _change_locked(
    transaction: CaTransaction,
    locked: LockedCertificate,
    change: StatusChange,
    *,
    caller: Caller,
    now: datetime,
    strict: bool,
) -> Certificate:
    """The certificate as it shall be; the same object if nothing is to change."""
    current = locked.certificate
    if not strict and revoked_for_good(current):
        return current
    if strict:
        check_transition(current, change, now)
    if changes_nothing(current, change):
        return current
    updated = changed(current, change, now)
    record_certificate(transaction, current, updated, caller=caller, now=now)
    return updated


def record_certificate(
    transaction: CaTransaction,
    previous: Certificate,
    updated: Certificate,
    *,
    caller: Caller,
    now: datetime,
) -> None:
    """Event and audit record of a certificate's change of status."""
    record(
        transaction,
        "certificate.status.update",
        f"certificate/{updated.serial_number}",
        version=updated.version,
        data=update_document(
            certificate_document(previous, now), certificate_document(updated, now)
        ),
        caller=caller,
        detail={
            "ca_id": updated.issuer_ca_id,
            "status": updated.stored_status.value,
            "revocation_reason": updated.revocation_reason.value,
        },
    )


async def _changed_tree(
    transaction: CaTransaction,
    top: CertificationAuthority,
    change: StatusChange,
    now: datetime,
) -> list[tuple[CertificationAuthority, CertificationAuthority]]:
    """A CA and, where that follows, those below it, before and after; `top` first."""
    revoking = change.status is CertificateStatus.REVOKED
    releasing = change.status is CertificateStatus.ACTIVE and on_hold(top.certificate)
    pairs = [(top, _changed_ca(top, change, now, revoked_by=top.id if revoking else None))]
    if revoking or releasing:
        for member in await _descendants(transaction, top):
            after = _after_change_above(member, top, change, now)
            if after is not member:
                pairs.append((member, after))
    return pairs


def _after_change_above(
    member: CertificationAuthority,
    top: CertificationAuthority,
    change: StatusChange,
    now: datetime,
) -> CertificationAuthority:
    """What becomes of a CA when one above it changes; itself if nothing does."""
    if change.status is CertificateStatus.ACTIVE:
        # only what this hold brought about ends with it
        return _changed_ca(member, change, now) if member.revoked_by == top.id else member
    if not _final(change):
        if member.revoked_by is not None:
            return member
        return _changed_ca(member, change, now, revoked_by=top.id)
    if revoked_for_good(member.certificate):
        return member
    ended = StatusChange(CertificateStatus.REVOKED, CASCADE_REASON)
    return _changed_ca(member, ended, now, revoked_by=top.id)


async def _changed_across(
    transaction: CaTransaction,
    pairs: Sequence[tuple[CertificationAuthority, CertificationAuthority]],
    *,
    caller: Caller,
    now: datetime,
) -> list[Certificate]:
    """Revoke, hold and release the certificates across to these CAs' keys with the CAs. A
    release releases what was held with its CA, at the same instant."""
    by_key = {before.certificate.subject_key_id: (before, after) for before, after in pairs}
    changes: list[Certificate] = []
    for current in await transaction.lock_across(list(by_key)):
        before, after = (one.certificate for one in by_key[current.subject_key_id])
        change = StatusChange(after.stored_status, after.revocation_reason)
        held_alone = on_hold(current) and (
            not on_hold(before) or current.revocation_time != before.revocation_time
        )
        if (
            revoked_for_good(current)
            or change.status is CertificateStatus.INACTIVE
            or changes_nothing(current, change)
            or (held_alone and not _final(change))
        ):
            continue
        updated = changed(current, change, now)
        await transaction.save_certificate(updated)
        record_certificate(transaction, current, updated, caller=caller, now=now)
        changes.append(updated)
    return changes


def _final(change: StatusChange) -> bool:
    return (
        change.status is CertificateStatus.REVOKED
        and change.reason is not RevocationReason.CERTIFICATE_HOLD
    )


async def _descendants(
    transaction: CaTransaction, top: CertificationAuthority
) -> list[CertificationAuthority]:
    """All CAs below, level by level: each level is read after the one above is locked, so
    that no CA can be made under one that this transaction has passed."""
    found: list[CertificationAuthority] = []
    level: Sequence[CertificationAuthority] = [top]
    while level:
        level = await transaction.lock_children([member.id for member in level])
        found.extend(level)
    return found


def _changed_ca(
    authority: CertificationAuthority,
    change: StatusChange,
    now: datetime,
    *,
    revoked_by: str | None = None,
) -> CertificationAuthority:
    return replace(
        authority,
        certificate=changed(authority.certificate, change, now),
        revoked_by=revoked_by,
        version=authority.version + 1,
    )


def _record_ca(
    transaction: CaTransaction,
    previous: CertificationAuthority,
    updated: CertificationAuthority,
    *,
    caller: Caller,
    now: datetime,
) -> None:
    record(
        transaction,
        "ca.status.update",
        f"ca/{updated.id}",
        version=updated.version,
        data=update_document(ca_document(previous, now), ca_document(updated, now)),
        caller=caller,
        detail={
            "status": updated.certificate.stored_status.value,
            "revocation_reason": updated.certificate.revocation_reason.value,
            "revoked_by": updated.revoked_by,
        },
    )


def _listed_by(authorities: Iterable[CertificationAuthority]) -> set[str]:
    """The CAs whose CRL lists one of these certificates (a root's own lists itself)."""
    return {authority.certificate.issuer_ca_id for authority in authorities}
