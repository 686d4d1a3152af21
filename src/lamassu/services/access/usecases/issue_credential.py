"""Issue a certificate of the internal CA, with a fresh key for its holder."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord
from lamassu.kernel.x509.pem import pem_of
from lamassu.kernel.x509.serials import serial_hex
from lamassu.services.access import rules
from lamassu.services.access.contract import Credential, CredentialKind, IssuedCredential
from lamassu.services.access.ports import CredentialStore
from lamassu.services.access.usecases.certificates import build_credential, sign_certificate
from lamassu.services.access.usecases.hierarchy import get_hierarchy
from lamassu.services.access.usecases.settle_grounds import Settled
from lamassu.services.kms.contract import KeyPurpose, PlatformKeys


async def issue_credential(
    kind: CredentialKind,
    name: str,
    *,
    lifetime: timedelta,
    hosts: Sequence[str],
    configured_hosts: Collection[str] | None,
    caller: Caller,
    keys: PlatformKeys,
    storage: CredentialStore,
    now: datetime,
    grounds: Settled,
) -> IssuedCredential:
    """Judge, sign, store, record. The private key is in the answer and nowhere else.

    `configured_hosts` are the platform's public ones, which a service must not share; `None`
    lets it. `grounds` are those on which an approver's name is certified, if it is one.
    """
    rules.check_credential_name(name)
    rules.check_lifetime(lifetime)
    names = rules.host_names(kind, hosts)
    if configured_hosts is not None:
        unexpired = await storage.unexpired(now)
        living = [credential for credential in unexpired if credential.revoked_at is None]
        rules.check_hosts_apart(kind, names, configured=configured_hosts, living=living)
    hierarchy = await get_hierarchy(storage)
    issuing = hierarchy.issuing
    if issuing.key_id is None:
        raise RuleViolation("the internal CA's key is not here", code="internal_ca_key_missing")
    start = now.replace(microsecond=0)
    holder_key = ec.generate_private_key(ec.SECP256R1())
    builder = build_credential(
        kind,
        name,
        spki=holder_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        hosts=names,
        issuer_key_id=issuing.key_id,
        not_before=start - rules.BACKDATING,
        not_after=rules.ending(start, lifetime, issuer_ends=issuing.not_after),
    )
    certificate = await keys.use(
        issuing.key_id,
        lambda key: sign_certificate(builder, key, issuer_path=(issuing.der, hierarchy.root.der)),
        purpose=KeyPurpose.PLATFORM,
    )
    credential = Credential(
        serial_number=serial_hex(certificate.serial_number),
        kind=kind,
        name=name,
        der=certificate.public_bytes(Encoding.DER),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )
    await _store(credential, caller=caller, storage=storage, grounds=grounds)
    return IssuedCredential(
        credential=credential,
        chain_pem=pem_of(credential.der) + pem_of(issuing.der),
        key_pem=holder_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


async def _store(
    credential: Credential, *, caller: Caller, storage: CredentialStore, grounds: Settled
) -> None:
    subject = f"access/{credential.kind.value}/{credential.name}"
    detail = {
        "serial_number": credential.serial_number,
        "not_after": credential.not_after.isoformat(),
    }
    hosts = rules.hosts_of(credential.der)
    if hosts:
        detail["hosts"] = ", ".join(sorted(hosts))
    if grounds.text:
        detail["grounds"] = grounds.text
    async with storage.unit() as unit:
        await unit.add_credential(credential)
        await grounds.note(unit, subject, caller)
        unit.audit(AuditRecord("access.issue", subject, caller, detail=detail))
