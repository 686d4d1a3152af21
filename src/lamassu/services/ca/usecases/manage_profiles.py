"""Issuance profiles: create, replace, delete."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from uuid import uuid4

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict
from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import (
    Demand,
    IssuanceProfile,
    Operation,
    profile_document,
)
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.approvals import weakened
from lamassu.services.ca.rules.profile_findings import (
    Finding,
    check_under,
    findings_of,
    users_of,
)
from lamassu.services.ca.rules.profiles import check_id, check_profile, keeping
from lamassu.services.ca.usecases.approvals import ApprovalDesk
from lamassu.services.ca.usecases.approvals.clearance import basis_of
from lamassu.services.ca.usecases.documents import update_document
from lamassu.services.ca.usecases.issuers import profile_not_found
from lamassu.services.ca.usecases.lint import lint_profile
from lamassu.services.ca.usecases.trail import record


class ProfileManagement:
    """Writes of profiles; every change counts the profile's version up."""

    def __init__(self, *, store: CaStore, clock: Clock, desk: ApprovalDesk) -> None:
        self._store = store
        self._clock = clock
        self._desk = desk

    async def create(self, profile: IssuanceProfile, *, caller: Caller) -> IssuanceProfile:
        """Store a profile, under its id or a new one. Raises `Conflict`, `RuleViolation`, also
        for one under which no CA that uses it could issue."""
        created = replace(profile, id=profile.id or str(uuid4()), version=1)
        check_id(created.id)
        now = self._clock.now()
        check_profile(created, now)
        check_under(created, users_of(created, await self._store.all_cas(), now), now)
        await lint_profile(created, now)
        async with self._store.unit() as transaction:
            try:
                await transaction.insert_profile(created)
            except Conflict:
                raise Conflict(
                    "issuance profile already exists", code="profile_exists", field="id"
                ) from None
            record(
                transaction,
                "profile.issuance.create",
                f"profile/{created.id}",
                version=created.version,
                data=profile_document(created),
                caller=caller,
                detail={"sign_as_ca": created.sign_as_ca},
            )
        return created

    async def update(
        self,
        profile: IssuanceProfile,
        *,
        kept: Collection[str],
        caller: Caller,
        demand: Demand | None = None,
    ) -> IssuanceProfile:
        """Replace a profile but for the fields `kept`, of which the client said nothing.

        Where it would allow more, the approvers of the CAs have to agree whose default it is,
        and of the one that it belongs to. Raises `NotFound`, `RuleViolation`, `Conflict` when it
        would turn the default of a CA into a profile for CAs (decision 16), and as
        `Clearance.admit`.
        """
        clearance = await self._desk.clearance(demand)
        authorities = await self._store.all_cas()
        now = self._clock.now()
        stored = await self._store.find_profile(profile.id)
        if stored is not None:
            changed = keeping(profile, stored, kept)
            check_profile(changed, now)
            await lint_profile(changed, now)
        async with self._store.unit() as transaction:
            previous = await transaction.lock_profile(profile.id)
            if previous is None:
                raise profile_not_found()
            profile = keeping(profile, previous, kept)
            check_profile(profile, now)
            check_under(profile, users_of(profile, authorities, now), now)
            users = await transaction.cas_with_profile(profile.id)
            if profile.sign_as_ca and not previous.sign_as_ca and users:
                raise _in_use(users)
            if weakened(previous, profile):
                concerned = sorted({*users, *([previous.ca_id] if previous.ca_id else [])})
                await clearance.admit(
                    transaction,
                    Operation.WEAKEN_PROFILE,
                    await transaction.policies(concerned),
                    basis=basis_of(previous),
                )
            updated = replace(profile, version=previous.version + 1)
            await transaction.save_profile(updated)
            record(
                transaction,
                "profile.issuance.update",
                f"profile/{updated.id}",
                version=updated.version,
                data=update_document(profile_document(previous), profile_document(updated)),
                caller=caller,
                detail={"sign_as_ca": updated.sign_as_ca},
            )
        return updated

    async def findings(self, profile: IssuanceProfile) -> tuple[Finding, ...]:
        """What should be known of a profile beside the CAs that there are now."""
        now = self._clock.now()
        return findings_of(profile, users_of(profile, await self._store.all_cas(), now), now)

    async def delete(self, profile_id: str, *, caller: Caller) -> None:
        """Raises `NotFound`, `Conflict` (`profile_in_use`) while a CA's default it is, and
        (`profile_guarded`) while it belongs to one with approvers, past whom another of its id
        could be made."""
        async with self._store.unit() as transaction:
            previous = await transaction.lock_profile(profile_id)
            if previous is None:
                raise profile_not_found()
            users = await transaction.cas_with_profile(profile_id)
            if users:
                raise _in_use(users)
            if previous.ca_id and await transaction.policies([previous.ca_id]):
                raise Conflict(
                    f"the profile belongs to the CA {previous.ca_id}, whose approvers have a say"
                    " in it: first replace it by one with an empty ca_id, which they decide",
                    code="profile_guarded",
                )
            await transaction.delete_profile(profile_id)
            record(
                transaction,
                "profile.issuance.delete",
                f"profile/{profile_id}",
                version=previous.version + 1,
                data={"ProfileID": profile_id},
                caller=caller,
                detail={},
            )


def _in_use(ca_ids: Sequence[str]) -> Conflict:
    names = ", ".join(ca_ids[:5])
    return Conflict(
        f"the profile is the default of the CAs {names}; give them another first",
        code="profile_in_use",
    )
