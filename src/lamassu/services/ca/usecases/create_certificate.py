"""Make a certificate for a key of the platform's: a new one, or a general one of the KMS."""

from __future__ import annotations

from dataclasses import replace

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import LamassuError, Unavailable
from lamassu.kernel.x509.keys import KeyFacts, signature_hash
from lamassu.kernel.x509.names import name_of
from lamassu.services.ca.contract import Certificate, IssueRequest
from lamassu.services.ca.rules.profiles import check_for_end_entities, check_key, check_profile
from lamassu.services.ca.rules.status import check_may_sign
from lamassu.services.ca.rules.subject_keys import (
    CertificateOrder,
    check_key_source,
    check_named_key,
    spec_of,
)
from lamassu.services.ca.usecases.hold_keys import KeyHolds
from lamassu.services.ca.usecases.issue_certificate import CertificateIssuing
from lamassu.services.ca.usecases.issuers import IssuingContexts
from lamassu.services.kms.contract import Key, KeyPurpose, Keys


class CertificateCreation:
    """Everything that can be judged without the key is judged before it is made, and a refused
    certificate leaves none."""

    def __init__(
        self,
        *,
        keys: Keys,
        clock: Clock,
        contexts: IssuingContexts,
        issuing: CertificateIssuing,
        holds: KeyHolds,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._contexts = contexts
        self._issuing = issuing
        self._holds = holds

    async def create(self, order: CertificateOrder) -> Certificate:
        """Issue, and bind the key to the certificate. The usages are the profile's: there is
        nobody else's CSR to honour.

        Raises `NotFound` (CA, profile, key), `RuleViolation`, `Forbidden` (`key_not_usable`).
        """
        check_key_source(order.key)
        order = _by_its_own_usages(order)
        name = name_of(order.subject)
        await self._judge(order)
        key = await self._key_for(order)
        try:
            csr = await self._keys.use(
                key.key_id, lambda signer: _csr(name, signer), purpose=KeyPurpose.GENERAL
            )
            issued = await self._issuing.issue(
                IssueRequest(
                    ca_id=order.ca_id,
                    csr_der=csr,
                    caller=order.caller,
                    profile=order.profile,
                    profile_id=order.profile_id,
                    metadata=order.metadata,
                ),
                subject_key=key,
            )
        except Unavailable:
            raise  # it may be stored, and needs its key then
        except LamassuError:
            if not order.key.identifier:
                await self._keys.discard(
                    key.key_id, purpose=KeyPurpose.GENERAL, caller=order.caller
                )
            raise
        await self._holds.hold_certificate(issued.certificate, caller=order.caller)
        return issued.certificate

    async def _judge(self, order: CertificateOrder) -> None:
        now = self._clock.now()
        if order.profile is not None:
            check_profile(order.profile, now)
        context = await self._contexts.find(
            order.ca_id, inline=order.profile, profile_id=order.profile_id, fresh=True
        )
        check_may_sign(context.issuer.authority, now)
        check_for_end_entities(context.profile, context.issuer.authority.first_generation)
        if not order.key.identifier:
            spec = spec_of(order.key, await self._keys.engines())
            facts = KeyFacts(spec.algorithm.value, spec.size)
            check_key(context.profile, facts, field="key_spec")

    async def _key_for(self, order: CertificateOrder) -> Key:
        if order.key.identifier:
            return check_named_key(await self._keys.find(order.key.identifier))
        return await self._keys.generate(
            spec_of(order.key, await self._keys.engines()),
            purpose=KeyPurpose.GENERAL,
            name=f"Key For Cert CN={order.subject.common_name}",  # as the original calls it
            caller=order.caller,
            engine_id=order.key.engine_id or None,
        )


def _by_its_own_usages(order: CertificateOrder) -> CertificateOrder:
    """An inline profile honours no usages here, as in the original."""
    if order.profile is None:
        return order
    profile = replace(order.profile, honor_key_usage=False, honor_extended_key_usages=False)
    return replace(order, profile=profile)


def _csr(name: x509.Name, key: CertificateIssuerPrivateKeyTypes) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    # Ed25519 and ML-DSA sign the request as it is
    with_hash = isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey)
    csr = builder.sign(key, signature_hash(key) if with_hash else None)  # type: ignore[arg-type]
    return csr.public_bytes(serialization.Encoding.DER)
