"""A key in the wire's words, for answers and events alike."""

from __future__ import annotations

import base64

from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_time
from lamassu.kernel.x509.pem import pem_of
from lamassu.services.kms.contract import Key
from lamassu.services.kms.rules import pkcs11_uri, shown_metadata


def key_document(key: Key) -> dict[str, Json]:
    """The wire's Key. `has_private_key` is always true: the KMS keeps no bare public keys."""
    return {
        "pkcs11_uri": pkcs11_uri(key),
        "key_id": key.key_id,
        "name": key.name,
        "aliases": list(key.aliases),
        "engine_id": key.engine_id,
        "has_private_key": True,
        "algorithm": key.spec.algorithm.value,
        "size": key.spec.size,
        "public_key": public_key_text(key.public_key),
        "creation_ts": format_time(key.created_at),
        "tags": list(key.tags),
        "metadata": shown_metadata(key),
        "origin": key.origin.value,
    }


def public_key_text(spki: bytes) -> str:
    """Base64 of the PEM of a SubjectPublicKeyInfo, as the wire carries public keys."""
    return base64.b64encode(pem_of(spki, "PUBLIC KEY")).decode()
