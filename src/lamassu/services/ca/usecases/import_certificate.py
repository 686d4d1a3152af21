"""Keep a certificate that was issued elsewhere."""

from __future__ import annotations

from collections.abc import Mapping

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, LamassuError, RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import Json
from lamassu.kernel.x509.facts import CertificateFacts, certificate_facts
from lamassu.services.ca.contract import (
    Certificate,
    CertificationAuthority,
    certificate_document,
)
from lamassu.services.ca.model import NewCertificate
from lamassu.services.ca.ports import CaStore, CaTransaction
from lamassu.services.ca.rules.adoption import (
    FoundCertificate,
    IssuerTable,
    check_same,
    check_storable,
    new_certificate,
)
from lamassu.services.ca.rules.imported import issuer_among
from lamassu.services.ca.usecases.trail import record


class CertificateImport:
    """It counts as a CA's of ours only if that CA's key signed it (security rule 14); OCSP and
    CRLs speak of it then."""

    def __init__(self, *, store: CaStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def take(
        self, der: bytes, metadata: Mapping[str, Json], *, caller: Caller
    ) -> Certificate:
        """Raises `Malformed`, `RuleViolation` (`issuer_revoked`, `serial_number_malformed`) and
        `Conflict` (`certificate_exists`, `serial_number_taken`)."""
        facts = _read(der)
        stored = await self._store.find_certificate(facts.serial_number)
        if stored is not None:
            check_same(stored, der)
            raise _exists()
        issuer = issuer_among(IssuerTable(await self._store.all_cas()), der, facts)
        now = self._clock.now()
        found = FoundCertificate(label="", der=der, metadata=metadata, created_at=now)
        new = new_certificate(found, facts, issuer, now)
        async with self._store.unit() as transaction:
            if issuer is not None:
                await _share(transaction, issuer)
            await _insert(transaction, new)
            record(
                transaction,
                "certificate.import",
                f"certificate/{facts.serial_number}",
                version=new.certificate.version,
                data=certificate_document(new.certificate, now),
                caller=caller,
                detail={
                    "ca_id": new.certificate.issuer_ca_id,
                    "common_name": facts.subject.common_name,
                    "sha256": facts.sha256,
                },
            )
        return new.certificate


def _read(der: bytes) -> CertificateFacts:
    try:
        facts = certificate_facts(der)
        check_storable(facts)
    except LamassuError as error:
        error.field = "certificate"
        raise
    return facts


async def _share(transaction: CaTransaction, issuer: CertificationAuthority) -> None:
    """The issuer stays unrevoked until the certificate is stored: what comes after a cascade
    would be missed by it."""
    if issuer.revoked_by is not None:
        raise RuleViolation(
            f"the CA {issuer.id}, which signed it, is revoked, and all that it issued with it",
            code="issuer_revoked",
            field="certificate",
        )
    versions = await transaction.share_issuer(issuer.id, "")
    if versions is None or versions.authority != issuer.version:
        raise Conflict(
            f"the CA {issuer.id}, which signed it, was changed meanwhile; ask again",
            code="ca_changed",
        )


async def _insert(transaction: CaTransaction, new: NewCertificate) -> None:
    locked = await transaction.lock_certificate(new.certificate.serial_number)
    if locked is not None:
        raise _exists()
    await transaction.insert_certificates([new])


def _exists() -> Conflict:
    return Conflict(
        "a certificate of this serial number is here already",
        code="certificate_exists",
        field="certificate",
    )
