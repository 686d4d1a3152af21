"""What AWS KMS calls our keys and schemes, and how a digest is put so that it signs it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from lamassu.kernel.errors import RuleViolation
from lamassu.services.kms.contract import KeyAlgorithm, KeySpec

LONGEST_MESSAGE = 4096  # bytes that KMS takes at once
KEY_SPECS: Mapping[KeySpec, str] = {
    **{KeySpec(KeyAlgorithm.RSA, size): f"RSA_{size}" for size in (2048, 3072, 4096)},
    **{KeySpec(KeyAlgorithm.ECDSA, size): f"ECC_NIST_P{size}" for size in (256, 384, 521)},
    KeySpec(KeyAlgorithm.ED25519, 256): "ECC_NIST_EDWARDS25519",
    **{KeySpec(KeyAlgorithm.ML_DSA, size): f"ML_DSA_{size}" for size in (44, 65, 87)},
}
_ECDSA: Mapping[int, tuple[str, int]] = {  # each curve has one algorithm, with a digest so long
    256: ("ECDSA_SHA_256", 32),
    384: ("ECDSA_SHA_384", 48),
    521: ("ECDSA_SHA_512", 64),
}
_ML_DSA = (mldsa.MLDSA44PublicKey, mldsa.MLDSA65PublicKey, mldsa.MLDSA87PublicKey)


def spec_of(key: PublicKeyTypes) -> KeySpec | None:
    """What a public key is; `None` for a kind that we do not use."""
    if isinstance(key, rsa.RSAPublicKey):
        return KeySpec(KeyAlgorithm.RSA, key.key_size)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return KeySpec(KeyAlgorithm.ECDSA, key.curve.key_size)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return KeySpec(KeyAlgorithm.ED25519, 256)
    for size, kind in zip((44, 65, 87), _ML_DSA, strict=True):
        if isinstance(key, kind):
            return KeySpec(KeyAlgorithm.ML_DSA, size)
    return None


def ecdsa_request(digest: bytes, curve_bits: int) -> tuple[str, bytes]:
    """The algorithm and digest that make KMS sign `digest`, whatever hash it comes from.

    KMS binds each curve to one hash. But ECDSA signs a number: the digest's leftmost bits, as
    many as the curve's order has (FIPS 186-5 §6.4.1). A longer digest cut to its leftmost bits,
    and a shorter one with zeros before it, are that same number at the length that KMS wants.
    """
    algorithm, length = _ECDSA[curve_bits]
    return algorithm, digest[:length].rjust(length, b"\0")


def check_message(message: bytes) -> None:
    """Raise `RuleViolation` (`message_too_long`) for what KMS cannot sign whole."""
    if not 1 <= len(message) <= LONGEST_MESSAGE:
        raise RuleViolation(
            f"AWS KMS signs Ed25519 messages of 1 to {LONGEST_MESSAGE} bytes; this one has"
            f" {len(message)}. Use an ECDSA or RSA key",
            code="message_too_long",
            field="message",
        )


def ml_dsa_representative(public_key: bytes, message: bytes) -> bytes:
    """The 64 bytes that ML-DSA signs for a message of any length: FIPS 204 algorithms 2 and 7,
    pure and without context. `public_key` is the raw encoding, as algorithm 22 gives it."""
    prefix = hashlib.shake_256(public_key).digest(64)
    return hashlib.shake_256(prefix + b"\x00\x00" + message).digest(64)
