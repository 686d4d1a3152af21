"""The CA's write transaction over one unit of the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, and_, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from lamassu.kernel.errors import Conflict
from lamassu.platform.database import Prepared, Step
from lamassu.services.ca.contract import (
    Approval,
    ApprovalPolicy,
    Certificate,
    CertificationAuthority,
    IssuanceProfile,
    Vote,
)
from lamassu.services.ca.contract.approvals import OPEN
from lamassu.services.ca.contract.external import AwaitedCa
from lamassu.services.ca.model import (
    NO_CA,
    IssuerVersions,
    LockedCertificate,
    NewCertificate,
)
from lamassu.services.ca.storage.adoption import AdoptionRows
from lamassu.services.ca.storage.archive import ArchiveRows
from lamassu.services.ca.storage.awaited import awaited_of, values_of_awaited
from lamassu.services.ca.storage.expiry import ExpiryRows
from lamassu.services.ca.storage.hierarchy import relink
from lamassu.services.ca.storage.jobs import JobRows
from lamassu.services.ca.storage.lifecycle import LifecycleRows
from lamassu.services.ca.storage.profiles import profile_of, values_of_profile
from lamassu.services.ca.storage.rows import (
    CA_COLUMNS,
    CERTIFICATE_COLUMNS,
    approval_of,
    authority_of,
    certificate_of,
    changeable_of,
    changeable_of_approval,
    changeable_of_ca,
    policy_of,
    values_of_approval,
    values_of_ca,
    values_of_new,
    values_of_vote,
    vote_of,
)
from lamassu.services.ca.storage.tables import (
    approval_votes,
    approvals,
    awaited,
    cas,
    certificates,
    profiles,
)

AUTHORITIES: Select[Any] = select(*CERTIFICATE_COLUMNS, *CA_COLUMNS).join_from(
    cas, certificates, cas.c.serial_number == certificates.c.serial_number
)

_SHARE_ISSUER = Prepared(
    select(
        cas.c.version,
        select(profiles.c.version)
        .where(profiles.c.id == bindparam("profile_id"))
        .scalar_subquery()
        .label("profile_version"),
    )
    .where(cas.c.id == bindparam("ca_id"))
    .with_for_update(read=True, of=cas)
)
_judged_profile = (
    select(profiles.c.version).where(profiles.c.id == bindparam("profile_id")).scalar_subquery()
)
_JUDGED_ROW = (
    select(*(bindparam(column.name, type_=column.type) for column in certificates.c))
    .select_from(cas)
    .where(
        cas.c.id == bindparam("ca_id"),
        cas.c.version == bindparam("ca_version"),
        func.coalesce(_judged_profile, -1) == bindparam("profile_version"),
    )
    .with_for_update(read=True, of=cas)
)
_INSERT_ISSUED = Prepared(
    {
        dialect: insert_into(certificates)
        .from_select(certificates.c.keys(), _JUDGED_ROW)
        .on_conflict_do_nothing(index_elements=["request_key"])
        .returning(certificates.c.version)
        for dialect, insert_into in (("postgresql", postgresql.insert), ("sqlite", sqlite.insert))
    }
)
_LOCK_CERTIFICATE = Prepared(
    select(*CERTIFICATE_COLUMNS, cas.c.revoked_by)
    .join_from(certificates, cas, certificates.c.issuer_ca_id == cas.c.id, isouter=True)
    .where(certificates.c.serial_number == bindparam("wanted"))
    .with_for_update(of=certificates)
)


def issuing_step(new: NewCertificate, judged: IssuerVersions, profile_id: str) -> Step:
    """Shares the issuer's row, compares versions and stores, in one statement."""
    values = values_of_new(new) | {
        "ca_id": new.certificate.issuer_ca_id,
        "ca_version": judged.authority,
        "profile_id": profile_id,
        "profile_version": -1 if judged.profile is None else judged.profile,
    }
    return Step(_INSERT_ISSUED, values)


_OPEN = [status.value for status in OPEN]


