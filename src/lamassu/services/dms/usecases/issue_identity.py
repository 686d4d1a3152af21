"""Issue a certificate and put it into its device's slot: two commits, repeatable (decision 26)."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass

from lamassu.kernel.errors import Conflict, NotFound, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_duration
from lamassu.kernel.x509.csr import CertificateRequest
from lamassu.services.ca.contract import (
    Authorities,
    Certificate,
    CertificateStatus,
    IssueRequest,
    RevocationReason,
)
from lamassu.services.devices.contract import Binding, BindMode, Device, Devices, NewDevice
from lamassu.services.dms.model.dms import Dms
from lamassu.services.dms.rules.request_keys import RequestIdentity

EXPIRATION_DELTAS = "lamassu.io/ca/expiration-deltas"
_MOST_ATTEMPTS = 8


@dataclass(frozen=True, slots=True)
class IdentityOrder:
    """A judged enrolment: what to issue, and into whose slot.

    `device` is as it was judged, `None` if it is to be created by `create`. `replaces` is
    (issuer CA id, serial number) of the certificate that must still be active.
    """

    dms: Dms
    csr: CertificateRequest
    identity: RequestIdentity
    mode: BindMode
    caller: Caller
    device: Device | None
    create: NewDevice | None = None
    replaces: tuple[str, str] | None = None
    subject_der: bytes | None = None
    san_der: bytes | None = None


class IdentityIssuer:
    """Certificates of devices, from the CA into the slot."""

    def __init__(self, *, authorities: Authorities, devices: Devices) -> None:
        self._authorities = authorities
        self._devices = devices

    async def issue(self, order: IdentityOrder) -> Certificate:
        """The certificate: stored, in the slot, active.

        A repeated request meets the certificate of its first try, unless that one was refused
        since: then the next attempt gets a new one. When the device changed meanwhile, what was
        issued is revoked again (rule 13). Raises what CA and devices raise, `Unavailable`
        when the DMS names a CA or profile that is gone.
        """
        for attempt in range(_MOST_ATTEMPTS):
            certificate = await self._issue(order, attempt)
            if certificate is None:
                continue
            try:
                await self._devices.bind(_binding(order, certificate))
            except Conflict as conflict:
                if conflict.code == "certificate_refused":
                    continue
                await self._withdraw(certificate, order)
                raise
            return certificate
        raise Conflict("this request was refused too often; make a new key", code="device_changed")

    async def find_issued(self, identity: RequestIdentity, sha256: str) -> Certificate | None:
        """The certificate with this digest, if exactly this request had it issued."""
        for attempt in range(_MOST_ATTEMPTS):
            certificate = await self._authorities.find_issued(identity.key(attempt))
            if certificate is None:
                return None
            if _sha256(certificate) == sha256:
                return certificate
        return None

    async def retire(self, serial_number: str, caller: Caller) -> None:
        """Revoke a certificate that another took the place of.

        The new one is bound by now and has to reach its device: what fails here is made up for
        by the handler of the slot's event. One that expired needs no revocation.
        """
        with suppress(Unavailable, NotFound, Conflict, RuleViolation):
            await self._authorities.revoke(
                serial_number, RevocationReason.SUPERSEDED, caller=caller
            )

    async def _issue(self, order: IdentityOrder, attempt: int) -> Certificate | None:
        """`None` when this attempt's certificate was made before and revoked since."""
        settings = order.dms.settings
        profile_id = settings.issuance_profile_id or None
        try:
            issued = await self._authorities.issue(
                IssueRequest(
                    ca_id=settings.enrollment.enrollment_ca,
                    csr_der=order.csr.der,
                    verified_csr=order.csr,
                    caller=order.caller,
                    request_key=order.identity.key(attempt),
                    profile_id=profile_id,
                    profile=None if profile_id else settings.issuance_profile,
                    replaces=order.replaces,
                    subject_der=order.subject_der,
                    san_der=order.san_der,
                    owner=order.dms.id,
                    device_id=order.identity.device_id,
                    metadata=_metadata(order.dms),
                )
            )
        except NotFound as missing:
            raise Unavailable(
                f"the DMS names what is no longer there ({missing.text}); tell its operator",
                code="dms_incomplete",
            ) from None
        except RuleViolation as fault:
            if fault.field != "profile":
                raise
            # Nothing that a device asked: its operator changed the profile since naming it.
            raise Unavailable(
                f"the DMS's profile certifies no device ({fault.text}); tell its operator",
                code="dms_incomplete",
            ) from None
        certificate = issued.certificate
        if issued.repeated and certificate.stored_status is CertificateStatus.REVOKED:
            return None
        return certificate

    async def _withdraw(self, certificate: Certificate, order: IdentityOrder) -> None:
        """Revoke what entered no slot, after it was barred from every slot."""
        barred = await self._devices.refuse(certificate.serial_number, order.identity.device_id)
        if barred:
            await self._authorities.revoke(
                certificate.serial_number,
                RevocationReason.CESSATION_OF_OPERATION,
                caller=order.caller,
            )
            await self._authorities.reconcile([certificate.serial_number])


def _binding(order: IdentityOrder, certificate: Certificate) -> Binding:
    return Binding(
        device_id=order.identity.device_id,
        dms_id=order.dms.id,
        mode=order.mode,
        ca_id=certificate.issuer_ca_id,
        serial_number=certificate.serial_number,
        certificate_sha256=_sha256(certificate),
        not_after=certificate.not_after,
        judged_version=order.device.version if order.device else None,
        caller=order.caller,
        create=order.create,
    )


def _metadata(dms: Dms) -> dict[str, Json]:
    """What makes the CA say when the end of a certificate comes near."""
    reenrollment = dms.settings.reenrollment
    deltas = (
        ("Preventive", reenrollment.preventive_delta),
        ("Critical", reenrollment.critical_delta),
    )
    told: list[Json] = [
        {"delta": format_duration(delta), "name": name, "triggered": False}
        for name, delta in deltas
        if delta
    ]
    return {EXPIRATION_DELTAS: told} if told else {}


def _sha256(certificate: Certificate) -> str:
    return hashlib.sha256(certificate.der).hexdigest()
