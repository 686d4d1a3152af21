"""Check a signature for a caller of the API."""

from __future__ import annotations

import asyncio

from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key, KeyAlgorithm
from lamassu.services.kms.usecases.sign_message import Message
from lamassu.services.kms.usecases.signatures import signature_holds


async def verify_message(key: Key, message: Message, signature: bytes) -> bool:
    """Whether the signature is the key's over the message; needs the public key only.

    RSA verification is short, EC beyond P-256 is not: all go to a thread but the shortest.
    """
    scheme = rules.parse_scheme(message.algorithm)
    rules.check_scheme_fits(scheme, key)
    rules.check_digest(message.content, message.type, scheme)
    arguments = (key.public_key, scheme, message.content, message.type, signature)
    if key.spec.algorithm is KeyAlgorithm.ECDSA and key.spec.size > 256:
        return await asyncio.to_thread(signature_holds, *arguments)
    return signature_holds(*arguments)
