"""Hand a platform key out, encrypted, so that it can be kept off the host."""

from __future__ import annotations

import asyncio

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key, KeyPurpose
from lamassu.services.kms.ports import KeyStorage
from lamassu.services.kms.usecases.engines import EngineDirectory

PASSPHRASE_LENGTH_MIN = 12


async def export_key(
    key: Key,
    *,
    passphrase: bytes,
    caller: Caller,
    engines: EngineDirectory,
    storage: KeyStorage,
) -> bytes:
    """The key, which is the platform's own, as encrypted PKCS#8 PEM; recorded before it is
    handed out. Raises `RuleViolation`: `weak_secret`, `key_not_exportable`."""
    rules.check_purpose(key, KeyPurpose.PLATFORM)
    if len(passphrase) < PASSPHRASE_LENGTH_MIN:
        raise RuleViolation(
            f"the passphrase for a key's copy has at least {PASSPHRASE_LENGTH_MIN} bytes",
            code="weak_secret",
        )
    private_key = await engines.holding(key.engine_id).take_out(key.key_id, purpose=key.purpose)
    pem = await asyncio.to_thread(
        private_key.private_bytes,
        Encoding.PEM,
        PrivateFormat.PKCS8,
        BestAvailableEncryption(passphrase),
    )
    async with storage.unit() as unit:
        unit.audit(AuditRecord("kms.export", f"kms/{key.key_id}", caller))
    return pem
