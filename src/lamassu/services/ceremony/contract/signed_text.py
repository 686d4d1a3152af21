"""Text that a root key signs: never a SEQUENCE or a SET, so never a certificate (rule 8).

Each message begins with a line that names its format, and only that format's reader takes it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import cast

from cryptography import x509

from lamassu.kernel.errors import LamassuError, Malformed
from lamassu.kernel.records import Json
from lamassu.kernel.x509 import signing
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.keys import load_public_key

LARGEST = 8 * 1024 * 1024


def canonical(document: Mapping[str, Json]) -> str:
    """The one spelling of a JSON object: sorted, without blanks, ASCII."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def read_canonical(text: str, *, what: str) -> dict[str, Json]:
    """Read what `canonical` wrote; any other spelling of the same is refused.

    So no two readers see two meanings (a key given twice, a number with a fraction).
    Raises `Malformed` (`<what>_malformed`).
    """
    try:
        document = json.loads(text)
        same = isinstance(document, dict) and canonical(document) == text
    except (ValueError, RecursionError):
        same = False
    if not same:
        raise Malformed(f"the {what} cannot be read", code=f"{what}_malformed", field=what)
    return cast("dict[str, Json]", document)


def digest_of(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def encoded(data: bytes) -> str:
    """Bytes in JSON."""
    return base64.b64encode(data).decode("ascii")


def decoded(value: Json, *, what: str) -> bytes:
    """Bytes out of JSON. Raises `Malformed` (`<what>_malformed`)."""
    try:
        if not isinstance(value, str):
            raise ValueError
        return base64.b64decode(value, validate=True)
    except (ValueError, binascii.Error):
        raise Malformed(
            f"the {what} holds something else than bytes", code=f"{what}_malformed", field=what
        ) from None


def algorithm_of(certificate: bytes) -> str:
    """The name of the signature that this certificate's key makes, as the KMS spells it."""
    facts = certificate_facts(certificate).key
    if facts.algorithm == "RSA":
        return "RSASSA_PKCS1_V1_5_SHA_256"
    return f"ECDSA_SHA_{ {256: 256, 384: 384, 521: 512}.get(facts.size, 256) }"


def is_signed_by(certificate: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the certificate's key made this signature over the message."""
    try:
        key = load_public_key(certificate_facts(certificate).spki)
    except LamassuError:
        return False
    return signing.verify(key, message, signature)


def load(certificate: bytes, *, what: str) -> x509.Certificate:
    """A certificate, read within bounds. Raises `Malformed` (`<what>_malformed`)."""
    try:
        certificate_facts(certificate)
        return x509.load_der_x509_certificate(certificate)
    except (LamassuError, ValueError):
        raise Malformed(
            f"a certificate in the {what} cannot be read", code=f"{what}_malformed", field=what
        ) from None