class SqlCaTransaction(ArchiveRows, JobRows, LifecycleRows, ExpiryRows, AdoptionRows):
    """The `CaTransaction` port."""

    # --- CAs --------------------------------------------------------------------------------

    async def share_issuer(self, ca_id: str, profile_id: str) -> IssuerVersions | None:
        wanted = {"ca_id": ca_id, "profile_id": profile_id}
        for row in await self._unit.fetch(_SHARE_ISSUER, wanted):
            return IssuerVersions(row.version, row.profile_version)
        return None

    async def lock_ca(self, ca_id: str) -> CertificationAuthority | None:
        await self._lock_cas(select(cas.c.id).where(cas.c.id == ca_id))
        query = AUTHORITIES.where(cas.c.id == ca_id).with_for_update()
        row = (await self._connection.execute(query)).first()
        return None if row is None else authority_of(row)

    async def lock_children(self, ca_ids: Sequence[str]) -> Sequence[CertificationAuthority]:
        await self._lock_cas(select(cas.c.id).where(cas.c.parent_id.in_(ca_ids)))
        query = AUTHORITIES.where(cas.c.parent_id.in_(ca_ids)).order_by(cas.c.id).with_for_update()
        return [authority_of(row) for row in await self._connection.execute(query)]

    async def _lock_cas(self, query: Select[Any]) -> None:
        """By themselves first: whoever waits for the lock in a join with their certificates does
        not find a CA that was re-issued meanwhile, whose certificate is another one."""
        await self._connection.execute(query.order_by(cas.c.id).with_for_update())

    async def lock_across(self, subject_key_ids: Sequence[str]) -> Sequence[Certificate]:
        query = (
            select(*CERTIFICATE_COLUMNS)
            .where(
                certificates.c.subject_key_id.in_(subject_key_ids),
                certificates.c.is_ca,
                certificates.c.issuer_ca_id != NO_CA,  # its key identifier may be a forged one
                certificates.c.serial_number.not_in(select(cas.c.serial_number)),
            )
            .order_by(certificates.c.serial_number)
            .with_for_update()
        )
        return [certificate_of(row) for row in await self._connection.execute(query)]

    async def ca_id_of_certificate(self, serial_number: str) -> str | None:
        query = select(cas.c.id).where(cas.c.serial_number == serial_number)
        found: str | None = (await self._connection.execute(query)).scalar()
        return found

    async def insert_ca(self, authority: CertificationAuthority, new: NewCertificate) -> None:
        try:
            await self._connection.execute(insert(certificates).values(values_of_new(new)))
            await self._connection.execute(insert(cas).values(values_of_ca(authority)))
        except IntegrityError:
            raise Conflict("the CA exists already", code="already_exists") from None

    async def lock_orphans(self, *, limit: int) -> Sequence[CertificationAuthority]:
        query = (
            AUTHORITIES.where(certificates.c.issuer_ca_id == NO_CA, certificates.c.is_ca)
            .order_by(cas.c.id)
            .limit(limit)
            .with_for_update()
        )
        return [authority_of(row) for row in await self._connection.execute(query)]

    async def relink(self, moved: Sequence[CertificationAuthority]) -> None:
        await relink(self._connection, moved)

    async def insert_certificate(self, new: NewCertificate) -> None:
        await self._connection.execute(insert(certificates).values(values_of_new(new)))

    async def save_ca(self, authority: CertificationAuthority) -> None:
        await self._connection.execute(
            update(cas).where(cas.c.id == authority.id).values(changeable_of_ca(authority))
        )
        await self.save_certificate(authority.certificate)

    # --- certificates -----------------------------------------------------------------------

    async def lock_certificate(self, serial_number: str) -> LockedCertificate | None:
        for row in await self._unit.fetch(_LOCK_CERTIFICATE, {"wanted": serial_number}):
            return LockedCertificate(certificate_of(row), row.revoked_by is not None)
        return None

    async def insert_issued(
        self, new: NewCertificate, judged: IssuerVersions, *, profile_id: str
    ) -> bool:
        return bool(await self._unit.fetch(*issuing_step(new, judged, profile_id)))

    async def find_issued(self, request_key: str) -> Certificate | None:
        query = select(*CERTIFICATE_COLUMNS).where(certificates.c.request_key == request_key)
        row = (await self._connection.execute(query)).first()
        return None if row is None else certificate_of(row)

    async def save_certificate(self, certificate: Certificate) -> None:
        await self._connection.execute(
            update(certificates)
            .where(certificates.c.serial_number == certificate.serial_number)
            .values(changeable_of(certificate))
        )

    async def mark_reconciled(self, serial_numbers: Sequence[str]) -> None:
        await self._connection.execute(
            update(certificates)
            .where(certificates.c.serial_number.in_(serial_numbers))
            .values(awaits_binding=False)
        )

    # --- profiles ---------------------------------------------------------------------------

    async def lock_profile(self, profile_id: str) -> IssuanceProfile | None:
        query = select(profiles).where(profiles.c.id == profile_id).with_for_update()
        row = (await self._connection.execute(query)).first()
        return None if row is None else profile_of(row)

    async def share_profile(self, profile_id: str) -> IssuanceProfile | None:
        query = select(profiles).where(profiles.c.id == profile_id).with_for_update(read=True)
        row = (await self._connection.execute(query)).first()
        return None if row is None else profile_of(row)

    async def insert_profile(self, profile: IssuanceProfile) -> None:
        try:
            await self._connection.execute(insert(profiles).values(values_of_profile(profile)))
        except IntegrityError:
            raise Conflict("the profile exists already", code="already_exists") from None

    async def save_profile(self, profile: IssuanceProfile) -> None:
        await self._connection.execute(
            update(profiles).where(profiles.c.id == profile.id).values(values_of_profile(profile))
        )

    async def delete_profile(self, profile_id: str) -> None:
        await self._connection.execute(delete(profiles).where(profiles.c.id == profile_id))

    async def cas_with_profile(self, profile_id: str) -> Sequence[str]:
        query = select(cas.c.id).where(cas.c.profile_id == profile_id).order_by(cas.c.id)
        return list((await self._connection.execute(query)).scalars())

    # --- approvals --------------------------------------------------------------------------

    async def insert_awaited(self, ca: AwaitedCa) -> None:
        try:
            await self._connection.execute(insert(awaited).values(values_of_awaited(ca)))
        except IntegrityError:
            raise Conflict("the CA exists already", code="already_exists") from None

    async def lock_awaited(self, ca_id: str) -> AwaitedCa | None:
        query = select(awaited).where(awaited.c.id == ca_id).with_for_update()
        row = (await self._connection.execute(query)).first()
        return None if row is None else awaited_of(row)

    async def delete_awaited(self, ca_id: str) -> None:
        await self._connection.execute(delete(awaited).where(awaited.c.id == ca_id))

    async def insert_approval(self, approval: Approval) -> None:
        await self._connection.execute(insert(approvals).values(values_of_approval(approval)))

    async def lock_approval(self, approval_id: str) -> Approval | None:
        query = select(approvals).where(approvals.c.id == approval_id).with_for_update()
        found = await approvals_of(self._connection, query)
        return found[0] if found else None

    async def save_approval(self, approval: Approval) -> None:
        await self._connection.execute(
            update(approvals)
            .where(approvals.c.id == approval.id)
            .values(changeable_of_approval(approval))
        )

    async def put_vote(self, approval_id: str, vote: Vote) -> None:
        mine = and_(
            approval_votes.c.approval_id == approval_id,
            approval_votes.c.approver == vote.approver,
        )
        await self._connection.execute(delete(approval_votes).where(mine))
        await self._connection.execute(
            insert(approval_votes).values(values_of_vote(approval_id, vote))
        )

    async def open_approvals(self, ca_id: str, *, now: datetime) -> Sequence[Approval]:
        query = (
            select(approvals)
            .where(
                approvals.c.ca_id == ca_id,
                approvals.c.status.in_(_OPEN),
                approvals.c.expires_at > now,
            )
            .order_by(approvals.c.created_at, approvals.c.id)
        )
        return await approvals_of(self._connection, query)

    async def lock_overdue_approvals(self, now: datetime, *, limit: int) -> Sequence[Approval]:
        query = (
            select(approvals)
            .where(approvals.c.status.in_(_OPEN), approvals.c.expires_at <= now)
            .order_by(approvals.c.expires_at, approvals.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return await approvals_of(self._connection, query)

    async def policies(self, ca_ids: Sequence[str]) -> Mapping[str, ApprovalPolicy]:
        query = select(cas.c.id, cas.c.approvals).where(cas.c.id.in_(ca_ids))
        stored = {row.id: policy_of(row.approvals) for row in await self._connection.execute(query)}
        return {ca_id: policy for ca_id in ca_ids if (policy := stored.get(ca_id)) is not None}


async def approvals_of(connection: AsyncConnection, query: Select[Any]) -> Sequence[Approval]:
    """The approvals that a query of their rows gives, each with its votes."""
    return await with_votes(connection, (await connection.execute(query)).all())


async def with_votes(connection: AsyncConnection, rows: Sequence[Row[Any]]) -> Sequence[Approval]:
    """Rows of approvals, in their order, as values."""
    if not rows:
        return []
    query = (
        select(approval_votes)
        .where(approval_votes.c.approval_id.in_([row.id for row in rows]))
        .order_by(approval_votes.c.cast_at, approval_votes.c.approver)
    )
    votes: dict[str, list[Vote]] = {}
    for row in await connection.execute(query):
        votes.setdefault(row.approval_id, []).append(vote_of(row))
    return [approval_of(row, votes.get(row.id, ())) for row in rows]
