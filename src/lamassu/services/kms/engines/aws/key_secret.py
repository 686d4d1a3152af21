"""A private key as the original keeps it in a secret: `{"key": "<base64 of PEM PKCS#8>"}`."""

from __future__ import annotations

import base64
import json
from typing import get_args

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from lamassu.services.kms.model import PrivateKey


def secret_of(key: PrivateKey) -> str:
    """The secret's text, byte for byte as the original writes it."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return json.dumps({"key": base64.b64encode(pem).decode()})


def key_of(secret: str) -> PrivateKey | None:
    """The key in a secret; `None` for a text that holds none, or one of a kind that we do not
    use. PKCS#1 and SEC 1 are read too, as by the original."""
    try:
        pem = base64.b64decode(json.loads(secret)["key"], validate=True)
        key = load_pem_private_key(pem, None)
    except (ValueError, KeyError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, get_args(PrivateKey)) else None
