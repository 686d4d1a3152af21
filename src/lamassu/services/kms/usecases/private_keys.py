"""Private keys that were made elsewhere: read, and judged before they are trusted."""

from __future__ import annotations

import re
from typing import cast, get_args

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
)

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.services.kms.contract import KeyAlgorithm, KeySpec, MessageType
from lamassu.services.kms.model import SCHEMES, PrivateKey, SignatureScheme
from lamassu.services.kms.usecases.signatures import signature_holds, signature_over

LENGTH_MAX = 16 * 1024  # an RSA key of 15360 bits, the original's largest, has 12 KiB
FIELD = "private_key"
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_LABELS = frozenset({b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY"})
_SEQUENCE = b"\x30"  # how every DER form of a key begins
_ENCRYPTED_MARKS = (b"ENCRYPTED PRIVATE KEY", b"Proc-Type:")
_CURVES = {"secp224r1": 224, "secp256r1": 256, "secp384r1": 384, "secp521r1": 521}
_MLDSA = (
    (mldsa.MLDSA44PrivateKey, 44),
    (mldsa.MLDSA65PrivateKey, 65),
    (mldsa.MLDSA87PrivateKey, 87),
)
_MLDSA_PUBLIC = (
    (mldsa.MLDSA44PublicKey, 44),
    (mldsa.MLDSA65PublicKey, 65),
    (mldsa.MLDSA87PublicKey, 87),
)
_KINDS = "keys are RSA, ECDSA, Ed25519 or ML-DSA"
_EXPONENT_MIN = 65537  # FIPS 186-5 §A.1.1: 2^16 < e < 2^256
_EXPONENT_LIMIT = 1 << 32  # what we certify, too
_PROBE = b"a message that every key of this kind can sign"


def parse_private_key(data: bytes) -> PrivateKey:
    """The one key in a PEM text or in DER: PKCS #8, PKCS #1 or SEC 1. Not judged yet, and cheap.

    Raises `Malformed` (`private_key_malformed`, `private_key_encrypted`) and `RuleViolation`
    (`unsupported_key`) for kinds that we do not use. No text tells anything of the key.
    """
    if len(data) > LENGTH_MAX:
        raise _malformed(f"a private key has at most {LENGTH_MAX} bytes")
    load, content = load_der_private_key, data
    if not data.startswith(_SEQUENCE):
        load, content = load_pem_private_key, _only_block(data)
    try:
        # the primality checks of `check_private_key` wait until the size was judged
        key = load(content, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise _encrypted() from None
    except (ValueError, UnsupportedAlgorithm):
        raise _malformed("the private key cannot be read") from None
    if not isinstance(key, get_args(PrivateKey)):
        raise _unsupported(_KINDS)
    return cast("PrivateKey", key)


def _only_block(pem: bytes) -> bytes:
    if any(mark in pem for mark in _ENCRYPTED_MARKS):
        raise _encrypted()
    found = [match for match in _BEGIN.finditer(pem) if match[1] in _LABELS]
    if len(found) != 1:
        raise _malformed(
            "send one private key as PEM: PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY"
        )
    return pem[found[0].start() :]  # past the EC PARAMETERS that OpenSSL may write before it


def spec_of(key: PrivateKey) -> KeySpec:
    """Kind and size of a key. Raises `RuleViolation` (`unsupported_key`) for other curves."""
    if isinstance(key, rsa.RSAPrivateKey):
        return KeySpec(KeyAlgorithm.RSA, key.key_size)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return KeySpec(KeyAlgorithm.ECDSA, _curve_size(key.curve))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return KeySpec(KeyAlgorithm.ED25519, 256)
    size = next(size for kind, size in _MLDSA if isinstance(key, kind))
    return KeySpec(KeyAlgorithm.ML_DSA, size)


def spki_of(key: PrivateKey) -> bytes:
    """The SubjectPublicKeyInfo, DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def spec_of_public_key(spki: bytes) -> KeySpec:
    """Kind and size of a SubjectPublicKeyInfo. Raises as `spec_of`."""
    key = load_der_public_key(spki)
    if isinstance(key, rsa.RSAPublicKey):
        return KeySpec(KeyAlgorithm.RSA, key.key_size)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return KeySpec(KeyAlgorithm.ECDSA, _curve_size(key.curve))
    if isinstance(key, ed25519.Ed25519PublicKey):
        return KeySpec(KeyAlgorithm.ED25519, 256)
    for kind, size in _MLDSA_PUBLIC:
        if isinstance(key, kind):
            return KeySpec(KeyAlgorithm.ML_DSA, size)
    raise _unsupported(_KINDS)


def _curve_size(curve: ec.EllipticCurve) -> int:
    # by name: other curves have 256 bits too
    size = _CURVES.get(curve.name)
    if size is None:
        raise _unsupported("EC keys are on P-256, P-384 or P-521")
    return size


def check_private_key(key: PrivateKey) -> None:
    """Refuse a weak key, and one whose parts do not belong together. Slow: leave the loop.

    Its size was judged before, which bounds the work. Raises `RuleViolation` (`weak_key`).
    """
    if isinstance(key, rsa.RSAPrivateKey):
        _check_rsa(key)
    scheme = _some_scheme(spec_of(key))
    try:
        signature = signature_over(key, scheme, _PROBE, MessageType.RAW)
        holds = signature_holds(spki_of(key), scheme, _PROBE, MessageType.RAW, signature)
    except (ValueError, InvalidSignature):
        holds = False
    if not holds:
        raise _weak("its private and public parts do not belong together")


def _some_scheme(spec: KeySpec) -> SignatureScheme:
    return next(
        scheme
        for scheme in SCHEMES.values()
        if scheme.algorithm is spec.algorithm and scheme.size in (0, spec.size)
    )


def _check_rsa(key: rsa.RSAPrivateKey) -> None:
    numbers = key.private_numbers()
    modulus = numbers.public_numbers.n
    _check_rsa_public(numbers.public_numbers)
    try:
        numbers.private_key()  # primes, product and exponents
    except ValueError:
        raise _weak("its numbers are no RSA key") from None
    # FIPS 186-5 §A.1.3: factors near each other are found at once (Fermat)
    if abs(numbers.p - numbers.q).bit_length() <= modulus.bit_length() // 2 - 100:
        raise _weak("its two primes are too near each other")


def check_public_key(spki: bytes) -> None:
    """Refuse a key whose public part tells that it is weak. Raises `RuleViolation`
    (`weak_key`)."""
    key = load_der_public_key(spki)
    if isinstance(key, rsa.RSAPublicKey):
        _check_rsa_public(key.public_numbers())


def _check_rsa_public(numbers: rsa.RSAPublicNumbers) -> None:
    if not _EXPONENT_MIN <= numbers.e < _EXPONENT_LIMIT or numbers.e % 2 == 0:
        raise _weak("its public exponent is out of bounds (FIPS 186-5: odd, at least 65537)")
    if _has_roca_fingerprint(numbers.n):
        raise _weak("it has the fingerprint of ROCA (CVE-2017-15361); make a new key")


def _powers(base: int, prime: int) -> frozenset[int]:
    found, value = set(), 1
    while value not in found:
        found.add(value)
        value = value * base % prime
    return frozenset(found)


# The primes below 168 whose residues tell: keys of the faulty library are a power of 65537
# modulo each of them, any other key is so for all of them once in 10^8 or less often.
_ROCA = {
    prime: _powers(65537, prime)
    for prime in range(3, 168, 2)
    if all(prime % divisor for divisor in range(3, int(prime**0.5) + 1, 2))
}


def _has_roca_fingerprint(modulus: int) -> bool:
    return all(modulus % prime in powers for prime, powers in _ROCA.items())


def _malformed(text: str) -> Malformed:
    return Malformed(text, code="private_key_malformed", field=FIELD)


def _encrypted() -> Malformed:
    return Malformed(
        "the private key is encrypted; decrypt it first, such as by: openssl pkey -in key.pem",
        code="private_key_encrypted",
        field=FIELD,
    )


def _unsupported(text: str) -> RuleViolation:
    return RuleViolation(text, code="unsupported_key", field=FIELD)


def _weak(text: str) -> RuleViolation:
    return RuleViolation(f"the private key is refused: {text}", code="weak_key", field=FIELD)
