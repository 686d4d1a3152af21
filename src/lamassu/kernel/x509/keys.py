"""Public keys: what they are, how strong, and what we call them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lamassu.kernel.errors import LamassuError, Malformed, RuleViolation
from lamassu.kernel.x509 import der

# Object identifiers as DER values.
_RSA = bytes.fromhex("2a864886f70d010101")
_EC = bytes.fromhex("2a8648ce3d0201")
_CURVE_SIZES = {
    bytes.fromhex("2a8648ce3d030107"): 256,
    bytes.fromhex("2b81040022"): 384,
    bytes.fromhex("2b81040023"): 521,
    bytes.fromhex("2b81040021"): 224,
}
_OTHERS = {
    bytes.fromhex("2b6570"): ("Ed25519", 256),
    bytes.fromhex("2b6571"): ("Ed448", 456),
    bytes.fromhex("2a8648ce380401"): ("DSA", 0),
    bytes.fromhex("608648016503040311"): ("ML-DSA", 44),
    bytes.fromhex("608648016503040312"): ("ML-DSA", 65),
    bytes.fromhex("608648016503040313"): ("ML-DSA", 87),
}
# Keys that only sign, and that few relying parties know yet (RFC 8410, RFC 9881).
NEWER_KEYS = frozenset({"Ed25519", "ML-DSA"})
_LARGEST_SPKI = 2048
_LARGEST_EXPONENT = 1 << 32


class Strength(StrEnum):
    """The wire's three grades."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """`algorithm` in the wire's spelling (`RSA`, `ECDSA`, ..., empty if unknown); `size` in
    bits of modulus or curve, 0 if unknown (ML-DSA's is its parameter set). `exponent` is RSA's
    public one, else 0."""

    algorithm: str
    size: int
    exponent: int = 0


def key_facts(spki: bytes) -> KeyFacts:
    """What a SubjectPublicKeyInfo (DER) says of itself; nothing expensive is done.

    Raises `Malformed` (`key_malformed`).
    """
    try:
        return _key_facts(spki)
    except (LamassuError, ValueError, IndexError):
        raise Malformed("public key cannot be read", code="key_malformed") from None


def _key_facts(spki: bytes) -> KeyFacts:
    algorithm, bits = der.children(spki, der.sole_element(spki))
    parameters = der.children(spki, algorithm)
    oid = spki[parameters[0].value : parameters[0].end]
    if oid == _RSA:
        key = der.read_element(spki, bits.value + 1, bits.end)
        modulus, exponent = der.children(spki, key)
        return KeyFacts(
            "RSA",
            _integer(spki, modulus).bit_length(),
            _integer(spki, exponent),
        )
    if oid == _EC:
        # explicit parameters (a SEQUENCE here) describe a curve of the sender's own making
        named = parameters[1].tag == der.OBJECT_IDENTIFIER
        curve = spki[parameters[1].value : parameters[1].end]
        return KeyFacts("ECDSA", _CURVE_SIZES.get(curve, 0) if named else 0)
    return KeyFacts(*_OTHERS.get(oid, ("", 0)))


def _integer(data: bytes, element: der.Element) -> int:
    if element.tag != der.INTEGER:
        raise Malformed("not an INTEGER")
    return int.from_bytes(data[element.value : element.end], "big", signed=True)


def check_key_facts(facts: KeyFacts, *, field: str, newer: bool = False) -> None:
    """Refuse keys that nobody should certify: RSA of 2048 to 4096 bits with a sane public
    exponent, or one of the curves P-256, P-384, P-521, are taken; with `newer` also Ed25519
    and ML-DSA.

    Raises `RuleViolation` (`key_not_allowed`).
    """
    if facts.algorithm == "RSA":
        if not 2048 <= facts.size <= 4096:
            raise _not_allowed(f"RSA keys have 2048 to 4096 bits, not {facts.size}", field)
        if not 3 <= facts.exponent < _LARGEST_EXPONENT or facts.exponent % 2 == 0:
            raise _not_allowed("RSA public exponent is out of bounds", field)
    elif facts.algorithm == "ECDSA":
        if facts.size not in (256, 384, 521):
            raise _not_allowed("EC keys are on P-256, P-384 or P-521, by name", field)
    elif not (newer and facts.algorithm in NEWER_KEYS):
        raise _not_allowed("keys are RSA or ECDSA", field)


def _not_allowed(text: str, field: str) -> RuleViolation:
    return RuleViolation(text, code="key_not_allowed", field=field)


def load_public_key(spki: bytes, *, field: str = "public_key") -> PublicKeyTypes:
    """The key itself, judged by `check_key_facts` before it is loaded (points are checked).

    Raises `Malformed` (`key_malformed`) or `RuleViolation` (`key_not_allowed`).
    """
    if len(spki) > _LARGEST_SPKI:
        raise Malformed("public key is too long", code="key_malformed", field=field)
    check_key_facts(key_facts(spki), field=field)
    try:
        return load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Malformed("public key cannot be read", code="key_malformed", field=field) from None


def key_id(spki: bytes) -> str:
    """Lower-case hex SHA-256 of the SubjectPublicKeyInfo: KMS key id and our SKI."""
    return hashlib.sha256(spki).hexdigest()


def strength(facts: KeyFacts) -> Strength:
    """The wire's grade: RSA below 2048 low, below 3072 medium; curves to 128 bits low, below
    256 medium; anything unknown low."""
    if facts.algorithm == "RSA":
        low, medium = facts.size < 2048, facts.size < 3072
    elif facts.algorithm == "ECDSA":
        low, medium = facts.size <= 128, facts.size < 256
    else:
        return Strength.LOW
    if low:
        return Strength.LOW
    return Strength.MEDIUM if medium else Strength.HIGH


def signature_hash(key: object) -> hashes.HashAlgorithm:
    """The hash that a private or public key signs with: as strong as its curve, SHA-256
    for P-256 and RSA. Raises `RuleViolation` (`key_not_allowed`) for other kinds."""
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return hashes.SHA256()
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        bits = key.curve.key_size
        if bits <= 256:
            return hashes.SHA256()
        return hashes.SHA384() if bits <= 384 else hashes.SHA512()
    raise _not_allowed("keys are RSA or ECDSA", "key")
