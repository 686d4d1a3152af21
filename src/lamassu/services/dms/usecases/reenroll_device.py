"""The next certificate of a device that shows its current one (RFC 7030 §4.2.2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import Caller, Principal, PrincipalKind
from lamassu.kernel.x509.csr import CertificateRequest
from lamassu.services.ca.contract import (
    Authorities,
    Certificate,
    CertificateStanding,
    CertificateStatus,
)
from lamassu.services.devices.contract import (
    BindMode,
    Device,
    Devices,
    IdentitySlot,
)
from lamassu.services.dms.contract import CsrPayload, EnrollmentRequest
from lamassu.services.dms.model.defaults import DmsDefaults
from lamassu.services.dms.model.dms import Dms
from lamassu.services.dms.rules.csr_payload import read_csr
from lamassu.services.dms.rules.device import check_in_service, device_id_of, device_revoked
from lamassu.services.dms.rules.peer import VerifiedPeer, certificate_revoked, was_superseded
from lamassu.services.dms.rules.renewal import (
    check_answer_still_open,
    check_bound,
    check_renewal_window,
    check_same_alternative_names,
    check_same_subject,
    may_have_lost_the_answer,
    presented_version,
    superseded,
)
from lamassu.services.dms.rules.request_keys import RequestIdentity
from lamassu.services.dms.rules.settings import check_can_enroll
from lamassu.services.dms.usecases.dms_catalog import DmsCatalog
from lamassu.services.dms.usecases.issue_identity import IdentityIssuer, IdentityOrder
from lamassu.services.dms.usecases.judge_peer import PeerJudge
from lamassu.services.dms.usecases.keep_refused import refusals_kept


class DeviceReenroller:
    """`simplereenroll`: the device is found by what it shows, never by what it asks (rule 15)."""

    def __init__(
        self,
        *,
        catalog: DmsCatalog,
        judge: PeerJudge,
        issuer: IdentityIssuer,
        authorities: Authorities,
        devices: Devices,
        defaults: DmsDefaults,
        clock: Clock,
    ) -> None:
        self._catalog = catalog
        self._judge = judge
        self._issuer = issuer
        self._authorities = authorities
        self._devices = devices
        self._defaults = defaults
        self._clock = clock

    async def reenroll(self, request: EnrollmentRequest) -> bytes:
        """See `lamassu.services.dms.contract.Enrollment`; checks go in decision 26a's order."""
        dms = await self._catalog.get(request.dms_id)
        check_can_enroll(dms, dms.settings.reenrollment.authentication)
        peer, standing = await self._judge.verify_device(request.peer, dms)
        holder = await self._devices.find_by_certificate(peer.facts.sha256)
        device, slot = check_bound(holder, dms.id)
        caller = replace(request.caller, principal=Principal(PrincipalKind.DEVICE, device.id))
        async with refusals_kept(
            self._authorities, dms, request.payload, caller=caller, device_id=device.id
        ):
            renewal = _Renewal(
                dms=dms,
                device=device,
                slot=slot,
                peer=peer,
                csr_payload=request.payload,
                caller=caller,
            )
            return await self._judged(renewal, standing)

    async def _judged(self, renewal: _Renewal, standing: CertificateStanding | None) -> bytes:
        """For a device that showed a certificate of its own, whatever became of that."""
        dms, device, slot, peer = renewal.dms, renewal.device, renewal.slot, renewal.peer
        presented = presented_version(slot, peer.facts.sha256)
        repeats = may_have_lost_the_answer(slot, presented)
        overtaken = repeats and standing is not None and was_superseded(standing)
        if standing is not None and standing.revoked and not overtaken:
            raise certificate_revoked(standing)
        if presented.number != slot.active_version and not repeats:
            raise superseded()

        if repeats:
            stored = await self._fetch_again(renewal)
            if dms.settings.reenrollment.revoke_on_reenrollment:
                await self._issuer.retire(presented.serial_number, renewal.caller)
            return stored.der
        try:
            certificate = await self._renew(renewal)
        finally:
            if presented.first_used_at is None:
                await self._devices.mark_used(device.id, peer.facts.sha256)
        if dms.settings.reenrollment.revoke_on_reenrollment:
            await self._issuer.retire(presented.serial_number, renewal.caller)
        return certificate.der

    async def _renew(self, renewal: _Renewal) -> Certificate:
        """Issue the successor of the current certificate, and bind it.

        Raises `Malformed`, `RuleViolation`, `Forbidden`, `Conflict`, `Unavailable`.
        """
        csr = renewal.read_csr()
        peer, window = renewal.peer, renewal.dms.settings.reenrollment.renewal_window
        check_in_service(renewal.device)
        check_renewal_window(peer.facts.not_after, window, self._clock.now())
        current = renewal.slot.current
        return await self._issuer.issue(
            IdentityOrder(
                dms=renewal.dms,
                csr=csr,
                identity=renewal.identity(
                    csr,
                    ca_id=renewal.dms.settings.enrollment.enrollment_ca,
                    number=current.number + 1,
                ),
                mode=BindMode.RENEWED,
                caller=renewal.caller,
                device=renewal.device,
                replaces=(current.ca_id, current.serial_number),
                subject_der=peer.facts.subject_der,
                san_der=peer.facts.san_der,
            )
        )

    async def _fetch_again(self, renewal: _Renewal) -> Certificate:
        """The stored successor, for exactly the request that made it (decision 24).

        Raises `Malformed`, `RuleViolation`, `Forbidden`.
        """
        csr = renewal.read_csr()
        check_in_service(renewal.device)
        current = renewal.slot.current
        issued = await self._issuer.find_issued(
            renewal.identity(csr, ca_id=current.ca_id, number=current.number),
            current.certificate_sha256,
        )
        if issued is None:
            raise superseded()
        if issued.stored_status is CertificateStatus.REVOKED:
            raise device_revoked()
        check_answer_still_open(
            issued.not_before, self._defaults.lost_answer_window, self._clock.now()
        )
        return issued


@dataclass(frozen=True, slots=True)
class _Renewal:
    """A re-enrolment whose peer was judged."""

    dms: Dms
    device: Device
    slot: IdentitySlot
    peer: VerifiedPeer
    csr_payload: CsrPayload
    caller: Caller

    def read_csr(self) -> CertificateRequest:
        """The CSR, if it asks for what the peer already is (decision 25)."""
        csr = read_csr(self.csr_payload)
        device_id_of(csr)
        check_same_subject(csr, self.peer)
        check_same_alternative_names(csr, self.peer)
        return csr

    def identity(self, csr: CertificateRequest, *, ca_id: str, number: int) -> RequestIdentity:
        """The name of the request for this slot version."""
        return RequestIdentity(
            kind="reenroll",
            dms_id=self.dms.id,
            ca_id=ca_id,
            device_id=self.device.id,
            spki=csr.spki,
            issuer_sha256=self.peer.issuer_sha256,
            serial_number=self.peer.facts.serial_number,
            number=number,
        )
