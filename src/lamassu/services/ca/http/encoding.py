"""Values as answers, and the headers that tell what is still under way."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.listing import FieldType, Filterable
from lamassu.services.ca.contract import (
    ApprovalStatus,
    Certificate,
    CertificateStatus,
    CertificateType,
    CertificationAuthority,
    IssuanceProfile,
    Operation,
    RevocationReason,
    certificate_document,
    profile_document,
)
from lamassu.services.ca.contract.external import AwaitedCa
from lamassu.services.ca.http.answers import (
    AwaitedCaAnswer,
    CaAnswer,
    CertificateAnswer,
    FindingAnswer,
    ProfileAnswer,
)
from lamassu.services.ca.rules.profile_findings import Finding
from lamassu.services.ca.usecases import CaService
from lamassu.services.ca.usecases.documents import ca_document
from lamassu.services.ca.usecases.request_certificate import awaited_document

_CERTIFICATE_FIELDS = {
    "type": FieldType.ENUM,
    "serial_number": FieldType.STRING,
    "subject.common_name": FieldType.STRING,
    "subject_key_id": FieldType.STRING,
    "issuer_meta.id": FieldType.STRING,
    "status": FieldType.ENUM,
    "engine_id": FieldType.STRING,
    "valid_to": FieldType.DATE,
    "valid_from": FieldType.DATE,
    "revocation_timestamp": FieldType.DATE,
    "revocation_reason": FieldType.ENUM,
    "metadata": FieldType.JSON,
    "extensions.key_usage": FieldType.STRING_ARRAY,
    "extensions.extended_key_usage": FieldType.STRING_ARRAY,
    "is_ca": FieldType.ENUM,
}
_CHOICES = {
    "type": [kind.value for kind in CertificateType],
    "status": [status.value for status in CertificateStatus],
    "revocation_reason": [reason.value for reason in RevocationReason],
    "is_ca": ["true", "false"],
}
CERTIFICATES = Filterable(fields=_CERTIFICATE_FIELDS, choices=_CHOICES)
CAS = Filterable(
    fields={"id": FieldType.STRING, "profile_id": FieldType.STRING, **_CERTIFICATE_FIELDS},
    choices=_CHOICES,
)
APPROVALS = Filterable(
    fields={
        "id": FieldType.STRING,
        "status": FieldType.ENUM,
        "operation": FieldType.ENUM,
        "ca_id": FieldType.STRING,
        "requester": FieldType.STRING,
        "creation_ts": FieldType.DATE,
        "expires_at": FieldType.DATE,
    },
    choices={
        "status": [status.value for status in ApprovalStatus],
        "operation": [operation.value for operation in Operation],
    },
)
PROFILES = Filterable(fields={"id": FieldType.STRING, "name": FieldType.STRING})


class Encoder:
    """Encodes for the instant of an answer, which decides what is expired."""

    def __init__(self, service: CaService) -> None:
        self._now = service.now()

    def ca(self, authority: CertificationAuthority) -> CaAnswer:
        return CaAnswer.model_validate(ca_document(authority, self._now))

    def certificate(self, certificate: Certificate) -> CertificateAnswer:
        return CertificateAnswer.model_validate(certificate_document(certificate, self._now))


def awaited_answer(awaited: AwaitedCa) -> AwaitedCaAnswer:
    return AwaitedCaAnswer.model_validate(awaited_document(awaited))


def profile_answer(profile: IssuanceProfile) -> ProfileAnswer:
    return ProfileAnswer.model_validate(profile_document(profile))


def findings_answer(found: Sequence[Finding]) -> list[FindingAnswer]:
    return [FindingAnswer(code=one.code, field=one.field, text=one.text) for one in found]


PROGRESS_HEADERS = {
    "Lamassu-Revocation": "`pending` while OCSP and CRL do not show it yet",
    "Lamassu-Ceremony": "The offline CA whose next CRL has to be made at its ceremony",
    "Lamassu-Job": "The id of the job that revokes what is below",
}


def progress_headers(
    *, shown: bool = True, job_id: str | None = None, ceremony: str | None = None
) -> dict[str, str]:
    """What a revoking call has to admit (security rule 25, decision 20); `ceremony` is the
    offline CA whose next CRL has to be made at its ceremony."""
    headers: dict[str, str] = {}
    if not shown:
        headers["Lamassu-Revocation"] = "pending"
        if ceremony is not None:
            headers["Lamassu-Ceremony"] = ceremony
    if job_id is not None:
        headers["Lamassu-Job"] = job_id
    return headers
