"""Revoke credentials of the internal CA."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from lamassu.kernel.errors import NotFound
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord
from lamassu.services.access.contract import Credential
from lamassu.services.access.ports import CredentialStore
from lamassu.services.access.rules import PRINCIPAL_KINDS


async def revoke_credential(
    name_or_serial: str, *, caller: Caller, storage: CredentialStore, now: datetime
) -> Sequence[Credential]:
    """Revoke every unexpired certificate of an admin's or service's name, or the one of a serial
    number (a server's too). Those revoked before are left as they are.
    """
    found = [
        credential
        for credential in await storage.unexpired(now)
        if credential.serial_number == name_or_serial.lower()
        or (credential.name == name_or_serial and credential.kind in PRINCIPAL_KINDS)
    ]
    if not found:
        raise NotFound(
            "no unexpired credential has that name or serial number", code="credential_not_found"
        )
    revoked: list[Credential] = []
    async with storage.unit() as unit:
        for credential in found:
            marked = await unit.revoke(credential.serial_number, now)
            if marked is None:
                continue
            revoked.append(marked)
            subject = f"access/{marked.kind.value}/{marked.name}"
            detail = {"serial_number": marked.serial_number}
            unit.audit(AuditRecord("access.revoke", subject, caller, detail=detail))
    return revoked
