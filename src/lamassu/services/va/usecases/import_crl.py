"""Take in what an offline CA signed for relying parties: its CRL, its responders."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, Malformed, RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event, Json
from lamassu.kernel.wire_text import format_time
from lamassu.kernel.x509.crls import CrlFacts, parse_crl, verify_crl
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.keys import key_id
from lamassu.kernel.x509.pem import ders_of
from lamassu.kernel.x509.serials import serial_hex
from lamassu.services.ca.contract import (
    Authorities,
    CertificationAuthority,
    RevocationReason,
    RevokedEntry,
)
from lamassu.services.ceremony.contract import Bundle, is_bundle, parse_bundle
from lamassu.services.va import rules
from lamassu.services.va.contract import Crl
from lamassu.services.va.model import Responder
from lamassu.services.va.ports import VaStorage, VaUnit
from lamassu.services.va.usecases.roles import Roles

# Two hosts' clocks differ a little, and the air-gapped one's is set by hand.
CLOCK_SKEW = timedelta(minutes=5)
_KEPT = 5
_REASONS = {reason.number: reason for reason in RevocationReason}


@dataclass(frozen=True, slots=True)
class CrlImport:
    """What was taken in; `is_new` is false when all of it was here already."""

    authority: CertificationAuthority
    crl: Crl | None
    entries: int
    responders: Sequence[Responder]
    is_new: bool


class CrlImports:
    """CRLs and responder certificates that were signed elsewhere."""

    def __init__(
        self, *, storage: VaStorage, authorities: Authorities, roles: Roles, clock: Clock
    ) -> None:
        self._storage = storage
        self._authorities = authorities
        self._roles = roles
        self._clock = clock

    async def take_in(self, content: bytes, *, caller: Caller) -> CrlImport:
        """A ceremony's bundle, or a CRL in DER or PEM. All or nothing; the same again changes
        nothing.

        Raises `Malformed`, `RuleViolation` (`bundle_tampered`, `crl_of_unknown_ca`,
        `crl_signature_invalid`, `crl_ended`, `crl_from_the_future`, `nothing_to_import`),
        `Conflict` (`crl_not_newer`, `ca_key_online`).
        """
        bundle = parse_bundle(content) if is_bundle(content) else None
        facts = self._facts(content, bundle)
        authority = await self._issuer(facts, bundle)
        now = self._clock.now()
        responders = await self._responders(authority, bundle, now)
        crl = None if facts is None else _crl(authority, facts, now)
        if crl is None and not responders:
            raise RuleViolation(
                "there is no CRL in this bundle and no responder certificate for a key here",
                code="nothing_to_import",
                field="signed",
            )
        entries = 0 if facts is None else len(facts.entries)
        state = await self._roles.ensure(authority.id, authority.certificate.subject_key_id)
        async with self._storage.unit() as unit:
            await unit.lock_role(state.role.ca_ski)
            source = hashlib.sha256(content).hexdigest()
            added = crl is not None and await self._add_crl(
                unit, crl, entries=entries, source=source, caller=caller
            )
            fresh = [one for one in responders if one.is_new]
            for one in fresh:
                await _certify(unit, one.responder, caller)
        return CrlImport(
            authority,
            crl,
            entries,
            [one.responder for one in responders],
            is_new=added or bool(fresh),
        )

    def _facts(self, content: bytes, bundle: Bundle | None) -> CrlFacts | None:
        if bundle is not None:
            return None if bundle.crl is None else parse_crl(bundle.crl)
        if b"-----BEGIN" not in content:
            return parse_crl(content)
        ders = ders_of(content, "X509 CRL")
        if len(ders) > 1:
            raise Malformed("the file has more than one CRL", code="crl_malformed", field="signed")
        return parse_crl(ders[0])

    async def _issuer(
        self, facts: CrlFacts | None, bundle: Bundle | None
    ) -> CertificationAuthority:
        """The CA here that signed it; its key is not here."""
        named = []
        for authority in await self._authorities.list_cas():
            certificate = authority.certificate
            if bundle is not None:
                if certificate.der == bundle.root:
                    named.append(authority)
            elif facts is not None and _subject_of(certificate.der) == facts.issuer_der:
                named.append(authority)
        if not named:
            raise RuleViolation(
                "no CA here signed this: take in its certificate first (lamassu ca import-signed)",
                code="crl_of_unknown_ca",
                field="signed",
            )
        if facts is None:
            return _offline(named[0])
        for authority in named:
            about = certificate_facts(authority.certificate.der)
            try:
                verify_crl(facts, issuer_der=about.subject_der, spki=about.spki)
            except RuleViolation:
                continue
            return _offline(authority)
        raise RuleViolation(
            f"the CRL bears the name of {named[0].id}, but its key did not sign it",
            code="crl_signature_invalid",
            field="signed",
        )

    async def _add_crl(
        self, unit: VaUnit, crl: Crl, *, entries: int, source: str, caller: Caller
    ) -> bool:
        """Whether it was not here yet. Under the role's lock."""
        latest = await unit.latest_crl(crl.ca_ski)
        if latest is not None and crl.number <= latest.number:
            if (crl.number, crl.der) == (latest.number, latest.der):
                return False
            raise Conflict(
                f"CRL number {latest.number} is here already; this one has number {crl.number}",
                code="crl_not_newer",
                field="signed",
            )
        await unit.add_crl(crl, keep=_KEPT)
        await unit.skip_numbers(crl.ca_ski, crl.number + 1)
        current = await unit.lock_role(crl.ca_ski)
        assert current is not None
        version = current.version + 1
        await unit.save_role(replace(current, version=version))
        data: dict[str, Json] = {
            "ca_ski": crl.ca_ski,
            "version": crl.number,
            "valid_from": format_time(crl.this_update),
            "valid_until": format_time(crl.next_update),
            "entries": entries,
        }
        unit.emit(Event("va.crl.import", f"crl/{crl.ca_ski}", version, data, caller))
        detail = {**data, "delivery_sha256": source}
        unit.audit(AuditRecord("va.crl.import", f"crl/{crl.ca_ski}", caller, detail=detail))
        return True

    async def _responders(
        self, authority: CertificationAuthority, bundle: Bundle | None, now: datetime
    ) -> Sequence[_Certified]:
        """The responders here whose certificate the bundle has; expired ones are passed over."""
        if bundle is None:
            return ()
        waiting = {one.key_id: one for one in await self._storage.responders(authority.id)}
        found: dict[str, _Certified] = {}
        for der in bundle.responders:  # the last one signed counts
            facts = certificate_facts(der)
            responder = waiting.get(key_id(facts.spki))
            if responder is not None and facts.not_after > now:
                is_new = responder.certificate != der
                found[responder.key_id] = _Certified(replace(responder, certificate=der), is_new)
        return list(found.values())


