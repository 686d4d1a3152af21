"""The CAs that status queries are answered for, found by the hashes of a CertID."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import LamassuError
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.ocsp import HASH_NAMES, CertificateId, issuer_hashes
from lamassu.kernel.x509.signing import signature_algorithm
from lamassu.services.ca.contract import Authorities, CertificationAuthority
from lamassu.services.va.model import Issuer

# A stranger's unknown issuer may cost one look at the CAs in this time, not one each.
_LEAST_BETWEEN_LOADS = timedelta(seconds=1)

Hashes = tuple[str, bytes, bytes]


def issuer_of(authority: CertificationAuthority) -> Issuer | None:
    """The CA as answers and CRLs name it; `None` when its key is none of ours."""
    facts = certificate_facts(authority.certificate.der)
    try:
        algorithm = signature_algorithm(facts.key)
    except LamassuError:
        return None
    return Issuer(authority, facts.subject_der, facts.spki, algorithm)


class IssuerTable:
    """Our CAs by name hash and key hash; read anew when a question names an unknown one."""

    def __init__(self, *, authorities: Authorities, clock: Clock) -> None:
        self._authorities = authorities
        self._clock = clock
        self._by_hashes: dict[Hashes, list[Issuer]] = {}
        self._loaded_at: datetime | None = None
        self._loading = asyncio.Lock()

    def forget(self) -> None:
        """Read the CAs anew before the next answer: one appeared or changed."""
        self._loaded_at = None

    async def find(self, asked: CertificateId) -> Sequence[Issuer]:
        """The CAs that a CertID can mean: one, unless two share name and key."""
        key = (asked.hash_name, asked.issuer_name_hash, asked.issuer_key_hash)
        found = self._by_hashes.get(key) if self._loaded_at is not None else None
        if found is None and asked.hash_name:
            await self._load()
            found = self._by_hashes.get(key)
        return found or ()

    async def _load(self) -> None:
        async with self._loading:
            now = self._clock.now()
            # a clock that was set back does not keep us from looking
            if self._loaded_at is not None and (
                timedelta() <= now - self._loaded_at < _LEAST_BETWEEN_LOADS
            ):
                return
            self._loaded_at = now  # before reading: what changes meanwhile resets it
            try:
                self._by_hashes = _table(await self._authorities.list_cas())
            except BaseException:
                self._loaded_at = None
                raise


def _table(authorities: Sequence[CertificationAuthority]) -> dict[Hashes, list[Issuer]]:
    table: dict[Hashes, list[Issuer]] = {}
    for authority in authorities:
        issuer = issuer_of(authority)
        if issuer is None:
            continue
        for name in HASH_NAMES:
            hashes = issuer_hashes(name, subject_der=issuer.subject_der, spki=issuer.spki)
            table.setdefault((name, *hashes), []).append(issuer)
    return table
