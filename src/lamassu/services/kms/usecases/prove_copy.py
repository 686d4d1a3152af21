"""Have a copy of a key sign something new before anybody relies on it."""

from __future__ import annotations

import secrets

from lamassu.kernel.errors import LamassuError, RuleViolation, Unavailable
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key, MessageType
from lamassu.services.kms.model import SCHEMES, PrivateKey, SignatureScheme
from lamassu.services.kms.usecases.guard import GuardedEngine
from lamassu.services.kms.usecases.signatures import signature_holds, signature_over

CHALLENGE_OCTETS = 32


async def prove_copy(key: Key, engine: GuardedEngine) -> None:
    """The key in this engine signs, and its signature is the key's: a copy, or a new one.

    Raises `Unavailable` (`key_damaged`, and what the engine says).
    """
    challenge = secrets.token_bytes(CHALLENGE_OCTETS)
    scheme = usual_scheme(key)

    def sign(private_key: PrivateKey) -> bytes:
        return signature_over(private_key, scheme, challenge, MessageType.RAW)

    signature = await engine.use(key.key_id, sign, purpose=key.purpose)
    if not signature_holds(key.public_key, scheme, challenge, MessageType.RAW, signature):
        raise Unavailable(
            f"engine {engine.id} signs wrongly: its signature with key {key.key_id} does not"
            " verify; the key is not used",
            code="key_damaged",
        )


def usual_scheme(key: Key) -> SignatureScheme:
    """A scheme that fits the key."""
    for scheme in SCHEMES.values():
        try:
            rules.check_scheme_fits(scheme, key)
        except LamassuError:
            continue
        return scheme
    raise RuleViolation("no scheme fits the key", code="unsupported_algorithm")
