"""How many certificates there are: kept by the database's triggers, added up here.

An active certificate turns expired by the clock alone. Counts are kept by the day on which
certificates end, so that only those that end today are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    and_,
    case,
    delete,
    func,
    literal,
    select,
    text,
    union_all,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from lamassu.kernel.listing import ListQuery
from lamassu.platform.database.list_fields import Field
from lamassu.platform.database.listing import filtered
from lamassu.platform.database.types import Text
from lamassu.services.ca.contract import CertificateStatus
from lamassu.services.ca.storage.list_columns import has_status
from lamassu.services.ca.storage.tables import (
    certificate_changes,
    certificate_counts,
    certificates,
)

FOLDED_AT_ONCE = 50_000
_ACTIVE, _EXPIRED = CertificateStatus.ACTIVE, CertificateStatus.EXPIRED

Counts = Mapping[CertificateStatus, int]


async def kept_counts(
    connection: AsyncConnection, *, now: datetime, issuer_ca_id: str | None = None
) -> Counts:
    """Of all certificates or one issuer's, by status at `now`: one statement, one state."""
    today = now.date().isoformat()
    kept = union_all(
        *(
            select(table.c.status, table.c.expires_on, table.c.certificates).where(
                *([table.c.issuer_ca_id == issuer_ca_id] if issuer_ca_id is not None else [])
            )
            for table in (certificate_counts, certificate_changes)
        )
    ).subquery()
    past = and_(kept.c.status == _ACTIVE.value, kept.c.expires_on < today)
    status = case((past, literal(_EXPIRED.value, Text())), else_=kept.c.status)
    ended_today = select(literal("today", Text()), func.count()).where(
        has_status(_EXPIRED, now),
        certificates.c.not_after >= now.replace(hour=0, minute=0, second=0, microsecond=0),
        *([certificates.c.issuer_ca_id == issuer_ca_id] if issuer_ca_id is not None else []),
    )
    statement = union_all(
        select(status, func.sum(kept.c.certificates)).group_by(status), ended_today
    )
    found = {row[0]: int(row[1]) for row in await connection.execute(statement)}
    counts = {each: found.get(each.value, 0) for each in CertificateStatus}
    counts[_ACTIVE] -= found["today"]
    counts[_EXPIRED] += found["today"]
    return counts


async def matching_counts(
    connection: AsyncConnection,
    base: Select[Any],
    *,
    now: datetime,
    columns: Mapping[str, Field],
    query: ListQuery | None,
) -> list[tuple[str, CertificateStatus, int]]:
    """Counted one by one: what `base` selects (a name) by status, as far as it meets a query."""
    status = _status_at(now)
    if query is not None:
        base = filtered(connection, base, columns=columns, filters=query.filters)
    counting = base.add_columns(status, func.count()).group_by(*base.selected_columns, status)
    return [
        (row[0], CertificateStatus(row[1]), row[2]) for row in await connection.execute(counting)
    ]


async def fold_changes(connection: AsyncConnection) -> int:
    """Add what changed to the counts, in one statement of its own: how many changes it took.

    Two at once take different ones, in the same order of counts.
    """
    if connection.dialect.name != "postgresql":
        return 0
    changes = certificate_changes
    some = (
        select(changes.c.id)
        .order_by(changes.c.id)
        .limit(FOLDED_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    key = ("issuer_ca_id", "status", "expires_on")
    taken = delete(changes).where(changes.c.id.in_(some)).returning(changes).cte("taken")
    summed = select(
        *(taken.c[name] for name in key), func.sum(taken.c.certificates).label("certificates")
    ).group_by(*(taken.c[name] for name in key))
    put = postgresql.insert(certificate_counts).from_select(
        [*key, "certificates"], summed.order_by(*(taken.c[name] for name in key))
    )
    put = put.on_conflict_do_update(
        index_elements=list(key),
        set_={"certificates": certificate_counts.c.certificates + put.excluded.certificates},
    )
    counted = put.returning(literal(1)).cte("counted")
    statement = select(
        select(func.count()).select_from(taken).scalar_subquery(),
        select(func.count()).select_from(counted).scalar_subquery(),
    )
    return int((await connection.execute(statement)).one()[0])


async def miscounted(connection: AsyncConnection) -> int:
    """How many counts differ from the certificates there are; each of them is read."""
    day = (
        text("coalesce(to_char(not_after AT TIME ZONE 'UTC', 'YYYY-MM-DD'), '9999-12-31')")
        if connection.dialect.name == "postgresql"
        else text("substr(not_after, 1, 10)")
    )
    statement = text(
        f"""
        SELECT count(*) FROM (
            SELECT issuer_ca_id, status, expires_on, sum(certificates) FROM (
                SELECT issuer_ca_id, status, expires_on, certificates FROM ca_certificate_counts
                UNION ALL
                SELECT issuer_ca_id, status, expires_on, certificates FROM ca_certificate_changes
                UNION ALL
                SELECT issuer_ca_id, status, {day}, -count(*) FROM ca_certificates
                    GROUP BY 1, 2, 3
            ) AS each GROUP BY 1, 2, 3 HAVING sum(certificates) <> 0
        ) AS wrong
        """  # noqa: S608 - made of names, no values
    )
    return int((await connection.execute(statement)).scalar_one())


def summed(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """By name."""
    total: dict[str, int] = {}
    for name, number in counts:
        total[name] = total.get(name, 0) + number
    return total


def by_status(counts: Iterable[tuple[str, CertificateStatus, int]]) -> Counts:
    """Every status, also those that nothing has."""
    found = summed((status.value, number) for _, status, number in counts)
    return {status: found.get(status.value, 0) for status in CertificateStatus}


def _status_at(now: datetime) -> ColumnElement[str]:
    """The status as clients see it: an active certificate past its end is expired."""
    return case(
        (has_status(_EXPIRED, now), _EXPIRED.value),
        else_=certificates.c.status,
    )
