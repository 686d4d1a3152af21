"""Resources as JSON: what events carry and what the routes answer, from one place."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_time
from lamassu.services.ca.contract import (
    CertificationAuthority,
    approval_policy_document,
    certificate_document,
)


def ca_document(authority: CertificationAuthority, now: datetime) -> dict[str, Json]:
    """A CA as the wire has it; `approvals`, `key_status` and what names
    other generations only where they say something."""
    document: dict[str, Json] = {
        "id": authority.id,
        "certificate": certificate_document(authority.certificate, now),
        "serial_number": authority.certificate.serial_number,
        "metadata": dict(authority.metadata),
        "creation_ts": format_time(authority.created_at),
        "level": authority.level,
        "profile_id": authority.profile_id,
    }
    if not authority.key_id:
        document["key_status"] = "OFFLINE"
    if authority.successor_id is not None:
        document["successor_id"] = authority.successor_id
    if authority.lineage_id is not None:
        document["generation_of"] = authority.lineage_id
    if authority.approvals is not None:
        document["approvals"] = approval_policy_document(authority.approvals)
    return document


def update_document(
    previous: Mapping[str, Json], updated: Mapping[str, Json]
) -> Mapping[str, Json]:
    """The data of every `*.update` event."""
    return {"previous": previous, "updated": updated}
