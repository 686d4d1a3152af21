"""A CA under an offline root, first half: its key is made here, and a CSR for the ceremony."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import AuthorityInformationAccessOID

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, LamassuError, NotFound, RuleViolation, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_time
from lamassu.kernel.x509.keys import KeyFacts, signature_hash
from lamassu.kernel.x509.names import name_of
from lamassu.services.ca.contract import IssuanceProfile, pem_text, subject_document
from lamassu.services.ca.contract.external import AwaitedCa
from lamassu.services.ca.model import CaRequest
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.authorities import (
    check_ca_id,
    check_key_spec,
    check_subject,
    roles_of_profiles,
)
from lamassu.services.ca.rules.metadata import users_own
from lamassu.services.ca.rules.profiles import check_for_ceremony, check_key, check_profile
from lamassu.services.ca.usecases.issuers import ca_exists, profile_not_found
from lamassu.services.ca.usecases.trail import record
from lamassu.services.kms.contract import KeyPurpose, Keys


class CertificateRequests:
    """CAs that wait for their certificate."""

    def __init__(
        self,
        *,
        store: CaStore,
        keys: Keys,
        clock: Clock,
        validation_urls: Sequence[str],
        default_profile_id: str,
    ) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._validation_urls = tuple(url.rstrip("/") for url in validation_urls)
        self._default_profile_id = default_profile_id

    async def ask(self, request: CaRequest, root_id: str, *, caller: Caller) -> AwaitedCa:
        """Make the key and the CSR, and remember both; no CA comes of it yet.

        Raises `RuleViolation`, `NotFound` (profile), `Conflict` (`CA already exists`, or a root
        whose key is here).
        """
        ca_id = request.id or str(uuid4())
        own, profile_id = await self._judge(ca_id, request, root_id)
        name = name_of(request.subject)
        spec = check_key_spec(request, await self._keys.engines())
        if own is not None:
            check_key(own, KeyFacts(spec.algorithm.value, spec.size), field="key_metadata")
        key = await self._keys.generate(
            spec,
            purpose=KeyPurpose.CA,
            name=f"ca/{ca_id}",
            caller=caller,
            engine_id=request.engine_id or None,
        )
        path_length = own.path_length if own else None
        try:
            csr = await self._keys.use(
                key.key_id,
                lambda signer: _csr(name, path_length, self._urls(root_id), signer),
                purpose=KeyPurpose.CA,
            )
        except BaseException:
            await self._keys.discard(key.key_id, purpose=KeyPurpose.CA, caller=caller)
            raise
        awaited = AwaitedCa(
            id=ca_id,
            csr=csr,
            key_id=key.key_id,
            key_algorithm=key.spec.algorithm.value,
            key_size=key.spec.size,
            engine_id=key.engine_id,
            subject=request.subject,
            root_id=root_id,
            profile_id=profile_id,
            created_at=self._clock.now(),
            metadata=users_own(request.metadata),
        )
        try:
            await self._store_awaited(awaited, caller)
        except Unavailable:
            raise  # it may be stored, and needs its key then
        except LamassuError:
            await self._keys.discard(key.key_id, purpose=KeyPurpose.CA, caller=caller)
            raise
        return awaited

    async def get(self, ca_id: str) -> AwaitedCa:
        """Raises `NotFound`."""
        awaited = await self._store.find_awaited(ca_id)
        if awaited is None:
            raise _not_awaited()
        return awaited

    async def withdraw(self, ca_id: str, *, caller: Caller) -> None:
        """Wait no longer; the key is deleted. Raises `NotFound`."""
        async with self._store.unit() as transaction:
            awaited = await transaction.lock_awaited(ca_id)
            if awaited is None:
                raise _not_awaited()
            await transaction.delete_awaited(ca_id)
            record(
                transaction,
                "ca.request.delete",
                f"ca/{ca_id}",
                version=2,
                data={"id": ca_id},
                caller=caller,
                detail={"key_id": awaited.key_id, "root_id": awaited.root_id},
            )
        await self._keys.discard(awaited.key_id, purpose=KeyPurpose.CA, caller=caller)

    async def _judge(
        self, ca_id: str, request: CaRequest, root_id: str
    ) -> tuple[IssuanceProfile | None, str]:
        """The CA's own profile and the id of its default one."""
        check_ca_id(ca_id)
        check_ca_id(root_id)
        await self._check_free(ca_id)
        if ca_id == root_id:
            raise RuleViolation(
                "the CA and its external root have one id", code="root_is_itself", field="id"
            )
        if request.approvals is not None:
            raise RuleViolation(
                "the CA is not there before its certificate is: set its approvals then "
                f"(lamassu ca approvals set {ca_id})",
                code="approvals_too_early",
                field="approvals",
            )
        root = await self._store.find_ca(root_id)
        if root is not None and root.key_id:
            raise Conflict(
                f"the key of {root_id} is here: name it as the parent instead",
                code="root_is_online",
                field="external_root",
            )
        check_subject(name_of(request.subject), None)
        if request.key.key_id:
            raise RuleViolation(
                "a CA's key is made for it alone; leave key_id out",
                code="key_not_usable",
                field="key_metadata.key_id",
            )
        if request.own_profile is not None:
            check_profile(request.own_profile, self._clock.now())
        roles = roles_of_profiles(
            request,
            own=request.own_profile or await self._profile(request.own_profile_id),
            either=await self._profile(request.any_profile_id),
            default=await self._profile(request.profile_id),
            fallback_profile_id=self._default_profile_id,
        )
        if roles.own is not None:
            check_for_ceremony(roles.own)
        if roles.parent_id not in (None, root_id):
            raise RuleViolation(
                f"{roles.parent_id} is named as its parent as well",
                code="parent_contradicts_profile",
                field="parent_id",
            )
        return roles.own, roles.profile_id

    async def _profile(self, profile_id: str) -> IssuanceProfile | None:
        if not profile_id:
            return None
        profile = await self._store.find_profile(profile_id)
        if profile is None:
            raise profile_not_found()
        return profile

    async def _check_free(self, ca_id: str) -> None:
        if await self._store.find_ca(ca_id) or await self._store.find_awaited(ca_id):
            raise ca_exists()

    async def _store_awaited(self, awaited: AwaitedCa, caller: Caller) -> None:
        async with self._store.unit() as transaction:
            if await transaction.lock_ca(awaited.id) is not None:
                raise ca_exists()
            try:
                await transaction.insert_awaited(awaited)
            except Conflict:
                raise ca_exists() from None
            record(
                transaction,
                "ca.request.create",
                f"ca/{awaited.id}",
                version=1,
                data=awaited_document(awaited),
                caller=caller,
                detail={"key_id": awaited.key_id, "root_id": awaited.root_id},
            )

    def _urls(self, root_id: str) -> Sequence[tuple[str, str]]:
        """Where the root's status will be found: (kind, address)."""
        return [
            (kind, f"{base}{path}")
            for base in self._validation_urls
            for kind, path in (
                ("ocsp", "/ocsp"),
                ("issuers", f"/ca/{quote(root_id, safe='')}.crt"),
                ("crl", f"/ca/{quote(root_id, safe='')}.crl"),
            )
        ]