@dataclass(frozen=True, slots=True)
class _Certified:
    """A responder with its certificate, and whether it has it only now."""

    responder: Responder
    is_new: bool


async def _certify(unit: VaUnit, responder: Responder, caller: Caller) -> None:
    assert responder.certificate is not None
    facts = certificate_facts(responder.certificate)
    await unit.certify_responder(responder)
    data: dict[str, Json] = {
        "key_id": responder.key_id,
        "ca_id": responder.ca_id,
        "serial_number": facts.serial_number,
        "valid_until": format_time(facts.not_after),
    }
    subject = f"responder/{responder.key_id}"
    unit.emit(Event("va.responder.import", subject, 2, data, caller))
    unit.audit(AuditRecord("va.responder.import", subject, caller, detail=data))


def _subject_of(der: bytes) -> bytes:
    return certificate_facts(der).subject_der


def _offline(authority: CertificationAuthority) -> CertificationAuthority:
    if authority.key_id:
        raise Conflict(
            f"the key of {authority.id} is here: its CRLs are made here", code="ca_key_online"
        )
    return authority


def _crl(authority: CertificationAuthority, facts: CrlFacts, now: datetime) -> Crl:
    if facts.next_update <= now:
        raise RuleViolation(
            f"the CRL ended on {facts.next_update:%Y-%m-%d %H:%M} UTC",
            code="crl_ended",
            field="signed",
        )
    if facts.this_update > now + CLOCK_SKEW:
        raise RuleViolation(
            f"the CRL begins on {facts.this_update:%Y-%m-%d %H:%M} UTC: which clock is wrong?",
            code="crl_from_the_future",
            field="signed",
        )
    entries = [
        RevokedEntry(serial_hex(entry.serial_number), entry.revoked_at, _REASONS[entry.reason])
        for entry in facts.entries
    ]
    return Crl(
        ca_ski=authority.certificate.subject_key_id,
        number=facts.number,
        der=facts.der,
        this_update=facts.this_update,
        next_update=facts.next_update,
        entries_digest=rules.entries_digest(entries),
    )
