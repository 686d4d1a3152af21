"""Is what another system calls issued by a CA of ours really so? Values in, verdict out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from lamassu.kernel.adoption import Outcome, Verdict
from lamassu.kernel.errors import Conflict, RuleViolation
from lamassu.kernel.records import Json
from lamassu.kernel.x509.facts import CertificateFacts, certificate_facts
from lamassu.kernel.x509.keys import check_key_facts, key_id
from lamassu.services.ca.contract import (
    Certificate,
    CertificateStatus,
    CertificateType,
    CertificationAuthority,
    RevocationReason,
)
from lamassu.services.ca.model import NO_CA, NewCertificate
from lamassu.services.ca.rules.metadata import rendered, users_own

MOST_SERIAL_OCTETS = 20  # RFC 5280 §4.1.2.2
_NONE = (NO_CA, NO_CA, -1)  # the issuer of what no CA of ours signed


@dataclass(frozen=True, slots=True)
class FoundStatus:
    """What the other system says of a certificate's status; `EXPIRED` is nobody's to say."""

    revoked: bool = False
    inactive: bool = False
    at: datetime | None = None
    reason: RevocationReason = RevocationReason.UNSPECIFIED


UNREVOKED = FoundStatus()


@dataclass(frozen=True, slots=True)
class FoundCertificate:
    """A certificate as the other system has it; `label` says where.

    `owner` and `device_id` name the DMS and the device that it was issued for.
    """

    label: str
    der: bytes
    status: FoundStatus = UNREVOKED
    metadata: Mapping[str, Json] = field(default_factory=dict)
    created_at: datetime | None = None
    owner: str = ""
    device_id: str = ""


@dataclass(frozen=True, slots=True)
class FoundAuthority:
    """A CA as the other system has it. `key_id` is empty where its key did not come along."""

    id: str
    der: bytes
    key_id: str = ""
    engine_id: str = ""
    type: CertificateType = CertificateType.IMPORTED_WITHOUT_KEY
    profile_id: str = ""
    status: FoundStatus = UNREVOKED
    metadata: Mapping[str, Json] = field(default_factory=dict)
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Issuer:
    authority: CertificationAuthority
    certificate: x509.Certificate


class IssuerTable:
    """The CAs of ours, by name, with what their signatures are verified with."""

    def __init__(self, authorities: Iterable[CertificationAuthority]) -> None:
        self._by_name: dict[bytes, list[_Issuer]] = {}
        self._ders: set[bytes] = set()
        for authority in authorities:
            self.add(authority)

    def add(self, authority: CertificationAuthority) -> None:
        """Know a further CA."""
        der = authority.certificate.der
        issuer = _Issuer(authority, x509.load_der_x509_certificate(der))
        self._ders.add(der)
        self._by_name.setdefault(certificate_facts(der).subject_der, []).append(issuer)

    def has(self, der: bytes) -> bool:
        """Whether this is the present certificate of one of them."""
        return der in self._ders

    def issuer_of(self, der: bytes, facts: CertificateFacts) -> CertificationAuthority:
        """The CA of ours whose key signed this. Security rule 14: nothing else makes it ours.

        Raises `RuleViolation`: `issuer_unknown` if none has the issuer's name,
        `signature_invalid` if one has and did not sign.
        """
        candidates = self._by_name.get(facts.issuer_der, ())
        if not candidates:
            raise RuleViolation(
                "no CA here has its issuer's name: import that CA first", code="issuer_unknown"
            )
        certificate = x509.load_der_x509_certificate(der)
        named = facts.aki
        for issuer in sorted(
            candidates, key=lambda one: one.authority.certificate.subject_key_id != named
        ):
            if is_signed_by(certificate, issuer.certificate):
                return issuer.authority
        raise RuleViolation(
            f"names {candidates[0].authority.id} as its issuer, whose key did not sign it",
            code="signature_invalid",
        )


def is_signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether names chain and the signature verifies with the issuer's key."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def check_storable(facts: CertificateFacts) -> None:
    """Refuse what could not be found again. Raises `RuleViolation` (`serial_number_malformed`)."""
    if len(facts.serial_number) > 2 * MOST_SERIAL_OCTETS:
        raise RuleViolation(
            "its serial number is longer than 20 octets", code="serial_number_malformed"
        )


def check_authority(facts: CertificateFacts) -> None:
    """Refuse what is no CA that could be one here.

    Raises `RuleViolation` (`not_a_ca`, `key_not_allowed`, `serial_number_malformed`).
    """
    if not facts.is_ca:
        raise RuleViolation("its certificate is no CA's", code="not_a_ca")
    check_key_facts(facts.key, field="certificate")
    check_storable(facts)


def check_same(stored: Certificate, der: bytes) -> None:
    """Refuse a serial number that another certificate has. Raises `Conflict`."""
    if stored.der != der:
        raise Conflict(
            f"its serial number is that of another certificate here, of the CA"
            f" {stored.issuer_ca_id}: serial numbers are unique over all CAs of the platform",
            code="serial_number_taken",
        )


def learns_revocation(stored: Certificate, found: FoundStatus) -> bool:
    """Whether the source knows of a revocation that we do not; never the other way round."""
    return found.revoked and stored.stored_status is not CertificateStatus.REVOKED


def revoked_at_source(label: str) -> Verdict:
    """On a CA that is here and that its source has revoked since. A whole hierarchy falls with
    it: that is a person's to do, with the approvals that it needs."""
    text = "its source has revoked this CA: revoke it here too"
    return Verdict(label, Outcome.PRESENT, "ca_revoked_at_source", text)


