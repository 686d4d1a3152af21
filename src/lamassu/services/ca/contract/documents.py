"""Certificates as JSON: one spelling for answers and for events of every slice."""

from __future__ import annotations

import base64
from datetime import datetime

from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_duration, format_time_or_zero
from lamassu.kernel.x509.keys import KeyFacts, strength
from lamassu.kernel.x509.pem import pem_of
from lamassu.services.ca.contract.approvals import Approval, ApprovalPolicy
from lamassu.services.ca.contract.profile_document import subject_document
from lamassu.services.ca.contract.values import Certificate


def certificate_document(certificate: Certificate, now: datetime) -> dict[str, Json]:
    """A certificate as the wire has it; `now` decides whether it is expired."""
    facts = KeyFacts(certificate.key_algorithm, certificate.key_size)
    return {
        "serial_number": certificate.serial_number,
        "subject_key_id": certificate.subject_key_id,
        "authority_key_id": certificate.authority_key_id,
        "metadata": dict(certificate.metadata),
        "status": certificate.status_at(now).value,
        "certificate": pem_text(certificate.der),
        "key_metadata": {
            "type": facts.algorithm,
            "bits": facts.size,
            "strength": strength(facts).value,
        },
        "subject": subject_document(certificate.subject),
        "issuer": subject_document(certificate.issuer),
        "valid_from": format_time_or_zero(certificate.not_before),
        "valid_to": format_time_or_zero(certificate.not_after),
        "extensions": {
            "key_usage": list(certificate.key_usage),
            "extended_key_usage": list(certificate.extended_key_usages),
        },
        "issuer_metadata": {
            "serial_number": certificate.issuer_serial_number,
            "id": certificate.issuer_ca_id,
            "level": certificate.issuer_level,
        },
        "revocation_timestamp": format_time_or_zero(certificate.revocation_time),
        "revocation_reason": certificate.revocation_reason.value,
        "type": certificate.type.value,
        "engine_id": certificate.engine_id,
        "is_ca": certificate.is_ca,
    }


def approval_policy_document(policy: ApprovalPolicy) -> dict[str, Json]:
    """Who has to agree."""
    return {
        "required": policy.required,
        "of": list(policy.of),
        "lifetime": format_duration(policy.lifetime),
    }


def approval_document(approval: Approval, now: datetime) -> dict[str, Json]:
    """An approval as the wire has it; `now` decides whether it has expired."""
    return {
        "id": approval.id,
        "status": approval.status_at(now).value,
        "operation": approval.operation.value,
        "ca_id": approval.ca_id,
        "requester": approval.requester,
        "request": approval.request,
        "digest": approval.digest,
        "basis": dict(approval.basis),
        "policies": [
            {"ca_id": ca_id, **approval_policy_document(policy)}
            for ca_id, policy in approval.policies.items()
        ],
        "excluded": list(approval.excluded),
        "votes": [
            {
                "approver": vote.approver,
                "verdict": vote.verdict.value,
                "comment": vote.comment,
                "time": format_time_or_zero(vote.cast_at),
            }
            for vote in approval.votes
        ],
        "creation_ts": format_time_or_zero(approval.created_at),
        "expires_at": format_time_or_zero(approval.expires_at),
        "closed_at": format_time_or_zero(approval.closed_at),
    }


def pem_text(der: bytes, label: str = "CERTIFICATE") -> str:
    """A certificate as JSON carries it: base64 of its PEM."""
    return base64.b64encode(pem_of(der, label)).decode("ascii")
