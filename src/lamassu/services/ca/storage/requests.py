"""Certificate requests: the refused in a table of their own, the others with their certificates.

A list of both is merged from a page of each. They have their order in common: ids are lower-case
hex throughout, which every collation puts alike.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Column,
    Index,
    LargeBinary,
    MetaData,
    Row,
    Select,
    Table,
    delete,
    func,
    insert,
    literal,
    select,
)

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.listing import ListQuery, Page
from lamassu.kernel.records import AuditRecord
from lamassu.platform.database import Database
from lamassu.platform.database.listing import fetch_page
from lamassu.platform.database.types import Text, UtcDateTime
from lamassu.services.ca.rules.requests import (
    FOR_ONE,
    IN_AN_HOUR,
    KeptRequest,
    Outcome,
    outcomes_of,
)
from lamassu.services.ca.storage.tables import certificates

SERVICE = "ca"
_FORGOTTEN_AT_ONCE = 1000

metadata = MetaData()
refused_requests = Table(
    "ca_refused_requests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ca_id", Text, nullable=False),
    Column("profile_id", Text, nullable=False),
    Column("requested_by", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("device_id", Text, nullable=False),
    Column("common_name", Text, nullable=False),
    Column("csr", LargeBinary, nullable=False),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("ix_ca_refused_requests_age", "created_at", "id"),
    Index("ix_ca_refused_requests_requester", "requested_by", "created_at"),
)

_refused = refused_requests.c
_issued = certificates.c
_REFUSED = select(
    *(column for column in refused_requests.c if column.name != "csr"),
    literal(Outcome.REFUSED.value).label("outcome"),
)
_ISSUED = select(
    _issued.serial_number.label("id"),
    _issued.created_at,
    _issued.issuer_ca_id.label("ca_id"),
    func.coalesce(_issued.profile_id, "").label("profile_id"),
    func.coalesce(_issued.requested_by, "").label("requested_by"),
    _issued.owner,
    _issued.device_id,
    _issued.common_name,
    literal("").label("code"),
    literal("").label("reason"),
    literal(Outcome.ISSUED.value).label("outcome"),
).where(_issued.csr.is_not(None))
_SOURCES: dict[Outcome, tuple[Select[Any], dict[str, Any], Any]] = {
    Outcome.REFUSED: (
        _REFUSED,
        {
            "id": _refused.id,
            "ca_id": _refused.ca_id,
            "profile_id": _refused.profile_id,
            "requester": _refused.requested_by,
            "dms_id": _refused.owner,
            "device_id": _refused.device_id,
            "common_name": _refused.common_name,
            "code": _refused.code,
            "creation_ts": _refused.created_at,
        },
        _refused.id,
    ),
    Outcome.ISSUED: (
        _ISSUED,
        {
            "id": _issued.serial_number,
            "ca_id": _issued.issuer_ca_id,
            "profile_id": _issued.profile_id,
            "requester": _issued.requested_by,
            "dms_id": _issued.owner,
            "device_id": _issued.device_id,
            "common_name": _issued.common_name,
            "code": literal(""),
            "creation_ts": _issued.created_at,
        },
        _issued.serial_number,
    ),
}


class SqlRequestStore:
    """The `RequestStore` port."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep(self, kept: KeptRequest, audit: AuditRecord) -> bool:
        """Bounds are looked at first, without a lock: a few more do no harm."""
        if await self._is_full(kept.requester, kept.created_at - timedelta(hours=1)):
            return False
        values = {
            "id": kept.id,
            "created_at": kept.created_at,
            "ca_id": kept.ca_id,
            "profile_id": kept.profile_id,
            "requested_by": kept.requester,
            "owner": kept.owner,
            "device_id": kept.device_id,
            "common_name": kept.common_name,
            "csr": kept.csr_der,
            "code": kept.code,
            "reason": kept.reason,
        }
        async with self._database.unit(SERVICE) as unit:
            await unit.connection.execute(insert(refused_requests).values(values))
            unit.audit(audit)
        return True

    async def page(self, query: ListQuery) -> Page[KeptRequest]:
        outcomes, filters = outcomes_of(list(query.filters))
        if query.sort_by not in (None, "id") and outcomes != [Outcome.REFUSED]:
            raise RuleViolation(
                f"requests go by {query.sort_by} only with filter=status[eq]REFUSED;"
                " certificates can be listed in other orders",
                code="unsupported_sort",
                field="sort_by",
            )
        query = replace(query, filters=filters)
        items: list[tuple[str, KeptRequest]] = []
        more: list[tuple[str | float | None, str]] = []
        async with self._database.listing(SERVICE) as connection:
            for outcome in outcomes:
                base, columns, key = _SOURCES[outcome]
                page = await fetch_page(connection, base, columns=columns, key=key, query=query)
                items += [(row.id, _kept(row)) for row in page.items]
                if page.after is not None:
                    more.append(page.after)
        if len(outcomes) < 2:
            return Page([one for _, one in items], more[0] if more else None)
        items.sort(key=lambda item: item[0], reverse=query.descending)
        shown = items[: query.page_size]
        ended = len(items) <= query.page_size and not more
        return Page([one for _, one in shown], None if ended else (shown[-1][0], shown[-1][0]))

    async def find(self, request_id: str) -> KeptRequest | None:
        async with self._database.reading(SERVICE) as connection:
            for (base, _, key), csr in zip(
                (_SOURCES[Outcome.REFUSED], _SOURCES[Outcome.ISSUED]),
                (_refused.csr, _issued.csr),
                strict=True,
            ):
                query = base.add_columns(csr.label("csr")).where(key == request_id)
                row = (await connection.execute(query)).first()
                if row is not None:
                    return replace(_kept(row), csr_der=bytes(row.csr))
        return None

    async def forget(self, *, before: datetime, beyond: int) -> int:
        newest = select(_refused.id).order_by(_refused.created_at.desc(), _refused.id.desc())
        doomed = (
            select(_refused.id).where(_refused.created_at < before),
            newest.offset(beyond),
        )
        forgotten = 0
        for which in doomed:
            some = which.limit(_FORGOTTEN_AT_ONCE).scalar_subquery()
            while True:
                async with self._database.unit(SERVICE) as unit:
                    done = await unit.connection.execute(
                        delete(refused_requests).where(_refused.id.in_(some))
                    )
                forgotten += done.rowcount
                if done.rowcount < _FORGOTTEN_AT_ONCE:
                    break
        return forgotten

    async def _is_full(self, requester: str, since: datetime) -> bool:
        mine = select(func.count()).where(_refused.requested_by == requester)
        query = select(
            mine.scalar_subquery().label("in_all"),
            mine.where(_refused.created_at > since).scalar_subquery().label("lately"),
        )
        async with self._database.reading(SERVICE) as connection:
            row = (await connection.execute(query)).one()
        return bool(row.in_all >= FOR_ONE or row.lately >= IN_AN_HOUR)


def _kept(row: Row[Any]) -> KeptRequest:
    return KeptRequest(
        id=row.id,
        outcome=Outcome(row.outcome),
        created_at=row.created_at,
        ca_id=row.ca_id,
        profile_id=row.profile_id,
        requester=row.requested_by,
        owner=row.owner,
        device_id=row.device_id,
        common_name=row.common_name,
        code=row.code,
        reason=row.reason,
    )
