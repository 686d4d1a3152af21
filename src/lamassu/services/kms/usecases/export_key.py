"""Hand a platform key out, encrypted, so that it can be kept off the host."""

from __future__ import annotations

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord
from lamassu.services.kms.contract import Key
from lamassu.services.kms.ports import GivesOutKeys, KeyStorage
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
    """The key as encrypted PKCS#8 PEM; recorded before it is handed out."""
    if len(passphrase) < PASSPHRASE_LENGTH_MIN:
        raise RuleViolation(
            f"the passphrase for a key's copy has at least {PASSPHRASE_LENGTH_MIN} bytes",
            code="weak_secret",
        )
    engine = engines.holding(key.engine_id)
    if not isinstance(engine, GivesOutKeys):
        raise RuleViolation(f"engine {key.engine_id} gives no keys out", code="key_not_exportable")
    pem = await engine.export(key.key_id, purpose=key.purpose, passphrase=passphrase)
    async with storage.unit() as unit:
        unit.audit(AuditRecord("kms.export", f"kms/{key.key_id}", caller))
    return pem
