"""CAs whose key is offline: what their imported CRL says, and who may answer for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import NotFound, Unavailable
from lamassu.kernel.x509.crls import CrlEntry, parse_crl
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.serials import serial_int
from lamassu.kernel.x509.signing import signature_algorithm
from lamassu.services.ca.contract import Authorities, CertificationAuthority
from lamassu.services.va.model import Responder
from lamassu.services.va.ports import VaStorage


@dataclass(frozen=True, slots=True)
class ImportedList:
    """What an imported CRL lists, by serial number."""

    number: int
    next_update: datetime
    entries: Mapping[int, CrlEntry]


@dataclass(frozen=True, slots=True)
class Delegate:
    """A responder whose certificate holds now, as the signer of answers."""

    key_id: str
    certificate: bytes
    serial_number: str
    spki: bytes
    algorithm: bytes
    not_after: datetime


class OfflineCas:
    """Reads what is stored for offline CAs. A parsed CRL is kept; which one is the newest, the
    database says each time."""

    def __init__(self, *, storage: VaStorage, authorities: Authorities, clock: Clock) -> None:
        self._storage = storage
        self._authorities = authorities
        self._clock = clock
        self._kept: dict[str, ImportedList] = {}

    async def find(self, ca_id: str) -> CertificationAuthority | None:
        """The CA, if it is there and its key is not."""
        try:
            authority = await self._authorities.get_ca(ca_id)
        except NotFound:
            return None
        return None if authority.key_id else authority

    async def shows(self, authority: CertificationAuthority) -> bool:
        """Whether its CRL lists all that is revoked under it."""
        return not await self.pending(authority)

    async def pending(self, authority: CertificationAuthority) -> Sequence[str]:
        """Serial numbers that are revoked here and not on its CRL yet."""
        listed: Collection[int] = ()
        newest = await self.newest(authority.certificate.subject_key_id)
        if newest is not None:
            listed = newest.entries
        return [
            entry.serial_number
            for entry in await self._authorities.revoked_under(authority.id)
            if serial_int(entry.serial_number) not in listed
            and entry.serial_number != authority.certificate.serial_number
        ]

    async def newest(self, ca_ski: str) -> ImportedList | None:
        """The newest CRL, in force or not."""
        state = await self._storage.find_role(ca_ski)
        if state is None or state.latest is None:
            return None
        kept = self._kept.get(ca_ski)
        if kept is None or kept.number != state.latest.number:
            crl = await self._storage.find_crl(ca_ski, state.latest.number)
            if crl is None:
                return None
            facts = parse_crl(crl.der)
            entries = {entry.serial_number: entry for entry in facts.entries}
            kept = ImportedList(crl.number, crl.next_update, entries)
            self._kept[ca_ski] = kept
        return kept

    async def in_force(self, authority: CertificationAuthority) -> ImportedList:
        """The CRL by which its certificates are judged. Raises `Unavailable` (`crl_ended`) when
        there is none that holds: then nobody knows what was revoked."""
        newest = await self.newest(authority.certificate.subject_key_id)
        if newest is None or newest.next_update <= self._clock.now():
            raise crl_ended(authority.id)
        return newest

    async def delegate(self, authority: CertificationAuthority) -> Delegate | None:
        """The responder that answers for it now: of those in force, the one that lasts longest;
        none that its CRL lists."""
        now = self._clock.now()
        newest = await self.newest(authority.certificate.subject_key_id)
        revoked: Collection[int] = newest.entries if newest is not None else ()
        found = [
            delegate
            for responder in await self._storage.responders(authority.id)
            for delegate in _delegates(responder, now)
            if serial_int(delegate.serial_number) not in revoked
        ]
        return max(found, key=lambda one: one.not_after, default=None)


def _delegates(responder: Responder, now: datetime) -> Sequence[Delegate]:
    if responder.certificate is None:
        return ()
    facts = certificate_facts(responder.certificate)
    if not facts.not_before <= now < facts.not_after:
        return ()
    return (
        Delegate(
            key_id=responder.key_id,
            certificate=responder.certificate,
            serial_number=facts.serial_number,
            spki=facts.spki,
            algorithm=signature_algorithm(facts.key),
            not_after=facts.not_after,
        ),
    )


def crl_ended(ca_id: str) -> Unavailable:
    """Nobody can say what this offline CA revoked."""
    return Unavailable(
        f"the offline CA {ca_id} has no CRL in force here: make one at its ceremony (lamassu"
        " ceremony run) and take it in (lamassu va import-crl)",
        code="crl_ended",
    )
