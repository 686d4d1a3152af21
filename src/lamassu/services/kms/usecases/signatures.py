"""Making and checking signatures under the wire's schemes; pure arithmetic on given keys."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lamassu.kernel.errors import RuleViolation
from lamassu.services.kms.contract import MessageType
from lamassu.services.kms.model import Padding, PrivateKey, SignatureScheme


def signature_over(
    key: PrivateKey, scheme: SignatureScheme, message: bytes, message_type: MessageType
) -> bytes:
    """Sign. ECDSA gives the DER of (r, s). Scheme, key type and digest length were checked."""
    if isinstance(key, RSAPrivateKey):
        return key.sign(message, _rsa_padding(scheme), _digest(scheme, message_type))
    if isinstance(key, EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(_digest(scheme, message_type)))
    raise RuleViolation("the key cannot sign", code="algorithm_mismatch", field="algorithm")


def signature_holds(
    public_key: bytes,
    scheme: SignatureScheme,
    message: bytes,
    message_type: MessageType,
    signature: bytes,
) -> bool:
    """Whether the signature is the key's over the message; `public_key` is an SPKI, DER."""
    key = load_der_public_key(public_key)
    digest = _digest(scheme, message_type)
    try:
        if isinstance(key, RSAPublicKey):
            key.verify(signature, message, _rsa_padding(scheme), digest)
        elif isinstance(key, EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(digest))
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _digest(scheme: SignatureScheme, message_type: MessageType) -> hashes.HashAlgorithm | Prehashed:
    return Prehashed(scheme.hash) if message_type is MessageType.HASH else scheme.hash


def _rsa_padding(scheme: SignatureScheme) -> padding.AsymmetricPadding:
    if scheme.padding is Padding.PSS:
        # the wire's PSS: salt as long as the digest, MGF1 with the same hash
        return padding.PSS(mgf=padding.MGF1(scheme.hash), salt_length=scheme.hash.digest_size)
    return padding.PKCS1v15()
