"""Private keys that live elsewhere, as the library's builders want to see them.

A certificate, CRL or CSR builder of `cryptography` signs with whatever is an instance of its
private key classes, by calling `sign`. A stand-in is one whose `sign` hashes here and has the
engine sign the digest; Ed25519 and ML-DSA hand over the whole message. It gives no bytes out.
"""

from __future__ import annotations

from typing import NoReturn, Protocol, TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lamassu.kernel.errors import RuleViolation, Unavailable
from lamassu.services.kms.model import SCHEMES, PrivateKey, SignatureScheme

Octets: TypeAlias = bytes | bytearray | memoryview


class RemoteSigner(Protocol):
    """One key in an engine; both methods block and raise as `CryptoEngine` does."""

    def sign_digest(self, digest: bytes, scheme: SignatureScheme) -> bytes:
        """RSA or ECDSA over a digest of `scheme.hash`; ECDSA as the DER of (r, s)."""
        ...

    def sign_message(self, message: bytes, scheme: SignatureScheme) -> bytes:
        """Ed25519 or ML-DSA over the message."""
        ...


def stand_in(public_key: bytes, signer: RemoteSigner) -> PrivateKey:
    """The stand-in for the key with this SubjectPublicKeyInfo (DER).

    Raises `Unavailable` (`key_damaged`) for a kind of key that we do not use.
    """
    key = load_der_public_key(public_key)
    if isinstance(key, rsa.RSAPublicKey):
        return _RsaStandIn(key, signer)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _EcStandIn(key, signer)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return _Ed25519StandIn(key, signer)
    if isinstance(key, mldsa.MLDSA44PublicKey):
        return _MLDSA44StandIn(key, signer)
    if isinstance(key, mldsa.MLDSA65PublicKey):
        return _MLDSA65StandIn(key, signer)
    if isinstance(key, mldsa.MLDSA87PublicKey):
        return _MLDSA87StandIn(key, signer)
    raise Unavailable("the engine holds a key of an unknown kind", code="key_damaged")


def digest_of(
    data: Octets, algorithm: hashes.HashAlgorithm | Prehashed
) -> tuple[bytes, hashes.HashAlgorithm]:
    """The digest to sign and its hash; `Prehashed` data is one already."""
    if isinstance(algorithm, Prehashed):
        return bytes(data), algorithm._algorithm
    context = hashes.Hash(algorithm)
    context.update(data)
    return context.finalize(), algorithm


def _scheme(family: str, used: hashes.HashAlgorithm) -> SignatureScheme:
    scheme = SCHEMES.get(f"{family}_SHA_{used.digest_size * 8}")
    if scheme is None or scheme.hash is None or scheme.hash.name != used.name:
        raise RuleViolation(f"no key signs {family} with {used.name}", code="unsupported_algorithm")
    return scheme


def _rsa_family(chosen: padding.AsymmetricPadding, used: hashes.HashAlgorithm) -> str:
    if isinstance(chosen, padding.PKCS1v15):
        return "RSASSA_PKCS1_V1_5"
    if isinstance(chosen, padding.PSS):
        salt = chosen._salt_length
        mask: hashes.HashAlgorithm = chosen._mgf._algorithm
        if mask.name == used.name and salt in (used.digest_size, padding.PSS.DIGEST_LENGTH):
            return "RSASSA_PSS"
    raise RuleViolation(
        "engines pad by PKCS #1 v1.5 or PSS with a salt as long as the digest",
        code="unsupported_algorithm",
    )


def _stays() -> NoReturn:
    raise RuleViolation("the key never leaves its engine", code="key_not_exportable")


class _Kept:
    """What every stand-in refuses."""

    def private_numbers(self) -> NoReturn:
        _stays()

    def private_bytes(self, *_: object, **__: object) -> NoReturn:
        _stays()

    def private_bytes_raw(self) -> NoReturn:
        _stays()

    def __copy__(self) -> NoReturn:
        _stays()

    def __deepcopy__(self, memo: object) -> NoReturn:
        _stays()


class _RsaStandIn(_Kept, rsa.RSAPrivateKey):
    def __init__(self, key: rsa.RSAPublicKey, signer: RemoteSigner) -> None:
        self._key = key
        self._signer = signer

    @property
    def key_size(self) -> int:
        return self._key.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        return self._key

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> NoReturn:
        raise RuleViolation("keys here sign and do not decrypt", code="unsupported_algorithm")

    def sign(
        self,
        data: Octets,
        padding: padding.AsymmetricPadding,
        algorithm: Prehashed | hashes.HashAlgorithm | object,
    ) -> bytes:
        digest, used = digest_of(data, _hash(algorithm))
        return self._signer.sign_digest(digest, _scheme(_rsa_family(padding, used), used))


class _EcStandIn(_Kept, ec.EllipticCurvePrivateKey):
    def __init__(self, key: ec.EllipticCurvePublicKey, signer: RemoteSigner) -> None:
        self._key = key
        self._signer = signer

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._key.curve

    @property
    def key_size(self) -> int:
        return self._key.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        raise RuleViolation("keys here sign and do not agree", code="unsupported_algorithm")

    def sign(self, data: Octets, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        digest, used = digest_of(data, _hash(signature_algorithm.algorithm))
        return self._signer.sign_digest(digest, _scheme("ECDSA", used))


class _Ed25519StandIn(_Kept, ed25519.Ed25519PrivateKey):
    def __init__(self, key: ed25519.Ed25519PublicKey, signer: RemoteSigner) -> None:
        self._key = key
        self._signer = signer

    def public_key(self) -> ed25519.Ed25519PublicKey:
        return self._key

    def sign(self, data: Octets) -> bytes:
        return self._signer.sign_message(bytes(data), SCHEMES["ED25519"])


class _MLDSA(_Kept):
    """FIPS 204, pure, without context."""

    _signer: RemoteSigner
    _size: int

    def sign(self, data: Octets, context: Octets | None = None) -> bytes:
        if context:
            raise RuleViolation("engines sign without context", code="unsupported_algorithm")
        return self._signer.sign_message(bytes(data), SCHEMES[f"ML_DSA_{self._size}"])

    def sign_mu(self, mu: Octets) -> NoReturn:
        raise RuleViolation("engines sign whole messages", code="unsupported_algorithm")


class _MLDSA44StandIn(_MLDSA, mldsa.MLDSA44PrivateKey):
    _size = 44

    def __init__(self, key: mldsa.MLDSA44PublicKey, signer: RemoteSigner) -> None:
        self._key = key
        self._signer = signer

    def public_key(self) -> mldsa.MLDSA44PublicKey:
        return self._key


class _MLDSA65StandIn(_MLDSA, mldsa.MLDSA65PrivateKey):
    _size = 65

    def __init__(self, key: mldsa.MLDSA65PublicKey, signer: RemoteSigner) -> None:
        self._key = key
        self._signer = signer

    def public_key(self) -> mldsa.MLDSA65PublicKey:
        return self._key


class _MLDSA87StandIn(_MLDSA, mldsa.MLDSA87PrivateKey):
    _size = 87

    def __init__(self, key: mldsa.MLDSA87PublicKey, signer: RemoteSigner) -> None:
        self._key = key
        self._signer = signer

    def public_key(self) -> mldsa.MLDSA87PublicKey:
        return self._key


def _hash(algorithm: object) -> Prehashed | hashes.HashAlgorithm:
    if isinstance(algorithm, Prehashed | hashes.HashAlgorithm):
        return algorithm
    raise RuleViolation("an engine is given a digest or a hash", code="unsupported_algorithm")
