"""May a device's current certificate be followed by another? (decisions 24, 25)"""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509

from lamassu.kernel.errors import Forbidden
from lamassu.kernel.x509.csr import CertificateRequest
from lamassu.kernel.x509.names import same_subject
from lamassu.services.devices.contract import Device, IdentitySlot, SlotVersion
from lamassu.services.dms.rules.peer import VerifiedPeer


def check_bound(device: Device | None, dms_id: str) -> tuple[Device, IdentitySlot]:
    """The device that the presented certificate is or was the identity of, if it is of this DMS.

    Raises `Forbidden` (`certificate_not_bound`, `device_of_other_dms`).
    """
    if device is None or device.slot is None:
        raise Forbidden(
            "device not found: the client certificate is no device's identity; "
            "re-enrolment needs the device's current one",
            code="certificate_not_bound",
        )
    if device.dms_id != dms_id:
        raise Forbidden("device already registered to another DMS", code="device_of_other_dms")
    return device, device.slot


def presented_version(slot: IdentitySlot, certificate_sha256: str) -> SlotVersion:
    """Which of the slot's certificates was presented. Raises `Forbidden`."""
    for version in slot.versions:
        if version.certificate_sha256 == certificate_sha256:
            return version
    raise superseded()


def may_have_lost_the_answer(slot: IdentitySlot, presented: SlotVersion) -> bool:
    """Whether the presented certificate's successor may never have arrived."""
    follows = presented.number == slot.active_version - 1
    return follows and slot.current.first_used_at is None


def superseded() -> Forbidden:
    """The refusal of a certificate that was followed by another."""
    return Forbidden(
        "certificate was superseded; use the device's current one", code="certificate_superseded"
    )


def check_answer_still_open(issued_at: datetime, window: timedelta, now: datetime) -> None:
    """A lost answer can be fetched again for a while. Raises `Forbidden`."""
    if now > issued_at + window:
        raise superseded()


def check_renewal_window(not_after: datetime, window: timedelta, now: datetime) -> None:
    """Refuse a re-enrolment that comes too early.

    `window` counts back from `not_after`. Raises `Forbidden` (`too_early_to_reenroll`), whose
    text says when it opens.
    """
    opens = not_after - window
    if now < opens:
        raise Forbidden(
            f"invalid reenroll window: it opens at {opens:%Y-%m-%dT%H:%M:%SZ}",
            code="too_early_to_reenroll",
        )


def check_same_subject(csr: CertificateRequest, current: VerifiedPeer) -> None:
    """The CSR names the certificate's subject, by the six attributes (RFC 5280 §7.1).

    Raises `Forbidden` (`subject_mismatch`).
    """
    if not same_subject(csr.subject, current.facts.subject):
        raise Forbidden(
            "invalid RawSubject bytes: the CSR's subject is not the current certificate's",
            code="subject_mismatch",
            field="csr",
        )


def check_same_alternative_names(csr: CertificateRequest, current: VerifiedPeer) -> None:
    """An absent subjectAltName is inherited, a different one refused (decision 25).

    Raises `Forbidden` (`san_mismatch`).
    """
    if csr.san_der is None or csr.san_der == current.facts.san_der:
        return
    asked = _alternative_names(csr.parsed.extensions)
    held = _alternative_names(x509.load_der_x509_certificate(current.certificate).extensions)
    if asked is None or asked != held:
        raise Forbidden(
            "the CSR's subjectAltName is not the current certificate's",
            code="san_mismatch",
            field="csr",
        )


def _alternative_names(extensions: x509.Extensions) -> frozenset[x509.GeneralName] | None:
    for extension in extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            return frozenset(extension.value)
    return None
