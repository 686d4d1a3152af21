"""Making and checking signatures under the wire's schemes; pure arithmetic on given keys."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding
from cryptography.hazmat.primitives.asymmetric.ec import (
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lamassu.services.kms.contract import MessageType
from lamassu.services.kms.model import Padding, PrivateKey, SignatureScheme

_WholeMessageKey = (
    ed25519.Ed25519PublicKey
    | mldsa.MLDSA44PublicKey
    | mldsa.MLDSA65PublicKey
    | mldsa.MLDSA87PublicKey
)


def signature_over(
    key: PrivateKey, scheme: SignatureScheme, message: bytes, message_type: MessageType
) -> bytes:
    """Sign. ECDSA gives the DER of (r, s). Scheme, key type and digest length were checked."""
    if isinstance(key, RSAPrivateKey):
        return key.sign(message, rsa_padding(scheme), _digest(scheme, message_type))
    if isinstance(key, EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(_digest(scheme, message_type)))
    return key.sign(message)


def signature_holds(
    public_key: bytes,
    scheme: SignatureScheme,
    message: bytes,
    message_type: MessageType,
    signature: bytes,
) -> bool:
    """Whether the signature is the key's over the message; `public_key` is an SPKI, DER."""
    key = load_der_public_key(public_key)
    try:
        if isinstance(key, RSAPublicKey):
            key.verify(signature, message, rsa_padding(scheme), _digest(scheme, message_type))
        elif isinstance(key, EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(_digest(scheme, message_type)))
        elif isinstance(key, _WholeMessageKey):
            key.verify(signature, message)
        else:
            return False
    except InvalidSignature:
        return False
    return True


def _digest(scheme: SignatureScheme, message_type: MessageType) -> hashes.HashAlgorithm | Prehashed:
    assert scheme.hash is not None  # RSA and ECDSA schemes have one
    return Prehashed(scheme.hash) if message_type is MessageType.HASH else scheme.hash


def rsa_padding(scheme: SignatureScheme) -> padding.AsymmetricPadding:
    """How an RSA scheme pads: the wire's PSS has a salt as long as the digest, MGF1 with the
    same hash."""
    if scheme.padding is Padding.PSS and scheme.hash is not None:
        return padding.PSS(mgf=padding.MGF1(scheme.hash), salt_length=scheme.hash.digest_size)
    return padding.PKCS1v15()
