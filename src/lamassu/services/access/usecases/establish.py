"""Make the internal CA: a root, and under it the CA that issues."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import LamassuError, NotFound, Unavailable
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord
from lamassu.services.access import rules
from lamassu.services.access.contract import RootKeyExport
from lamassu.services.access.model import Authority, AuthorityRole, Hierarchy
from lamassu.services.access.ports import CredentialStore, PrivateFiles
from lamassu.services.access.usecases.certificates import (
    ISSUING_NAME,
    ROOT_NAME,
    build_authority,
    sign_certificate,
)
from lamassu.services.kms.contract import (
    Key,
    KeyAlgorithm,
    KeyPurpose,
    KeySpec,
    PlatformKeys,
)

ROOT_SPEC = KeySpec(KeyAlgorithm.ECDSA, 384)  # used once: strength before speed
ISSUING_SPEC = KeySpec(KeyAlgorithm.ECDSA, 256)
FIRST = 1


async def establish_hierarchy(
    *, caller: Caller, keys: PlatformKeys, storage: CredentialStore, clock: Clock
) -> Hierarchy:
    """Make keys and certificates, and store both certificates in one transaction."""
    root_key = await _platform_key(ROOT_SPEC, "internal root CA", keys, caller)
    issuing_key = await _platform_key(ISSUING_SPEC, "internal issuing CA", keys, caller)
    try:
        made = await _certify(root_key, issuing_key, keys=keys, now=clock.now())
        async with storage.unit() as unit:
            for authority in (made.root, made.issuing):
                await unit.add_authority(authority)
                subject = f"access/{authority.role.value}/{authority.generation}"
                detail = {"key_id": authority.key_id or ""}
                unit.audit(AuditRecord("access.establish", subject, caller, detail=detail))
    except Unavailable:
        raise  # the commit may have come through: its keys must stay
    except LamassuError:
        for key in (root_key, issuing_key):
            await keys.discard(key.key_id, purpose=KeyPurpose.PLATFORM, caller=caller)
        raise
    return made


async def take_root_key_out(
    root: Authority,
    export: RootKeyExport,
    *,
    caller: Caller,
    keys: PlatformKeys,
    storage: CredentialStore,
    files: PrivateFiles,
) -> None:
    """Write the root's key to an encrypted file, remove it here, and note that (rule 4).

    Repeated after a crash it goes on where it stopped; only a file that is there already
    must be moved away by hand.
    """
    if root.key_id is None:
        return
    try:
        pem = await keys.export(root.key_id, passphrase=export.passphrase, caller=caller)
    except NotFound:
        pem = None  # removed by an earlier try that did not get to note it
    if pem is not None:
        await files.create(export.path, pem)
        await keys.discard(root.key_id, purpose=KeyPurpose.PLATFORM, caller=caller)
    async with storage.unit() as unit:
        await unit.forget_key(root.role, root.generation)
        unit.audit(
            AuditRecord(
                "access.root-key.export", f"access/{root.role.value}/{root.generation}", caller
            )
        )


async def _platform_key(spec: KeySpec, name: str, keys: PlatformKeys, caller: Caller) -> Key:
    return await keys.generate(spec, purpose=KeyPurpose.PLATFORM, name=name, caller=caller)


async def _certify(
    root_key: Key, issuing_key: Key, *, keys: PlatformKeys, now: datetime
) -> Hierarchy:
    root = build_authority(
        subject=ROOT_NAME,
        issuer=ROOT_NAME,
        spki=root_key.public_key,
        issuer_key_id=root_key.key_id,
        path_length=1,
        not_before=_start(now),
        not_after=_end(now, rules.ROOT_LIFETIME),
    )
    issuing = build_authority(
        subject=ISSUING_NAME,
        issuer=ROOT_NAME,
        spki=issuing_key.public_key,
        issuer_key_id=root_key.key_id,
        path_length=0,
        not_before=_start(now),
        not_after=_end(now, rules.ISSUING_LIFETIME),
    )
    made = await _signed(AuthorityRole.ROOT, root, root_key, root_key, keys, issuer_path=())
    return Hierarchy(
        root=made,
        issuing=await _signed(
            AuthorityRole.ISSUING, issuing, issuing_key, root_key, keys, issuer_path=(made.der,)
        ),
    )


async def _signed(
    role: AuthorityRole,
    builder: x509.CertificateBuilder,
    own: Key,
    signer: Key,
    keys: PlatformKeys,
    *,
    issuer_path: Sequence[bytes],
) -> Authority:
    certificate = await keys.use(
        signer.key_id,
        lambda key: sign_certificate(builder, key, issuer_path=issuer_path),
        purpose=KeyPurpose.PLATFORM,
    )
    return Authority(
        role=role,
        generation=FIRST,
        der=certificate.public_bytes(Encoding.DER),
        key_id=own.key_id,
        not_after=certificate.not_valid_after_utc,
    )


def _start(now: datetime) -> datetime:
    return now.replace(microsecond=0) - rules.BACKDATING


def _end(now: datetime, lifetime: timedelta) -> datetime:
    return now.replace(microsecond=0) + lifetime
