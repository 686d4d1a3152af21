"""A device's first certificate (RFC 7030 §4.2.1), or one that replaces a lost identity."""

from __future__ import annotations

from dataclasses import replace

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.identity import Caller, Principal, PrincipalKind
from lamassu.kernel.records import AuditRecord
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.services.ca.contract import Authorities, Certificate, CertificateStatus
from lamassu.services.devices.contract import (
    BindMode,
    Device,
    Devices,
    IdentitySlot,
    NewDevice,
)
from lamassu.services.dms.contract import EnrollmentRequest
from lamassu.services.dms.model.dms import BootstrapUse, Dms
from lamassu.services.dms.model.settings import (
    DEFAULT_ICON,
    DEFAULT_ICON_COLOR,
    RegistrationMode,
)
from lamassu.services.dms.ports import DmsStore
from lamassu.services.dms.rules.csr_payload import read_csr
from lamassu.services.dms.rules.device import (
    bootstrap_spent,
    check_bootstrap_unspent,
    check_certificate_of,
    check_in_service,
    check_may_be_created,
    check_owner,
    check_replaceable,
    device_id_of,
    device_revoked,
    is_first_use,
    not_preregistered,
)
from lamassu.services.dms.rules.peer import VerifiedPeer
from lamassu.services.dms.rules.request_keys import RequestIdentity
from lamassu.services.dms.rules.settings import check_can_enroll
from lamassu.services.dms.usecases.dms_catalog import DmsCatalog
from lamassu.services.dms.usecases.issue_identity import IdentityIssuer, IdentityOrder
from lamassu.services.dms.usecases.judge_peer import PeerJudge
from lamassu.services.dms.usecases.keep_refused import refusals_kept


