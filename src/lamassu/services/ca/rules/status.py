"""States of certificates and CAs, and what follows from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from lamassu.kernel.errors import Conflict, Forbidden, RuleViolation
from lamassu.services.ca.contract import (
    Certificate,
    CertificateStanding,
    CertificateStatus,
    CertificationAuthority,
    RevocationReason,
)
from lamassu.services.ca.model import LockedCertificate, StandingRow, StatusChange

# Whoever relies on a CA's statement that it ended learns the same of all that it issued.
CASCADE_REASON = RevocationReason.CESSATION_OF_OPERATION

_ACTIVE, _REVOKED = CertificateStatus.ACTIVE, CertificateStatus.REVOKED


def on_hold(certificate: Certificate) -> bool:
    """Whether it is revoked in the one way that can be undone."""
    return (
        certificate.stored_status is _REVOKED
        and certificate.revocation_reason is RevocationReason.CERTIFICATE_HOLD
    )


def revoked_for_good(certificate: Certificate) -> bool:
    """Whether it is revoked and can never be active again."""
    return certificate.stored_status is _REVOKED and not on_hold(certificate)


def check_transition(current: Certificate, change: StatusChange, now: datetime) -> None:
    """Refuse a change of status that is not allowed; texts are the original's.

    From `EXPIRED` and from a final revocation nothing leads on; `EXPIRED` is never asked for
    (it is derived from the end date); a hold ends in release or in a final revocation.
    """
    check_reason(change)
    refused = (
        current.status_at(now) is CertificateStatus.EXPIRED
        or revoked_for_good(current)
        or change.status is CertificateStatus.EXPIRED
        or (on_hold(current) and change.status is CertificateStatus.INACTIVE)
    )
    if refused:
        raise RuleViolation(
            "new status transition not allowed for certificate",
            code="status_transition",
            field="status",
        )


def check_reason(change: StatusChange) -> None:
    """Refuse the one reason that ends a revocation (decision 20)."""
    if change.status is _REVOKED and change.reason is RevocationReason.REMOVE_FROM_CRL:
        raise RuleViolation(
            "RemoveFromCRL is no reason to revoke; to end a hold, set the status to ACTIVE",
            code="reason_not_allowed",
            field="revocation_reason",
        )


def changes_nothing(current: Certificate, change: StatusChange) -> bool:
    """Whether the certificate is already what is asked for."""
    return current.stored_status is change.status and (
        change.status is not _REVOKED or current.revocation_reason is change.reason
    )


def changed(current: Certificate, change: StatusChange, now: datetime) -> Certificate:
    """The certificate after the change; time and reason are reset when it is released."""
    revoking = change.status is _REVOKED
    return replace(
        current,
        stored_status=change.status,
        revocation_time=now if revoking else None,
        revocation_reason=change.reason if revoking else RevocationReason.UNSPECIFIED,
        version=current.version + 1,
    )


def key_is_offline(authority: CertificationAuthority) -> Conflict:
    """Why nothing can be signed by this CA here, and what to do instead."""
    return Conflict(
        f"the key of {authority.id} is offline: what it signs is signed at its ceremony (lamassu"
        " ceremony run) and brought here: a CA below it by lamassu ca create ID --external-root"
        f" {authority.id} and lamassu ca import-signed, its CRL by lamassu va import-crl",
        code="ca_key_offline",
    )


def check_may_sign(authority: CertificationAuthority, now: datetime) -> None:
    """Refuse to sign with a CA that is not active, unexpired and below unrevoked CAs, or whose
    key is not here (`ca_key_offline`)."""
    if (
        authority.revoked_by is not None
        or authority.certificate.status_at(now) is not _ACTIVE
        or now < authority.certificate.not_before
    ):
        raise RuleViolation("CA Status inconsistent", code="ca_not_active")
    if not authority.key_id:
        raise key_is_offline(authority)


def check_may_be_replaced(locked: LockedCertificate | None, issuer_ca_id: str) -> None:
    """Judge a certificate that is being renewed, under lock (security rule 13).

    Raises `Conflict` (`certificate_superseded`), `Forbidden` (`certificate_unknown`,
    `certificate_revoked`).
    """
    if locked is None or locked.certificate.issuer_ca_id != issuer_ca_id:
        raise Forbidden("the certificate to renew is not known", code="certificate_unknown")
    current = locked.certificate
    superseded = current.revocation_reason is RevocationReason.SUPERSEDED
    if current.stored_status is _REVOKED and superseded:
        raise Conflict(
            "the certificate to renew was superseded; use its successor",
            code="certificate_superseded",
        )
    if current.stored_status is not _ACTIVE or locked.issuer_revoked:
        raise Forbidden("the certificate to renew is revoked", code="certificate_revoked")


def check_may_be_released(parent: CertificationAuthority | None) -> None:
    """Refuse to release a CA from hold while the CA above it stands revoked."""
    if parent is not None and parent.revoked_by is not None:
        raise RuleViolation(
            f"the issuing CA {parent.id} is revoked; release that one first",
            code="issuer_revoked",
            field="status",
        )


def standing_of(row: StandingRow | None, read_at: datetime) -> CertificateStanding:
    """What a status query is told: a revoked CA revokes all below it (security rule 24).

    The certificate's own final revocation keeps its time and reason; its hold gives way to a
    final revocation of the CA.
    """
    if row is None or row.status in (None, CertificateStatus.INACTIVE):
        return CertificateStanding(known=False, revoked=False, read_at=read_at)
    own = row.status is _REVOKED
    held = own and row.reason is RevocationReason.CERTIFICATE_HOLD
    if row.ca_revoked and (not own or held):
        ca_held = row.ca_reason is RevocationReason.CERTIFICATE_HOLD
        return CertificateStanding(
            known=True,
            revoked=True,
            read_at=read_at,
            revocation_time=row.ca_revocation_time,
            reason=RevocationReason.CERTIFICATE_HOLD if ca_held else CASCADE_REASON,
            not_after=row.not_after,
            der=row.der or b"",
        )
    return CertificateStanding(
        known=True,
        revoked=own,
        read_at=read_at,
        revocation_time=row.revocation_time if own else None,
        reason=row.reason if own else RevocationReason.UNSPECIFIED,
        not_after=row.not_after,
        der=row.der or b"",
    )
