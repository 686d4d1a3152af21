"""What other slices may know of the CA: its values, its Protocols, and their JSON."""

from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract.documents import (
    certificate_document,
    pem_text,
    profile_document,
    subject_document,
    validity_document,
)
from lamassu.services.ca.contract.values import (
    Authorities,
    Certificate,
    CertificateStanding,
    CertificateStatus,
    CertificateType,
    CertificationAuthority,
    CryptoEnforcement,
    IssuanceProfile,
    Issued,
    IssueRequest,
    RevocationListener,
    RevocationReason,
    RevokedEntry,
    Validity,
)

__all__ = [
    "Authorities",
    "Certificate",
    "CertificateStanding",
    "CertificateStatus",
    "CertificateType",
    "CertificationAuthority",
    "CryptoEnforcement",
    "IssuanceProfile",
    "IssueRequest",
    "Issued",
    "RevocationListener",
    "RevocationReason",
    "RevokedEntry",
    "Subject",
    "Validity",
    "certificate_document",
    "pem_text",
    "profile_document",
    "subject_document",
    "validity_document",
]