class DeviceEnroller:
    """`simpleenroll`, from the DMS named to the certificate in the slot."""

    def __init__(
        self,
        *,
        store: DmsStore,
        catalog: DmsCatalog,
        judge: PeerJudge,
        issuer: IdentityIssuer,
        authorities: Authorities,
        devices: Devices,
        clock: Clock,
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._judge = judge
        self._issuer = issuer
        self._authorities = authorities
        self._devices = devices
        self._clock = clock

    async def enroll(self, request: EnrollmentRequest) -> bytes:
        """See `lamassu.services.dms.contract.Enrollment`; checks go in decision 26a's order."""
        dms = await self._catalog.get(request.dms_id)
        check_can_enroll(dms, dms.settings.enrollment.authentication)
        bootstrap = await self._judge.admit_bootstrap(request.peer, dms)
        caller = _as_device(request.caller, bootstrap, "")
        async with refusals_kept(self._authorities, dms, request.payload, caller=caller):
            return await self._enroll(request, dms, bootstrap)

    async def _enroll(self, request: EnrollmentRequest, dms: Dms, bootstrap: VerifiedPeer) -> bytes:
        csr = read_csr(request.payload)
        device_id = device_id_of(csr)
        device = await self._judge_device(dms, device_id, bootstrap)

        slot = device.slot if device else None
        identity = _identity(dms, device_id, csr.spki, bootstrap, _next_number(slot))
        if device is not None and slot is not None:
            stored = await self._find_own_answer(dms, slot, identity, bootstrap)
            if stored is not None:
                return stored.der
        order = IdentityOrder(
            dms=dms,
            csr=csr,
            identity=identity,
            mode=BindMode.RE_PROVISIONED if slot else BindMode.PROVISIONED,
            caller=_as_device(request.caller, bootstrap, device_id),
            device=device,
            create=None if device else _new_device(dms, device_id),
            replaces=(slot.current.ca_id, slot.current.serial_number) if slot else None,
        )
        certificate = await self._issue_once(order, bootstrap)
        if slot is not None:
            await self._issuer.retire(slot.current.serial_number, order.caller)
        return certificate.der

    async def _judge_device(
        self, dms: Dms, device_id: str, bootstrap: VerifiedPeer
    ) -> Device | None:
        """The device, or `None` where enrolment may create it. Raises `Forbidden`, `Conflict`."""
        sha256 = bootstrap.facts.sha256
        found = await self._devices.find_candidate(device_id, sha256)
        holder = found.holder
        if holder is not None and is_first_use(holder, sha256):
            await self._devices.mark_used(holder.id, sha256)
            found = await self._devices.find_candidate(device_id, sha256)
        check_certificate_of(found.holder, device_id)
        device = found.device
        if device is not None:
            check_owner(device, dms)
            check_in_service(device)
            return device
        if dms.settings.enrollment.registration_mode is not RegistrationMode.JITP:
            raise not_preregistered()
        check_may_be_created(dms, was_deleted=found.was_deleted, lookalike=found.lookalike)
        return None

    async def _find_own_answer(
        self,
        dms: Dms,
        slot: IdentitySlot,
        identity: RequestIdentity,
        bootstrap: VerifiedPeer,
    ) -> Certificate | None:
        """The stored certificate, for a device that asks again because the answer was lost.

        `None` when the device may have another in its place. A bootstrap certificate that
        enrolls once may come back with a new key as long as nothing was used; a shared one, or
        any later enrolment, needs a replaceable DMS (decision 24). Raises `Conflict`
        (`device_in_use`), `Forbidden`.
        """
        once = dms.settings.enrollment.authentication.client_certificate.single_use_bootstrap
        current = await self._authorities.find_certificate(slot.current.serial_number)
        if current is not None and current.stored_status is CertificateStatus.REVOKED:
            raise device_revoked()  # its status has not reached the device yet
        if current is not None and slot.current.first_used_at is None:
            key = certificate_facts(current.der).spki
            earlier = replace(
                identity, spki=key, number=slot.current.number, ca_id=slot.current.ca_id
            )
            issued = await self._issuer.find_issued(earlier, slot.current.certificate_sha256)
            if issued is not None and key == identity.spki:
                return issued
            if issued is not None and once:
                return None
        check_replaceable(dms)
        if once and await self._find_use(bootstrap) is not None:
            raise bootstrap_spent()
        return None

    async def _issue_once(self, order: IdentityOrder, bootstrap: VerifiedPeer) -> Certificate:
        """Issue; where bootstrap certificates enroll once, claim this one for the device first."""
        settings = order.dms.settings.enrollment.authentication.client_certificate
        if not settings.single_use_bootstrap:
            return await self._issuer.issue(order)
        use = BootstrapUse(
            issuer_sha256=bootstrap.issuer_sha256,
            serial_number=bootstrap.facts.serial_number,
            dms_id=order.dms.id,
            device_id=order.identity.device_id,
            at=self._clock.now(),
        )
        claimed = await self._claim(use, order)
        try:
            return await self._issuer.issue(order)
        except (Malformed, RuleViolation):
            if claimed:  # nothing was issued: a better CSR may name another device
                await self._release(use, order)
            raise

    async def _claim(self, use: BootstrapUse, order: IdentityOrder) -> bool:
        """Whether the use is a new one. Raises `Forbidden` (`bootstrap_spent`)."""
        async with self._store.unit() as unit:
            standing = await unit.claim_bootstrap(use)
            if standing == use:
                unit.audit(_trace("dms.bootstrap.use", use, order.caller))
        check_bootstrap_unspent(standing, dms_id=use.dms_id, device_id=use.device_id)
        return standing == use

    async def _release(self, use: BootstrapUse, order: IdentityOrder) -> None:
        async with self._store.unit() as unit:
            if await unit.release_bootstrap(use):
                unit.audit(_trace("dms.bootstrap.release", use, order.caller))

    async def _find_use(self, bootstrap: VerifiedPeer) -> BootstrapUse | None:
        return await self._store.find_bootstrap_use(
            bootstrap.issuer_sha256, bootstrap.facts.serial_number
        )


def _trace(action: str, use: BootstrapUse, caller: Caller) -> AuditRecord:
    detail = {
        "device_id": use.device_id,
        "serial_number": use.serial_number,
        "issuer_sha256": use.issuer_sha256,
    }
    return AuditRecord(action, f"dms/{use.dms_id}", caller, detail=detail)


def _identity(
    dms: Dms, device_id: str, spki: bytes, bootstrap: VerifiedPeer, number: int
) -> RequestIdentity:
    return RequestIdentity(
        kind="enroll",
        dms_id=dms.id,
        ca_id=dms.settings.enrollment.enrollment_ca,
        device_id=device_id,
        spki=spki,
        issuer_sha256=bootstrap.issuer_sha256,
        serial_number=bootstrap.facts.serial_number,
        number=number,
    )


def _next_number(slot: IdentitySlot | None) -> int:
    return slot.active_version + 1 if slot else 0


def _as_device(caller: Caller, bootstrap: VerifiedPeer, device_id: str) -> Caller:
    """The request's caller, now that a DMS let it in."""
    name = bootstrap.facts.subject.common_name or device_id
    return replace(caller, principal=Principal(PrincipalKind.DEVICE, name))


def _new_device(dms: Dms, device_id: str) -> NewDevice:
    profile = dms.settings.enrollment.provisioning_profile
    return NewDevice(
        id=device_id,
        dms_id=dms.id,
        icon=profile.icon or DEFAULT_ICON,
        icon_color=profile.icon_color or DEFAULT_ICON_COLOR,
        tags=profile.tags,
        metadata=profile.json_metadata,
    )