def awaited_document(awaited: AwaitedCa) -> dict[str, Json]:
    """As the wire has it; the status is one that no CA has."""
    return {
        "id": awaited.id,
        "status": "AWAITING_CERTIFICATE",
        "csr": pem_text(awaited.csr, "CERTIFICATE REQUEST"),
        "external_root": awaited.root_id,
        "subject": subject_document(awaited.subject),
        "key_metadata": {"type": awaited.key_algorithm, "bits": awaited.key_size},
        "engine_id": awaited.engine_id,
        "profile_id": awaited.profile_id,
        "metadata": dict(awaited.metadata),
        "creation_ts": format_time(awaited.created_at),
    }


def _csr(
    name: x509.Name,
    path_length: int | None,
    urls: Sequence[tuple[str, str]],
    key: CertificateIssuerPrivateKeyTypes,
) -> bytes:
    """The request (DER). It proposes path length and addresses; the ceremony decides."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(x509.BasicConstraints(True, path_length), True)
    methods = {
        "ocsp": AuthorityInformationAccessOID.OCSP,
        "issuers": AuthorityInformationAccessOID.CA_ISSUERS,
    }
    access = [
        x509.AccessDescription(methods[kind], x509.UniformResourceIdentifier(url))
        for kind, url in sorted(urls, key=lambda pair: pair[0] != "ocsp")
        if kind in methods
    ]
    if access:
        builder = builder.add_extension(x509.AuthorityInformationAccess(access), False)
    points = [
        x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
        for kind, url in urls
        if kind == "crl"
    ]
    if points:
        builder = builder.add_extension(x509.CRLDistributionPoints(points), False)
    csr = builder.sign(key, signature_hash(key))  # type: ignore[arg-type]
    return csr.public_bytes(serialization.Encoding.DER)


def _not_awaited() -> NotFound:
    return NotFound("no CA of this id waits for its certificate", code="ca_request_not_found")
