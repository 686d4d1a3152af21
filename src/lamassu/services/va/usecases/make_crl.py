"""Make and store a CA's next CRL."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import NotFound
from lamassu.kernel.identity import system_caller
from lamassu.kernel.records import AuditRecord, Event, Json
from lamassu.kernel.wire_text import format_time
from lamassu.kernel.x509 import signing
from lamassu.kernel.x509.crls import CrlEntry, build_crl, signed
from lamassu.kernel.x509.serials import serial_int
from lamassu.services.ca.contract import Authorities, RevokedEntry
from lamassu.services.kms.contract import KeyPurpose, Keys
from lamassu.services.va import rules
from lamassu.services.va.contract import Crl, CrlRole
from lamassu.services.va.model import Issuer
from lamassu.services.va.ports import VaStorage
from lamassu.services.va.usecases.issuers import issuer_of

_CALLER = system_caller("va/crl")
_KEPT = 5
_SMALL = 500


async def make_crl(
    ca_ski: str, *, storage: VaStorage, authorities: Authorities, keys: Keys, clock: Clock
) -> Crl:
    """Number, read, sign, store, in this order.

    The number commits before the list is read, so that of two CRLs the higher number never
    lists less than was committed when the lower one was numbered. A number may be skipped,
    none comes twice (RFC 5280 §5.2.3). Raises `NotFound` for a role or CA that is gone,
    `Unavailable` when database or engine are.
    """
    async with storage.unit() as unit:
        role = await unit.lock_role(ca_ski)
        if role is None:
            raise NotFound("VA role not found")
        number = await unit.take_number(ca_ski)
    issuer = issuer_of(await authorities.get_ca(role.ca_id))
    if issuer is None or not issuer.authority.key_id:
        raise NotFound("the CA has no key here to sign a CRL with", code="ca_without_key")
    read_at = clock.now()
    entries = await authorities.revoked_under(role.ca_id)
    draft = _Draft(role, issuer, number, read_at, entries)
    crl = await _sign(draft, keys=keys)
    async with storage.unit() as unit:
        current = await unit.lock_role(ca_ski)
        if current is None:
            raise NotFound("VA role not found")
        await unit.add_crl(crl, keep=_KEPT)
        version = current.version + 1
        await unit.save_role(replace(current, version=version))
        data: dict[str, Json] = {
            "ca_ski": ca_ski,
            "version": number,
            "valid_from": format_time(crl.this_update),
            "valid_until": format_time(crl.next_update),
            "entries": len(entries),
        }
        unit.emit(Event("va.role.crl.create", f"crl/{ca_ski}", version, data, _CALLER))
        unit.audit(AuditRecord("va.role.crl.create", f"crl/{ca_ski}", _CALLER, detail=data))
    return crl


@dataclass(frozen=True, slots=True)
class _Draft:
    """All that a CRL is made of, but the signature."""

    role: CrlRole
    issuer: Issuer
    number: int
    read_at: datetime
    entries: Sequence[RevokedEntry]

    @property
    def this_update(self) -> datetime:
        return rules.to_the_second(self.read_at)

    @property
    def next_update(self) -> datetime:
        return self.this_update + self.role.validity

    def encoded(self) -> tuple[bytes, str]:
        """The TBSCertList, and the digest of what it lists."""
        tbs = build_crl(
            issuer_der=self.issuer.subject_der,
            issuer_key_id=bytes.fromhex(self.role.ca_ski),
            algorithm=self.issuer.algorithm,
            number=self.number,
            this_update=self.this_update,
            next_update=self.next_update,
            entries=(
                CrlEntry(
                    serial_number=serial_int(entry.serial_number),
                    revoked_at=entry.revocation_time,
                    reason=entry.reason.number,
                )
                for entry in self.entries
            ),
        )
        return tbs, rules.entries_digest(self.entries)


async def _sign(draft: _Draft, *, keys: Keys) -> Crl:
    # a long list takes its time: not on the event loop
    short = len(draft.entries) <= _SMALL
    tbs, digest = draft.encoded() if short else await asyncio.to_thread(draft.encoded)
    signature = await keys.use(
        draft.issuer.authority.key_id,
        lambda key: signing.sign(key, tbs),
        purpose=KeyPurpose.CA,
    )
    return Crl(
        ca_ski=draft.role.ca_ski,
        number=draft.number,
        der=signed(tbs, algorithm=draft.issuer.algorithm, signature=signature),
        this_update=draft.this_update,
        next_update=draft.next_update,
        entries_digest=digest,
    )
