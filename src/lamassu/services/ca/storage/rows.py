"""Rows become values and values rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row

from lamassu.kernel.identity import Caller, Principal, PrincipalKind
from lamassu.kernel.records import Json
from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract import (
    Approval,
    ApprovalPolicy,
    ApprovalStatus,
    Certificate,
    CertificateStatus,
    CertificateType,
    CertificationAuthority,
    Operation,
    RevocationReason,
    Verdict,
    Vote,
)
from lamassu.services.ca.model import (
    CascadeJob,
    JobKind,
    JobPlace,
    JobStatus,
    NewCertificate,
)
from lamassu.services.ca.rules.expiry import next_alert
from lamassu.services.ca.rules.metadata import Reissue, rendered, users_own
from lamassu.services.ca.storage import tables

AnyRow = Row[Any]
_SUBJECT = [field.name for field in fields(Subject)]

CERTIFICATE_COLUMNS = [
    column
    for column in tables.certificates.c
    if column.name not in ("csr", "request_key", "alert_at", "profile_id", "requested_by")
]
# Beside a certificate's columns, some of which have the same names.
CA_COLUMNS = [column.label(f"ca_{column.name}") for column in tables.cas.c]


def certificate_of(row: AnyRow) -> Certificate:
    """From a row of `CERTIFICATE_COLUMNS`."""
    return Certificate(
        serial_number=row.serial_number,
        der=row.der,
        subject=Subject(**row.subject),
        issuer=Subject(**row.issuer),
        subject_key_id=row.subject_key_id,
        authority_key_id=row.authority_key_id,
        issuer_ca_id=row.issuer_ca_id,
        issuer_serial_number=row.issuer_serial_number,
        issuer_level=row.issuer_level,
        not_before=row.not_before,
        not_after=row.not_after,
        stored_status=CertificateStatus(row.status),
        type=CertificateType(row.type),
        is_ca=row.is_ca,
        key_algorithm=row.key_algorithm,
        key_size=row.key_size,
        engine_id=row.engine_id,
        key_usage=tuple(row.key_usage),
        extended_key_usages=tuple(row.extended_key_usages),
        revocation_time=row.revocation_time,
        revocation_reason=RevocationReason(row.revocation_reason),
        metadata=rendered(
            row.metadata,
            owner=row.owner,
            device_id=row.device_id,
            reissue=Reissue(row.reissued_from, row.reissued_as, row.reissued_at),
        ),
        version=row.version,
    )


def values_of_new(new: NewCertificate) -> dict[str, object]:
    """The whole row of a certificate."""
    certificate = new.certificate
    return {
        "serial_number": certificate.serial_number,
        "der": certificate.der,
        "csr": new.csr_der or None,
        "requested_by": new.requested_by or None,
        "subject": _named(certificate.subject),
        "common_name": certificate.subject.common_name,
        "issuer": _named(certificate.issuer),
        "subject_key_id": certificate.subject_key_id,
        "authority_key_id": certificate.authority_key_id,
        "issuer_ca_id": certificate.issuer_ca_id,
        "issuer_serial_number": certificate.issuer_serial_number,
        "issuer_level": certificate.issuer_level,
        "not_before": certificate.not_before,
        "not_after": certificate.not_after,
        "type": certificate.type.value,
        "is_ca": certificate.is_ca,
        "key_algorithm": certificate.key_algorithm,
        "key_size": certificate.key_size,
        "key_usage": list(certificate.key_usage),
        "extended_key_usages": list(certificate.extended_key_usages),
        "owner": new.owner,
        "device_id": new.device_id,
        "awaits_binding": new.awaits_binding,
        "request_key": new.request_key,
        "profile_id": new.profile_id or None,
        "created_at": new.created_at,
        "reissued_as": None,
        "reissued_at": None,
        "reissued_from": new.reissued_from,
        **changeable_of(certificate),
    }


def changeable_of(certificate: Certificate) -> dict[str, object]:
    """What of a certificate can change."""
    return {
        "engine_id": certificate.engine_id,
        "status": certificate.stored_status.value,
        "revocation_time": certificate.revocation_time,
        "revocation_reason": certificate.revocation_reason.value,
        "metadata": users_own(certificate.metadata),
        "alert_at": _alert(certificate, certificate.metadata),
        "version": certificate.version,
    }


def _alert(certificate: Certificate, metadata: Mapping[str, Json]) -> datetime | None:
    """When somebody is to be told of its end: of no certificate that is not in use."""
    if certificate.stored_status is not CertificateStatus.ACTIVE:
        return None
    return next_alert(metadata, certificate.not_after)


def authority_of(row: AnyRow) -> CertificationAuthority:
    """From a row of `CERTIFICATE_COLUMNS` and `CA_COLUMNS`."""
    return CertificationAuthority(
        id=row.ca_id,
        certificate=certificate_of(row),
        key_id=row.ca_key_id,
        level=row.ca_level,
        parent_id=row.ca_parent_id,
        profile_id=row.ca_profile_id,
        created_at=row.ca_created_at,
        metadata=rendered(row.ca_metadata, reissue=Reissue(row.reissued_from)),
        revoked_by=row.ca_revoked_by,
        approvals=policy_of(row.ca_approvals),
        successor_id=row.ca_successor_id,
        lineage_id=row.ca_lineage_id,
        version=row.ca_version,
    )


def values_of_ca(authority: CertificationAuthority) -> dict[str, object]:
    """The whole row of a CA."""
    return {
        "id": authority.id,
        "key_id": authority.key_id,
        "level": authority.level,
        "parent_id": authority.parent_id,
        "lineage_id": authority.lineage_id,
        "created_at": authority.created_at,
        **changeable_of_ca(authority),
    }


def changeable_of_ca(authority: CertificationAuthority) -> dict[str, object]:
    """What of a CA can change."""
    return {
        "serial_number": authority.certificate.serial_number,
        "subject_key_id": authority.certificate.subject_key_id,
        "profile_id": authority.profile_id,
        "metadata": users_own(authority.metadata),
        "alert_at": _alert(authority.certificate, authority.metadata),
        "revoked_by": authority.revoked_by,
        "successor_id": authority.successor_id,
        "approvals": _policy(authority.approvals) if authority.approvals else None,
        "version": authority.version,
    }


def job_of(row: AnyRow) -> CascadeJob:
    """From a row of `tables.jobs`."""
    caller: Mapping[str, str] = row.caller
    return CascadeJob(
        id=row.id,
        ca_ids=tuple(row.ca_ids),
        revoked_at=row.revoked_at,
        caller=Caller(
            Principal(PrincipalKind(caller["kind"]), caller["name"]),
            caller["request_id"],
            caller["address"],
        ),
        created_at=row.created_at,
        kind=JobKind(row.kind or JobKind.REVOKE),
        status=JobStatus(row.status),
        done_at=row.done_at,
        total=row.total,
        done=row.done or 0,
        announced=row.announced or 0,
        place=_place(row.place),
    )


def values_of_job(job: CascadeJob) -> dict[str, object]:
    """The whole row of a cascade."""
    return {
        "id": job.id,
        "ca_ids": list(job.ca_ids),
        "revoked_at": job.revoked_at,
        "caller": {
            "kind": job.caller.principal.kind.value,
            "name": job.caller.principal.name,
            "request_id": job.caller.request_id,
            "address": job.caller.address,
        },
        "created_at": job.created_at,
        "kind": job.kind.value,
        **changeable_of_job(job),
    }


def changeable_of_job(job: CascadeJob) -> dict[str, object]:
    """What of a job changes as it goes on."""
    place = job.place
    return {
        "status": job.status.value,
        "done_at": job.done_at,
        "total": job.total,
        "done": job.done,
        "announced": job.announced,
        "place": json.dumps([place.ca, place.step, place.after, place.found]) if place else None,
    }


def _place(stored: str | None) -> JobPlace | None:
    return JobPlace(*json.loads(stored)) if stored is not None else None


def policy_of(stored: Mapping[str, Any] | None) -> ApprovalPolicy | None:
    """From a CA's column; durations are seconds."""
    if stored is None:
        return None
    return ApprovalPolicy(
        required=stored["required"],
        of=tuple(stored["of"]),
        lifetime=timedelta(seconds=stored["lifetime"]),
    )


