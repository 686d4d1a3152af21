"""The log's key and the witness's: the platform's own, made when they are first needed."""

from __future__ import annotations

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.identity import system_caller
from lamassu.services.kms.contract import Engine, Key, KeyAlgorithm, KeyPurpose, Keys, KeySpec

CALLER = system_caller("issuance-log")
_ED25519 = KeySpec(KeyAlgorithm.ED25519, 256)
_P256 = KeySpec(KeyAlgorithm.ECDSA, 256)


async def make_log_key(keys: Keys) -> Key:
    """Ed25519 where the default engine makes it and can back it up, else ECDSA on P-256."""
    engine = next(one for one in await keys.engines() if one.default)
    spec = _ED25519 if _makes_ed25519(engine) and not _in_a_token(engine) else _P256
    return await _made_before_or_now(keys, "issuance log", spec, engine)


async def make_witness_key(keys: Keys) -> Key:
    """Ed25519, which is all that cosignatures know; in the default engine if that does.

    Raises `RuleViolation` (`no_engine_for_witness`).
    """
    able = [one for one in await keys.engines() if _makes_ed25519(one)]
    if not able:
        raise RuleViolation(
            "no crypto engine makes Ed25519 keys, with which witnesses sign; configure one",
            code="no_engine_for_witness",
        )
    able.sort(key=lambda one: (_in_a_token(one), not one.default))
    engine = able[0]
    return await _made_before_or_now(keys, "log witness", _ED25519, engine)


async def _made_before_or_now(keys: Keys, name: str, spec: KeySpec, engine: Engine) -> Key:
    """One that was made before a crash is taken again."""
    unused = await keys.find_unused(name, spec, purpose=KeyPurpose.PLATFORM, engine_id=engine.id)
    return unused or await keys.generate(
        spec, purpose=KeyPurpose.PLATFORM, name=name, caller=CALLER, engine_id=engine.id
    )


def _in_a_token(engine: Engine) -> bool:
    """Some tokens wrap no Ed25519 keys, and one key without a backup would stop that of all."""
    return engine.type == "PKCS11"


def _makes_ed25519(engine: Engine) -> bool:
    return KeyAlgorithm.ED25519 in engine.supported
