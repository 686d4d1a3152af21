"""What lists of certificates and CAs can be asked by, in the words of their indexes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, literal, not_, or_
from sqlalchemy.dialects.postgresql import JSONB

from lamassu.platform.database.list_fields import Choice, Field, JsonField, Seldom
from lamassu.services.ca.contract import CertificateStatus, CertificateType, RevocationReason
from lamassu.services.ca.model import ATTACHED_TO, SYSTEM_METADATA
from lamassu.services.ca.storage.tables import cas, certificates

_ACTIVE = CertificateStatus.ACTIVE.value
# what the wire shows of a certificate that was never revoked, and clients filter by
_NEVER = datetime(1, 1, 1, tzinfo=UTC)


def certificate_columns(now: datetime, dialect: str) -> dict[str, Field]:
    """Filterable and sortable fields by wire name."""
    c = certificates.c
    return {
        "type": Choice({kind.value: _is(c.type, kind.value) for kind in CertificateType}),
        "serial_number": c.serial_number,
        "subject.common_name": c.common_name,
        "subject_key_id": c.subject_key_id,
        "issuer_meta.id": c.issuer_ca_id,
        "status": Choice({status.value: has_status(status, now) for status in CertificateStatus}),
        "engine_id": Seldom(
            c.engine_id,
            without=_is(c.engine_id, ""),
            having=c.engine_id != literal("", literal_execute=True),
            least="",
        ),
        "valid_to": c.not_after,
        "valid_from": c.not_before,
        "revocation_timestamp": Seldom(
            c.revocation_time,
            without=c.revocation_time.is_(None),
            having=c.revocation_time.is_not(None),
            shown=_NEVER,
        ),
        "revocation_reason": Choice(
            {reason.value: _is(c.revocation_reason, reason.value) for reason in RevocationReason}
        ),
        "metadata": JsonField(
            c.metadata,
            shown=_shown_metadata(dialect),
            rendered=frozenset({ATTACHED_TO}),
            closed=SYSTEM_METADATA - {ATTACHED_TO},
        ),
        "extensions.key_usage": c.key_usage,
        "extensions.extended_key_usage": c.extended_key_usages,
        "is_ca": Choice({"true": and_(c.is_ca), "false": not_(c.is_ca)}),
    }


def ca_columns(now: datetime, dialect: str) -> dict[str, Field]:
    """Those of a CA, and of its certificate."""
    return {
        **certificate_columns(now, dialect),
        "id": cas.c.id,
        "profile_id": cas.c.profile_id,
        "metadata": JsonField(cas.c.metadata),
    }


def has_status(status: CertificateStatus, now: datetime) -> ColumnElement[bool]:
    """As clients see it: an active certificate past its end is expired."""
    c = certificates.c
    if status is CertificateStatus.EXPIRED:
        return and_(_is(c.status, _ACTIVE), c.not_after < now)
    if status is CertificateStatus.ACTIVE:
        return and_(_is(c.status, _ACTIVE), c.not_after >= now)
    return _is(c.status, status.value)


def _is(column: ColumnElement[str], value: str) -> ColumnElement[bool]:
    """With the value in the statement, where it can be compared with a partial index's."""
    return column == literal(value, literal_execute=True)


def _shown_metadata(dialect: str) -> ColumnElement[Any]:
    """With whom a certificate is attached to, as answers have it."""
    c = certificates.c
    attached = or_(c.owner != "", c.device_id != "")
    make = func.jsonb_build_object if dialect == "postgresql" else func.json_object
    ra = make("authorized_by", make("ra_id", c.owner), "device_id", c.device_id)
    if dialect == "postgresql":
        whole: ColumnElement[Any] = c.metadata.op("||", return_type=JSONB())(make(ATTACHED_TO, ra))
    else:
        whole = func.json_set(c.metadata, f'$."{ATTACHED_TO}"', ra)
    return case((attached, whole), else_=c.metadata)
