"""Changes of CAs and certificates that leave their status alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.json_patch import Patch
from lamassu.services.ca.contract import (
    ApprovalPolicy,
    Certificate,
    CertificationAuthority,
    Demand,
    Operation,
    approval_policy_document,
    certificate_document,
)
from lamassu.services.ca.ports import CaStore, CaTransaction
from lamassu.services.ca.rules.metadata import patched
from lamassu.services.ca.rules.profile_findings import check_under, users_of
from lamassu.services.ca.rules.profiles import check_for_end_entities
from lamassu.services.ca.usecases.approvals import ApprovalDesk
from lamassu.services.ca.usecases.approvals.clearance import basis_of, policies_of
from lamassu.services.ca.usecases.documents import ca_document, update_document
from lamassu.services.ca.usecases.issuers import (
    ca_not_found,
    certificate_not_found,
    profile_not_found,
)
from lamassu.services.ca.usecases.trail import record


class Amendments:
    """Metadata, default profiles, and who has to agree."""

    def __init__(self, *, store: CaStore, clock: Clock, desk: ApprovalDesk) -> None:
        self._store = store
        self._clock = clock
        self._desk = desk

    async def patch_ca_metadata(
        self, ca_id: str, patches: Sequence[Patch], *, caller: Caller
    ) -> CertificationAuthority:
        """Raises `NotFound`, `RuleViolation` for a patch that fails."""
        async with self._store.unit() as transaction:
            previous = await transaction.lock_ca(ca_id)
            if previous is None:
                raise ca_not_found()
            metadata = patched(previous.metadata, patches)
            updated = replace(previous, metadata=metadata, version=previous.version + 1)
            await self._save(transaction, "ca.metadata.update", previous, updated, caller)
        return updated

    async def change_profile(
        self, ca_id: str, profile_id: str, *, caller: Caller, demand: Demand | None = None
    ) -> CertificationAuthority:
        """Set the default profile of the CA in all its generations: whatever names one of them
        is issued under the newest. Raises `NotFound` for either, `RuleViolation`, `Forbidden`,
        `Conflict` (`ca_changed`), and as `Clearance.admit`."""
        if not profile_id:
            raise RuleViolation("struct validation error", code="missing_field", field="profile_id")
        clearance = await self._desk.clearance(demand)
        line = [one.id for one in await self._store.generations(ca_id)]
        authorities = await self._store.all_cas()
        async with self._store.unit() as transaction:
            locked = await _lock_line(transaction, line)
            profile = await transaction.share_profile(profile_id)
            if profile is None:
                raise profile_not_found()
            check_for_end_entities(profile, locked[0].first_generation)
            users = users_of(replace(profile, ca_id=ca_id), authorities, self._clock.now())
            check_under(
                profile,
                [user for user in users if user.authority.id in line],
                self._clock.now(),
            )
            await clearance.admit(
                transaction,
                Operation.CHANGE_PROFILE,
                policies_of(locked),
                basis=basis_of(profile),
            )
            after = {}
            for previous in locked:
                updated = replace(previous, profile_id=profile_id, version=previous.version + 1)
                await self._save(transaction, "ca.profile.update", previous, updated, caller)
                after[updated.id] = updated
        return after[ca_id]

    async def change_approvals(
        self,
        ca_id: str,
        policy: ApprovalPolicy | None,
        *,
        caller: Caller,
        demand: Demand | None = None,
    ) -> CertificationAuthority:
        """Set who has to agree, or nobody; by the rule that stands, those who had to until now
        (security rule 7). It holds for all generations of the CA: whatever names one of them is
        done under the newest. Raises `NotFound`, `RuleViolation`, `Conflict` (`ca_changed`), and
        as `Clearance.admit`."""
        if policy is not None:
            await self._desk.check_policy(policy)
        clearance = await self._desk.clearance(demand)
        line = [one.id for one in await self._store.generations(ca_id)]
        async with self._store.unit() as transaction:
            locked = await _lock_line(transaction, line)
            others = [one for one in locked if one.approvals != policy]
            if others:
                guarding = policies_of(locked)
                await clearance.admit(transaction, Operation.CHANGE_APPROVALS, guarding)
            after = {one.id: one for one in locked}
            for previous in others:
                updated = replace(previous, approvals=policy, version=previous.version + 1)
                await self._save(transaction, "ca.approvals.update", previous, updated, caller)
                after[updated.id] = updated
        return after[ca_id]

    async def patch_certificate_metadata(
        self, serial_number: str, patches: Sequence[Patch], *, caller: Caller
    ) -> Certificate:
        """Raises `NotFound`, `RuleViolation` for a patch that fails."""
        now = self._clock.now()
        async with self._store.unit() as transaction:
            locked = await transaction.lock_certificate(serial_number)
            if locked is None:
                raise certificate_not_found()
            previous = locked.certificate
            updated = replace(
                previous,
                metadata=patched(previous.metadata, patches),
                version=previous.version + 1,
            )
            await transaction.save_certificate(updated)
            record(
                transaction,
                "certificate.metadata.update",
                f"certificate/{serial_number}",
                version=updated.version,
                data=update_document(
                    certificate_document(previous, now), certificate_document(updated, now)
                ),
                caller=caller,
                detail={"patches": len(patches)},
            )
        return updated

    async def _save(
        self,
        transaction: CaTransaction,
        event_type: str,
        previous: CertificationAuthority,
        updated: CertificationAuthority,
        caller: Caller,
    ) -> None:
        now: datetime = self._clock.now()
        await transaction.save_ca(updated)
        record(
            transaction,
            event_type,
            f"ca/{updated.id}",
            version=updated.version,
            data=update_document(ca_document(previous, now), ca_document(updated, now)),
            caller=caller,
            detail={
                "profile_id": updated.profile_id,
                "approvals": approval_policy_document(updated.approvals)
                if updated.approvals
                else None,
            },
        )


async def _lock_line(
    transaction: CaTransaction, line: Sequence[str]
) -> Sequence[CertificationAuthority]:
    """All generations of a CA. Raises `NotFound`, `Conflict` (`ca_changed`) if there is one more
    by now."""
    locked = [one for id_ in line if (one := await transaction.lock_ca(id_)) is not None]
    if not locked:
        raise ca_not_found()
    if locked[-1].successor_id is not None:
        raise Conflict("the CA has just got a new key; try again", code="ca_changed")
    return locked
