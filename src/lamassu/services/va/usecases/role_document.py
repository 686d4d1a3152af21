"""A role as events and audit records show it: the wire's fields, durations in seconds."""

from __future__ import annotations

from lamassu.kernel.records import Json
from lamassu.services.va.contract import CrlRole


def role_document(role: CrlRole) -> dict[str, Json]:
    return {
        "ca_ski": role.ca_ski,
        "crl_options": {
            "refresh_interval": f"{role.refresh_interval.total_seconds():g}s",
            "validity": f"{role.validity.total_seconds():g}s",
            "subject_key_id_signer": role.subject_key_id_signer,
            "regenerate_on_revoke": role.regenerate_on_revoke,
        },
        "filter_interval": f"{role.filter_interval.total_seconds():g}s",
    }
