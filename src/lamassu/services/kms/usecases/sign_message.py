"""Sign a message for a caller of the API."""

from __future__ import annotations

import base64
import dataclasses
from dataclasses import dataclass

from lamassu.kernel.errors import Forbidden
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key, KeyPurpose, MessageType
from lamassu.services.kms.model import SignatureScheme
from lamassu.services.kms.ports import KeyStorage, KeyUnit
from lamassu.services.kms.usecases.engines import EngineDirectory
from lamassu.services.kms.usecases.signatures import signature_over


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be signed, or was; `algorithm` is a wire name."""

    content: bytes
    type: MessageType
    algorithm: str


async def sign_message(
    key: Key,
    message: Message,
    *,
    caller: Caller,
    engines: EngineDirectory,
    storage: KeyStorage,
) -> bytes:
    """Sign, and mark the key as one that signed for the API, before the signature goes out.

    A CA's key signs under security rule 8; what it refuses is audited. `message.content` is
    neither published nor recorded.
    """
    scheme = rules.parse_scheme(message.algorithm)
    rules.check_scheme_fits(scheme, key)
    await _check_rule_8(key, message, caller=caller, storage=storage)
    rules.check_digest(message.content, message.type, scheme)
    engine = engines.holding(key.engine_id)
    signature = await engine.use(
        key.key_id,
        lambda private_key: signature_over(private_key, scheme, message.content, message.type),
        purpose=key.purpose,
    )
    async with storage.unit() as unit:
        await _mark(key, scheme, message, signature, caller=caller, unit=unit)
    return signature


async def _check_rule_8(key: Key, message: Message, *, caller: Caller, storage: KeyStorage) -> None:
    if key.purpose is not KeyPurpose.CA:
        return
    try:
        rules.check_ca_message(message.content, message.type)
    except Forbidden as refusal:
        async with storage.unit() as unit:
            unit.audit(
                AuditRecord(
                    "ca-key.sign",
                    f"kms/{key.key_id}",
                    caller,
                    outcome="refused",
                    detail={"algorithm": message.algorithm, "code": refusal.code},
                )
            )
        raise


async def _mark(
    key: Key,
    scheme: SignatureScheme,
    message: Message,
    signature: bytes,
    *,
    caller: Caller,
    unit: KeyUnit,
) -> None:
    current = await unit.lock(key.key_id)
    if current is None:
        raise rules.key_not_found()  # deleted meanwhile: the signature is thrown away
    marked = dataclasses.replace(current, has_signed=True, version=current.version + 1)
    await unit.save(marked)
    subject = f"kms/{key.key_id}"
    signed = {"signature": base64.b64encode(signature).decode()}
    unit.emit(Event("kms.sign", subject, marked.version, signed, caller))
    action = "ca-key.sign" if key.purpose is KeyPurpose.CA else "kms.sign"
    detail = {"algorithm": scheme.name, "message_type": message.type.value}
    unit.audit(AuditRecord(action, subject, caller, detail=detail))
