"""A delegated OCSP responder for an offline CA: its key is made here, a CSR goes out."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, LamassuError, NotFound, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event, Json
from lamassu.kernel.x509.keys import signature_hash
from lamassu.kernel.x509.names import Subject, name_of
from lamassu.services.ca.contract import Authorities
from lamassu.services.kms.contract import KeyPurpose, Keys, KeySpec
from lamassu.services.va.model import Responder
from lamassu.services.va.ports import VaStorage
from lamassu.services.va.usecases.responder_document import responder_document

_LONGEST_NAME = 64


class ResponderRequests:
    """Responders that wait for their certificate, or have it."""

    def __init__(
        self,
        *,
        storage: VaStorage,
        authorities: Authorities,
        keys: Keys,
        clock: Clock,
        validation_urls: Sequence[str],
    ) -> None:
        self._storage = storage
        self._authorities = authorities
        self._keys = keys
        self._clock = clock
        self._validation_urls = tuple(url.rstrip("/") for url in validation_urls)

    async def ask(
        self, ca_id: str, spec: KeySpec, *, engine_id: str | None, caller: Caller
    ) -> Responder:
        """Make the key and the CSR. The CA may be unknown here yet.

        Raises `Conflict` (`ca_key_online`), `RuleViolation` (id, engine, key).
        """
        await self._check(ca_id)
        key = await self._keys.generate(
            spec,
            purpose=KeyPurpose.RESPONDER,
            name=f"ocsp/{ca_id}",
            caller=caller,
            engine_id=engine_id,
        )
        try:
            csr = await self._keys.use(
                key.key_id,
                lambda signer: _csr(ca_id, self._validation_urls, signer),
                purpose=KeyPurpose.RESPONDER,
            )
        except BaseException:
            await self._keys.discard(key.key_id, purpose=KeyPurpose.RESPONDER, caller=caller)
            raise
        responder = Responder(
            key_id=key.key_id,
            ca_id=ca_id,
            engine_id=key.engine_id,
            csr=csr,
            certificate=None,
            created_at=self._clock.now(),
        )
        try:
            await self._store(responder, caller)
        except Unavailable:
            raise  # it may be stored, and needs its key then
        except LamassuError:
            await self._keys.discard(key.key_id, purpose=KeyPurpose.RESPONDER, caller=caller)
            raise
        return responder

    async def _check(self, ca_id: str) -> None:
        if not ca_id or not ca_id.isprintable() or len(ca_id) > 128 or "/" in ca_id:
            raise RuleViolation("name the offline CA by its id", code="id_malformed", field="ca_id")
        try:
            authority = await self._authorities.get_ca(ca_id)
        except NotFound:
            return
        if authority.key_id:
            raise Conflict(
                f"the key of {ca_id} is here: it answers for itself", code="ca_key_online"
            )

    async def _store(self, responder: Responder, caller: Caller) -> None:
        data: dict[str, Json] = {
            "key_id": responder.key_id,
            "ca_id": responder.ca_id,
            "engine_id": responder.engine_id,
        }
        document = responder_document(responder, responder.created_at)
        subject = f"responder/{responder.key_id}"
        async with self._storage.unit() as unit:
            await unit.add_responder(responder)
            unit.emit(Event("va.responder.create", subject, 1, document, caller))
            unit.audit(AuditRecord("va.responder.create", subject, caller, detail=data))


def _csr(ca_id: str, urls: Sequence[str], key: CertificateIssuerPrivateKeyTypes) -> bytes:
    """The request (DER); it proposes where its own revocation is found."""
    name = name_of(Subject(common_name=f"OCSP responder of {ca_id}"[:_LONGEST_NAME]))
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    points = [
        x509.DistributionPoint(
            [x509.UniformResourceIdentifier(f"{base}/ca/{quote(ca_id, safe='')}.crl")],
            None,
            None,
            None,
        )
        for base in urls
    ]
    if points:
        builder = builder.add_extension(x509.CRLDistributionPoints(points), False)
    csr = builder.sign(key, signature_hash(key))  # type: ignore[arg-type]
    return csr.public_bytes(serialization.Encoding.DER)
