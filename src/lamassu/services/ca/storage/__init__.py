"""The CA's rows on the platform's database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from typing import Any

from cryptography import x509
from sqlalchemy import ColumnElement, Select, and_, bindparam, case, func, or_, select

from lamassu.kernel.listing import ListQuery, Page
from lamassu.kernel.records import AuditRecord, Event
from lamassu.kernel.x509.serials import serial_hex
from lamassu.platform.database import Database, Prepared
from lamassu.platform.database.listing import fetch_page
from lamassu.platform.database.prepared import among
from lamassu.services.ca.contract import (
    Approval,
    ApprovalPolicy,
    ApprovalStatus,
    Certificate,
    CertificateStatus,
    CertificationAuthority,
    IssuanceProfile,
    IssuedStanding,
    RevocationReason,
    RevokedEntry,
)
from lamassu.services.ca.contract.approvals import OPEN
from lamassu.services.ca.contract.external import AwaitedCa
from lamassu.services.ca.model import (
    CascadeJob,
    CaStats,
    CertificateScope,
    IssuerVersions,
    JobStatus,
    NewCertificate,
    RecordedEnrolment,
    StandingRow,
)
from lamassu.services.ca.ports import CaTransaction, RequestStore
from lamassu.services.ca.rules.generations import in_succession
from lamassu.services.ca.rules.issuance_log import EntryType, entry_of
from lamassu.services.ca.storage.archive import archived, certificate_in_archive
from lamassu.services.ca.storage.awaited import awaited_in, awaited_of
from lamassu.services.ca.storage.counting import (
    by_status,
    fold_changes,
    kept_counts,
    matching_counts,
    summed,
)
from lamassu.services.ca.storage.list_columns import (
    ca_columns,
    certificate_columns,
    has_status,
)
from lamassu.services.ca.storage.logged import LoggedTransaction
from lamassu.services.ca.storage.profiles import enrolments_in, profile_of
from lamassu.services.ca.storage.requests import SqlRequestStore
from lamassu.services.ca.storage.rows import (
    CERTIFICATE_COLUMNS,
    authority_of,
    certificate_of,
    job_of,
    policy_of,
)
from lamassu.services.ca.storage.tables import approvals, awaited, cas, certificates, jobs, profiles
from lamassu.services.ca.storage.transaction import (
    AUTHORITIES,
    approvals_of,
    issuing_step,
    with_votes,
)

SERVICE = "ca"
_ACTIVE, _REVOKED = CertificateStatus.ACTIVE.value, CertificateStatus.REVOKED.value

_CERTIFICATES: Select[Any] = select(*CERTIFICATE_COLUMNS)
_own = certificates.alias("own")
_of_ca = certificates.alias("of_ca")
_BY_SERIAL = Prepared(_CERTIFICATES.where(certificates.c.serial_number == bindparam("wanted")))
_BY_SERIALS = Prepared(
    {
        dialect: _CERTIFICATES.where(listed)
        for dialect, listed in among(certificates.c.serial_number, "wanted").items()
    },
    many=True,
)
_BY_REQUEST = Prepared(_CERTIFICATES.where(certificates.c.request_key == bindparam("wanted")))
_STANDING = Prepared(
    select(
        _own.c.status,
        _own.c.revocation_time,
        _own.c.revocation_reason,
        _own.c.not_after,
        _own.c.der,
        cas.c.revoked_by,
        _of_ca.c.revocation_time.label("ca_revocation_time"),
        _of_ca.c.revocation_reason.label("ca_revocation_reason"),
    )
    .select_from(cas)
    .join(_of_ca, _of_ca.c.serial_number == cas.c.serial_number)
    .outerjoin(
        _own,
        and_(
            _own.c.serial_number == bindparam("wanted"),
            _own.c.issuer_ca_id == cas.c.id,
        ),
    )
    .where(cas.c.id == bindparam("ca_id"))
)


class CaStorage:
    """The `CaStore` port."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.requests: RequestStore = SqlRequestStore(database)

    def unit(self) -> AbstractAsyncContextManager[CaTransaction]:
        return self._unit()

    def alone(self, deed: str) -> AbstractAsyncContextManager[None]:
        return self._database.alone(SERVICE, deed)

    @asynccontextmanager
    async def _unit(self) -> AsyncIterator[CaTransaction]:
        async with self._database.unit(SERVICE) as unit:
            yield LoggedTransaction(unit)

    async def insert_issued(
        self,
        new: NewCertificate,
        judged: IssuerVersions,
        *,
        profile_id: str,
        records: Sequence[Event | AuditRecord],
    ) -> bool:
        step = issuing_step(new, judged, profile_id)
        entry = entry_of(EntryType.ISSUED, new.certificate)
        return await self._database.write(SERVICE, [step], [*records, entry])

    # --- CAs --------------------------------------------------------------------------------

    async def find_ca(self, ca_id: str) -> CertificationAuthority | None:
        return await self._find_authority(AUTHORITIES.where(cas.c.id == ca_id))

    async def find_ca_by_key_id(self, subject_key_id: str) -> CertificationAuthority | None:
        return await self._find_authority(
            AUTHORITIES.where(certificates.c.subject_key_id == subject_key_id)
        )

    async def find_ca_with_key(self, key_id: str) -> CertificationAuthority | None:
        return await self._find_authority(AUTHORITIES.where(cas.c.key_id == key_id))

    async def generations(self, ca_id: str) -> Sequence[CertificationAuthority]:
        first = (
            select(func.coalesce(cas.c.lineage_id, cas.c.id))
            .where(cas.c.id == ca_id)
            .scalar_subquery()
        )
        query = AUTHORITIES.where(or_(cas.c.id == first, cas.c.lineage_id == first))
        async with self._database.reading(SERVICE) as connection:
            found = [authority_of(row) for row in await connection.execute(query)]
        return in_succession(found)

    async def certificates_between(
        self, ca_ids: Sequence[str], subject_key_ids: Sequence[str]
    ) -> Sequence[Certificate]:
        query = _CERTIFICATES.where(
            certificates.c.issuer_ca_id.in_(ca_ids),
            certificates.c.subject_key_id.in_(subject_key_ids),
            certificates.c.is_ca,
        ).order_by(certificates.c.created_at, certificates.c.serial_number)
        async with self._database.reading(SERVICE) as connection:
            return [certificate_of(row) for row in await connection.execute(query)]

    async def all_cas(self) -> Sequence[CertificationAuthority]:
        query = AUTHORITIES.order_by(cas.c.level, cas.c.created_at, cas.c.id)
        async with self._database.reading(SERVICE) as connection:
            return [authority_of(row) for row in await connection.execute(query)]

    async def page_cas(
        self, query: ListQuery, *, now: datetime, common_name: str | None = None
    ) -> Page[CertificationAuthority]:
        base = AUTHORITIES
        if common_name is not None:
            base = base.where(certificates.c.common_name == common_name)
        async with self._database.listing(SERVICE) as connection:
            columns = ca_columns(now, connection.dialect.name)
            page = await fetch_page(connection, base, columns=columns, key=cas.c.id, query=query)
        return Page([authority_of(row) for row in page.items], page.after)

    async def _find_authority(self, query: Select[Any]) -> CertificationAuthority | None:
        async with self._database.reading(SERVICE) as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else authority_of(row)

    # --- profiles ---------------------------------------------------------------------------

    async def find_profile(self, profile_id: str) -> IssuanceProfile | None:
        async with self._database.reading(SERVICE) as connection:
            query = select(profiles).where(profiles.c.id == profile_id)
            row = (await connection.execute(query)).first()
        return None if row is None else profile_of(row)

    async def page_profiles(self, query: ListQuery) -> Page[IssuanceProfile]:
        columns = {"id": profiles.c.id, "name": profiles.c.name}
        async with self._database.listing(SERVICE) as connection:
            page = await fetch_page(
                connection, select(profiles), columns=columns, key=profiles.c.id, query=query
            )
        return Page([profile_of(row) for row in page.items], page.after)

    async def enrolments_under(
        self, profile_id: str, *, after: str, limit: int
    ) -> Sequence[RecordedEnrolment]:
        async with self._database.reading(SERVICE) as connection:
            return await enrolments_in(connection, profile_id, after=after, limit=limit)

    # --- certificates -----------------------------------------------------------------------

    async def find_certificate(self, serial_number: str) -> Certificate | None:
        found = await self._find(_BY_SERIAL, serial_number)
        return found or (await self._archived([serial_number])).get(serial_number)

    async def find_certificates(self, serial_numbers: Sequence[str]) -> Mapping[str, Certificate]:
        wanted = {"wanted": list(serial_numbers)}
        rows = await self._database.fetch(SERVICE, _BY_SERIALS, wanted)
        found = {row.serial_number: certificate_of(row) for row in rows}
        missing = [each for each in serial_numbers if each not in found]
        return found | await self._archived(missing) if missing else found

    async def find_certificate_by_der(self, der: bytes) -> Certificate | None:
        try:
            serial_number = x509.load_der_x509_certificate(der).serial_number
        except (ValueError, x509.InvalidVersion):
            return None
        if serial_number < 0:
            return None
        found = await self.find_certificate(serial_hex(serial_number))
        return found if found is not None and found.der == der else None

    async def find_issued(self, request_key: str) -> Certificate | None:
        return await self._find(_BY_REQUEST, request_key)

    async def page_certificates(
        self, query: ListQuery, *, now: datetime, scope: CertificateScope
    ) -> Page[Certificate]:
        base = _CERTIFICATES.where(*_within(scope, now))
        async with self._database.listing(SERVICE) as connection:
            page = await fetch_page(
                connection,
                base,
                columns=certificate_columns(now, connection.dialect.name),
                key=certificates.c.serial_number,
                query=query,
            )
        return Page([certificate_of(row) for row in page.items], page.after)

    async def standing(self, ca_id: str, serial_number: str) -> StandingRow | None:
        wanted = {"ca_id": ca_id, "wanted": serial_number}
        rows = await self._database.fetch(SERVICE, _STANDING, wanted)
        if not rows:
            return None
        row = rows[0]
        if row.status is None:
            kept = (await self._archived([serial_number])).get(serial_number)
            if kept is not None and kept.issuer_ca_id == ca_id:
                return StandingRow(
                    status=kept.stored_status,
                    revocation_time=kept.revocation_time,
                    reason=kept.revocation_reason,
                    not_after=kept.not_after,
                    der=kept.der,
                    ca_revoked=row.revoked_by is not None,
                    ca_revocation_time=row.ca_revocation_time,
                    ca_reason=RevocationReason(row.ca_revocation_reason),
                )
        return StandingRow(
            status=CertificateStatus(row.status) if row.status is not None else None,
            revocation_time=row.revocation_time,
            reason=RevocationReason(row.revocation_reason or RevocationReason.UNSPECIFIED),
            not_after=row.not_after,
            der=bytes(row.der) if row.der is not None else None,
            ca_revoked=row.revoked_by is not None,
            ca_revocation_time=row.ca_revocation_time,
            ca_reason=RevocationReason(row.ca_revocation_reason),
        )

    async def revoked_under(self, ca_id: str, *, now: datetime) -> Sequence[RevokedEntry]:
        query = (
            select(
                certificates.c.serial_number,
                certificates.c.revocation_time,
                certificates.c.revocation_reason,
            )
            .where(
                certificates.c.issuer_ca_id == ca_id,
                certificates.c.status == _REVOKED,
                certificates.c.not_after >= now,
            )
            .order_by(certificates.c.serial_number)
        )
        async with self._database.reading(SERVICE) as connection:
            return [
                RevokedEntry(
                    row.serial_number, row.revocation_time, RevocationReason(row.revocation_reason)
                )
                for row in await connection.execute(query)
            ]

    async def issued_under(
        self, ca_id: str, *, after: str, limit: int, now: datetime
    ) -> Sequence[IssuedStanding]:
        query = (
            select(certificates.c.serial_number, certificates.c.not_before, certificates.c.status)
            .where(
                certificates.c.issuer_ca_id == ca_id,
                certificates.c.serial_number > after,
                certificates.c.not_after >= now,
            )
            .order_by(certificates.c.serial_number)
            .limit(limit)
        )
        async with self._database.reading(SERVICE) as connection:
            return [
                IssuedStanding(row.serial_number, row.not_before, row.status != _ACTIVE)
                for row in await connection.execute(query)
            ]

    async def unreconciled(self, *, older_than: datetime, limit: int) -> Sequence[Certificate]:
        query = (
            _CERTIFICATES.where(
                certificates.c.awaits_binding, certificates.c.created_at < older_than
            )
            .order_by(certificates.c.created_at, certificates.c.serial_number)
            .limit(limit)
        )
        async with self._database.reading(SERVICE) as connection:
            return [certificate_of(row) for row in await connection.execute(query)]

    async def _archived(self, serial_numbers: Sequence[str]) -> dict[str, Certificate]:
        async with self._database.reading(SERVICE) as connection:
            rows = await connection.execute(archived(serial_numbers))
            return {row.serial_number: certificate_in_archive(row) for row in rows}

    async def _find(self, statement: Prepared, wanted: str) -> Certificate | None:
        rows = await self._database.fetch(SERVICE, statement, {"wanted": wanted})
        return certificate_of(rows[0]) if rows else None

    # --- jobs and counts --------------------------------------------------------------------

    async def find_job(self, job_id: str) -> CascadeJob | None:
        async with self._database.reading(SERVICE) as connection:
            row = (await connection.execute(select(jobs).where(jobs.c.id == job_id))).first()
        return None if row is None else job_of(row)

    async def unfinished_jobs(self) -> Sequence[CascadeJob]:
        query = select(jobs).where(jobs.c.status != JobStatus.DONE.value)
        async with self._database.reading(SERVICE) as connection:
            return [job_of(row) for row in await connection.execute(query)]

    async def has_key(self, key_id: str) -> bool:
        query = select(cas.c.id).where(cas.c.key_id == key_id).limit(1)
        async with self._database.reading(SERVICE) as connection:
            return (await connection.execute(query)).first() is not None

    # --- CAs that wait for their certificate -----------------------------------------------

    async def find_awaited(self, ca_id: str) -> AwaitedCa | None:
        async with self._database.reading(SERVICE) as connection:
            query = select(awaited).where(awaited.c.id == ca_id)
            row = (await connection.execute(query)).first()
        return None if row is None else awaited_of(row)

    async def all_awaited(self) -> Sequence[AwaitedCa]:
        async with self._database.reading(SERVICE) as connection:
            return await awaited_in(connection)

    # --- approvals --------------------------------------------------------------------------

    async def find_approval(self, approval_id: str) -> Approval | None:
        query = select(approvals).where(approvals.c.id == approval_id)
        async with self._database.reading(SERVICE) as connection:
            found = await approvals_of(connection, query)
        return found[0] if found else None

    async def page_approvals(self, query: ListQuery, *, now: datetime) -> Page[Approval]:
        async with self._database.listing(SERVICE) as connection:
            page = await fetch_page(
                connection,
                select(approvals),
                columns=_approval_columns(now),
                key=approvals.c.id,
                query=query,
            )
            return Page(await with_votes(connection, page.items), page.after)

    async def all_policies(self) -> Mapping[str, ApprovalPolicy]:
        query = select(cas.c.id, cas.c.approvals).where(cas.c.approvals.is_not(None))
        async with self._database.reading(SERVICE) as connection:
            rows = await connection.execute(query.order_by(cas.c.level, cas.c.id))
            stored = {row.id: policy_of(row.approvals) for row in rows}
        return {ca_id: policy for ca_id, policy in stored.items() if policy is not None}

    async def stats(
        self,
        *,
        now: datetime,
        ca_query: ListQuery | None = None,
        certificate_query: ListQuery | None = None,
        issuer_ca_id: str | None = None,
    ) -> CaStats:
        of_cas = select(certificates.c.engine_id).join_from(
            cas, certificates, cas.c.serial_number == certificates.c.serial_number
        )
        async with self._database.listing(SERVICE) as connection:
            dialect = connection.dialect.name
            by_ca = await matching_counts(
                connection, of_cas, now=now, columns=ca_columns(now, dialect), query=ca_query
            )
            if certificate_query is None or not certificate_query.filters:
                counts = await kept_counts(connection, now=now, issuer_ca_id=issuer_ca_id)
            else:
                of_issuer = select(certificates.c.issuer_ca_id).where(
                    *_within(CertificateScope(issuer_ca_id=issuer_ca_id), now)
                )
                counts = by_status(
                    await matching_counts(
                        connection,
                        of_issuer,
                        now=now,
                        columns=certificate_columns(now, dialect),
                        query=certificate_query,
                    )
                )
        return CaStats(
            cas_by_engine=summed((engine, number) for engine, _, number in by_ca),
            cas_by_status=by_status(by_ca),
            cas=sum(number for *_, number in by_ca),
            certificates_by_status=counts,
            certificates=sum(counts.values()),
        )

    async def fold_counts(self) -> int:
        async with self._database.unit(SERVICE) as unit:
            return await fold_changes(unit.connection)


def _within(scope: CertificateScope, now: datetime) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if scope.issuer_ca_id is not None:
        conditions.append(certificates.c.issuer_ca_id == scope.issuer_ca_id)
    if scope.status is not None:
        conditions.append(has_status(scope.status, now))
    if scope.expires_after is not None or scope.expires_before is not None:
        conditions.append(certificates.c.status != _REVOKED)
        conditions.append(or_(certificates.c.status != _ACTIVE, certificates.c.not_after >= now))
    if scope.expires_after is not None:
        conditions.append(certificates.c.not_after > scope.expires_after)
    if scope.expires_before is not None:
        conditions.append(certificates.c.not_after < scope.expires_before)
    return conditions


def _approval_columns(now: datetime) -> dict[str, ColumnElement[Any]]:
    c = approvals.c
    past = and_(c.status.in_([status.value for status in OPEN]), c.expires_at <= now)
    return {
        "id": c.id,
        "status": case((past, ApprovalStatus.EXPIRED.value), else_=c.status),
        "operation": c.operation,
        "ca_id": c.ca_id,
        "requester": c.requester,
        "creation_ts": c.created_at,
        "expires_at": c.expires_at,
    }