def _policy(policy: ApprovalPolicy) -> dict[str, object]:
    return {
        "required": policy.required,
        "of": list(policy.of),
        "lifetime": policy.lifetime.total_seconds(),
    }


def approval_of(row: AnyRow, votes: Sequence[Vote]) -> Approval:
    """From a row of `tables.approvals` and the votes on it."""
    policies = {ca_id: policy_of(stored) for ca_id, stored in row.policies.items()}
    return Approval(
        id=row.id,
        operation=Operation(row.operation),
        ca_ids=tuple(row.ca_ids),
        requester=row.requester,
        digest=row.digest,
        request=row.request,
        policies={ca_id: policy for ca_id, policy in policies.items() if policy is not None},
        created_at=row.created_at,
        expires_at=row.expires_at,
        basis=row.basis,
        excluded=tuple(row.excluded),
        status=ApprovalStatus(row.status),
        closed_at=row.closed_at,
        votes=tuple(votes),
        version=row.version,
    )


def values_of_approval(approval: Approval) -> dict[str, object]:
    """The whole row of an approval; votes have rows of their own."""
    return {
        "id": approval.id,
        "operation": approval.operation.value,
        "ca_id": approval.ca_id,
        "ca_ids": list(approval.ca_ids),
        "requester": approval.requester,
        "digest": approval.digest,
        "request": dict(approval.request),
        "policies": {ca_id: _policy(policy) for ca_id, policy in approval.policies.items()},
        "basis": dict(approval.basis),
        "excluded": list(approval.excluded),
        "created_at": approval.created_at,
        "expires_at": approval.expires_at,
        **changeable_of_approval(approval),
    }


def changeable_of_approval(approval: Approval) -> dict[str, object]:
    """What of an approval can change."""
    return {
        "status": approval.status.value,
        "closed_at": approval.closed_at,
        "version": approval.version,
    }


def vote_of(row: AnyRow) -> Vote:
    """From a row of `tables.approval_votes`."""
    return Vote(row.approver, Verdict(row.verdict), row.cast_at, row.comment)


def values_of_vote(approval_id: str, vote: Vote) -> dict[str, object]:
    """The whole row of a vote."""
    return {
        "approval_id": approval_id,
        "approver": vote.approver,
        "verdict": vote.verdict.value,
        "cast_at": vote.cast_at,
        "comment": vote.comment,
    }


def _named(subject: Subject) -> dict[str, Json]:
    return {name: value for name in _SUBJECT if (value := getattr(subject, name))}
