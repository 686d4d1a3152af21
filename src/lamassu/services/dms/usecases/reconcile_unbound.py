"""Deal with certificates that a crash left between the CA and a slot (decision 26)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.identity import system_caller
from lamassu.services.ca.contract import Authorities, Certificate, RevocationReason
from lamassu.services.devices.contract import Devices
from lamassu.services.dms.model.defaults import DmsDefaults

ATTACHED_TO = "lamassu.io/ra/attached-to"
_BATCH = 200


async def reconcile_unbound(
    *, authorities: Authorities, devices: Devices, defaults: DmsDefaults, clock: Clock
) -> int:
    """Revoke issued certificates that are in no slot and never will be; how many there were.

    Each is first barred from every slot, so that a late retry cannot bind what is about to be
    revoked. Repeatable: whatever it does not finish is found again next time.
    """
    older_than = clock.now() - defaults.unbound_after
    revoked = 0
    while True:
        found = await authorities.unreconciled(older_than=older_than, limit=_BATCH)
        for certificate in found:
            revoked += await _deal_with(certificate, authorities=authorities, devices=devices)
        if found:
            await authorities.reconcile([c.serial_number for c in found])
        if len(found) < _BATCH:
            return revoked


async def _deal_with(
    certificate: Certificate, *, authorities: Authorities, devices: Devices
) -> bool:
    """Whether it had to be revoked."""
    sha256 = hashlib.sha256(certificate.der).hexdigest()
    if await devices.find_by_certificate(sha256) is not None:
        return False
    if not await devices.refuse(certificate.serial_number, attached_device(certificate)):
        return False
    with suppress(RuleViolation):  # it may have expired meanwhile: then nothing is left to revoke
        await authorities.revoke(
            certificate.serial_number,
            RevocationReason.CESSATION_OF_OPERATION,
            caller=system_caller("dms-reaper"),
        )
    return True


def attached_device(certificate: Certificate) -> str:
    """The device that the certificate was issued for, empty if it says none."""
    attached = certificate.metadata.get(ATTACHED_TO)
    if not isinstance(attached, Mapping):
        return ""
    return str(attached.get("device_id") or "")


def attached_dms(certificate: Certificate) -> str:
    """The DMS that had the certificate issued, empty if none had."""
    attached = certificate.metadata.get(ATTACHED_TO)
    authorized = attached.get("authorized_by") if isinstance(attached, Mapping) else None
    if not isinstance(authorized, Mapping):
        return ""
    return str(authorized.get("ra_id") or "")