def with_status(certificate: Certificate, found: FoundStatus, now: datetime) -> Certificate:
    """With the status that was found.

    A revocation without a time counts from the certificate's beginning, one from the future
    from now; `RemoveFromCRL` is no reason to be revoked for (decision 20).
    """
    if found.revoked:
        reason = found.reason
        if reason is RevocationReason.REMOVE_FROM_CRL:
            reason = RevocationReason.UNSPECIFIED
        return replace(
            certificate,
            stored_status=CertificateStatus.REVOKED,
            revocation_time=min(found.at or certificate.not_before, now),
            revocation_reason=reason,
        )
    if found.inactive:
        return replace(certificate, stored_status=CertificateStatus.INACTIVE)
    return certificate


def new_certificate(
    found: FoundCertificate,
    facts: CertificateFacts,
    issuer: CertificationAuthority | None,
    now: datetime,
) -> NewCertificate:
    """The row of a certificate that a CA of ours signed, or none of them (`issuer` absent)."""
    of_device = bool(found.owner and found.device_id)
    certificate = certificate_row(
        facts,
        found.der,
        issuer=(issuer.id, issuer.certificate.serial_number, issuer.level) if issuer else _NONE,
        metadata=rendered(found.metadata, owner=found.owner, device_id=found.device_id),
    )
    return NewCertificate(
        certificate=with_status(certificate, found.status, now),
        created_at=found.created_at or facts.not_before,
        owner=found.owner if of_device else "",
        device_id=found.device_id if of_device else "",
        # the device manager adopts its slot; nobody is to revoke it for not being in one yet
        seen_bound=True,
    )


def new_authority(
    found: FoundAuthority,
    facts: CertificateFacts,
    parent: CertificationAuthority | None,
    *,
    self_signed: bool,
    now: datetime,
) -> CertificationAuthority:
    """A CA, with its certificate: a root, one below `parent`, or one whose issuer is not here."""
    if parent is not None:
        issuer = (parent.id, parent.certificate.serial_number, parent.level)
    elif self_signed:
        issuer = (found.id, facts.serial_number, 0)
    else:
        issuer = (NO_CA, facts.serial_number, -1)  # as the original has it
    certificate = replace(
        certificate_row(facts, found.der, issuer=issuer, metadata={}),
        type=found.type,
        engine_id=found.engine_id if found.key_id else "",
    )
    certificate = with_status(certificate, found.status, now)
    revoked = certificate.stored_status is CertificateStatus.REVOKED
    return CertificationAuthority(
        id=found.id,
        certificate=certificate,
        key_id=found.key_id,
        level=parent.level + 1 if parent else 0,
        parent_id=parent.id if parent else None,
        profile_id=found.profile_id,
        created_at=found.created_at or now,
        metadata=users_own(found.metadata),
        revoked_by=found.id if revoked else parent.revoked_by if parent else None,
        version=1,
    )


def of_stored(authority: CertificationAuthority, stored: Certificate) -> CertificationAuthority:
    """The CA of a certificate whose row was there before: revoked if either says so."""
    certificate = authority.certificate
    status = stored
    if stored.stored_status is not CertificateStatus.REVOKED:
        status = certificate
    certificate = replace(
        certificate,
        stored_status=status.stored_status,
        revocation_time=status.revocation_time,
        revocation_reason=status.revocation_reason,
        metadata=stored.metadata,
        version=stored.version + 1,
    )
    revoked = certificate.stored_status is CertificateStatus.REVOKED
    revoked_by = authority.id if revoked else authority.revoked_by
    return replace(authority, certificate=certificate, revoked_by=revoked_by)


def subject_key_id_of(facts: CertificateFacts) -> str:
    """As it stands in the certificate; what we would have given it, where there is none."""
    return facts.ski or key_id(facts.spki)


def certificate_row(
    facts: CertificateFacts,
    der: bytes,
    *,
    issuer: tuple[str, str, int],
    metadata: Mapping[str, Json],
) -> Certificate:
    """The row of a certificate that was made elsewhere; `issuer` is the id, serial number and
    level of the CA that signed it."""
    return Certificate(
        serial_number=facts.serial_number,
        der=der,
        subject=facts.subject,
        issuer=facts.issuer,
        subject_key_id=subject_key_id_of(facts),
        authority_key_id=facts.aki,
        issuer_ca_id=issuer[0],
        issuer_serial_number=issuer[1],
        issuer_level=issuer[2],
        not_before=facts.not_before,
        not_after=facts.not_after,
        stored_status=CertificateStatus.ACTIVE,
        type=CertificateType.IMPORTED_WITHOUT_KEY,
        is_ca=facts.is_ca,
        key_algorithm=facts.key.algorithm,
        key_size=facts.key.size,
        key_usage=facts.key_usage,
        extended_key_usages=facts.extended_key_usages,
        metadata=metadata,
        version=1,
    )


def in_hierarchy(found: Sequence[FoundAuthority]) -> Sequence[FoundAuthority]:
    """Issuers before those whom they issued, as far as names tell; each once."""
    names = {one.id: certificate_facts(one.der) for one in found}
    waiting, ordered = list(found), list[FoundAuthority]()
    while waiting:
        missing = {names[one.id].subject_der for one in waiting}
        ready = [
            one
            for one in waiting
            if names[one.id].issuer_der == names[one.id].subject_der
            or names[one.id].issuer_der not in missing
        ]
        ordered += ready or waiting  # a ring of names: then in any order
        waiting = [one for one in waiting if one not in ordered]
    return ordered
