"""Signing DER that we built ourselves: CRLs and OCSP answers.

The library's builders copy their whole list for each entry added and sign in the same
breath; here the costly part, encoding, can run where it blocks nobody, and only the
signature asks the key.
"""

from __future__ import annotations

from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.keys import KeyFacts, signature_hash

_RSA_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")
_ECDSA_BY_SIZE = {
    256: bytes.fromhex("300a06082a8648ce3d040302"),
    384: bytes.fromhex("300a06082a8648ce3d040303"),
    521: bytes.fromhex("300a06082a8648ce3d040304"),
}


def signature_algorithm(facts: KeyFacts) -> bytes:
    """The AlgorithmIdentifier (DER) of what `sign` makes with such a key.

    Raises `RuleViolation` (`key_not_allowed`).
    """
    if facts.algorithm == "RSA":
        return _RSA_SHA256
    if facts.algorithm == "ECDSA" and facts.size in _ECDSA_BY_SIZE:
        return _ECDSA_BY_SIZE[facts.size]
    raise RuleViolation("keys are RSA or ECDSA", code="key_not_allowed", field="key")


def sign(key: CertificateIssuerPrivateKeyTypes, message: bytes) -> bytes:
    """The signature over `message`, by PKCS #1 v1.5 or ECDSA with the key's own hash."""
    algorithm = signature_hash(key)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), algorithm)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(algorithm))
    raise RuleViolation("keys are RSA or ECDSA", code="key_not_allowed", field="key")


def verify(key: object, message: bytes, signature: bytes) -> bool:
    """Whether `sign` with this public key's private one could have made the signature."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), signature_hash(key))
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(signature_hash(key)))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def integer(number: int) -> bytes:
    """A DER INTEGER of a number that is not negative."""
    return der.encode(der.INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def bit_string(octets: bytes) -> bytes:
    """A DER BIT STRING of whole octets."""
    return der.encode(der.BIT_STRING, b"\x00", octets)


def time(instant: datetime) -> bytes:
    """A DER Time (RFC 5280 §4.1.2.5): UTCTime through 2049, GeneralizedTime after."""
    if instant.year < 2050:
        return der.encode(0x17, instant.strftime("%y%m%d%H%M%SZ").encode("ascii"))
    return generalized_time(instant)


def generalized_time(instant: datetime) -> bytes:
    """A DER GeneralizedTime of a UTC instant, whole seconds."""
    return der.encode(0x18, instant.strftime("%Y%m%d%H%M%SZ").encode("ascii"))
