"""Values inside the KMS: signature schemes, what an engine made, what a caller asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import (
    MLDSA44PrivateKey,
    MLDSA65PrivateKey,
    MLDSA87PrivateKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from lamassu.kernel.records import Json
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec

MLDSAPrivateKey: TypeAlias = MLDSA44PrivateKey | MLDSA65PrivateKey | MLDSA87PrivateKey
PrivateKey: TypeAlias = (
    RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | MLDSAPrivateKey
)


class Padding(StrEnum):
    """How a digest becomes a signature. Only RSA has a choice."""

    PKCS1_V1_5 = "PKCS#1 v1.5"
    PSS = "PSS"
    NONE = "-"


@dataclass(frozen=True, slots=True)
class SignatureScheme:
    """What a wire name such as `RSASSA_PSS_SHA_256` stands for.

    `hash` is absent where the scheme takes the whole message (Ed25519, ML-DSA); `size` is the
    one that the key must have, or 0 for any.
    """

    name: str
    algorithm: KeyAlgorithm
    padding: Padding
    hash: hashes.HashAlgorithm | None
    size: int = 0


_HASHES: tuple[hashes.HashAlgorithm, ...] = (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
_FAMILIES = (
    ("RSASSA_PKCS1_V1_5", KeyAlgorithm.RSA, Padding.PKCS1_V1_5),
    ("RSASSA_PSS", KeyAlgorithm.RSA, Padding.PSS),
    ("ECDSA", KeyAlgorithm.ECDSA, Padding.NONE),
)
_WITH_DIGEST = [
    SignatureScheme(f"{family}_SHA_{digest.digest_size * 8}", algorithm, padding, digest)
    for family, algorithm, padding in _FAMILIES
    for digest in _HASHES
]
_WHOLE_MESSAGE = [
    SignatureScheme("ED25519", KeyAlgorithm.ED25519, Padding.NONE, None),
    *(
        SignatureScheme(f"ML_DSA_{size}", KeyAlgorithm.ML_DSA, Padding.NONE, None, size)
        for size in (44, 65, 87)
    ),
]
SCHEMES: Mapping[str, SignatureScheme] = {
    scheme.name: scheme for scheme in (*_WITH_DIGEST, *_WHOLE_MESSAGE)
}


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A key that an engine has just made: its id there and its SubjectPublicKeyInfo, DER."""

    key_id: str
    public_key: bytes


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A private key as one token gives it to another: encrypted under an AES key that both hold
    (RFC 5649 over PKCS #8). `wrapped_under` is that key's check value, hex."""

    key_id: str
    public_key: bytes  # SubjectPublicKeyInfo, DER
    wrapped_under: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BackedUpKey:
    """A wrapped key, with what its row said of it."""

    wrapped: WrappedKey
    name: str
    spec: KeySpec
    purpose: KeyPurpose

    @property
    def key_id(self) -> str:
        return self.wrapped.key_id


@dataclass(frozen=True, slots=True)
class KeyBackup:
    """Keys of one engine, wrapped, as they stand in a file. `left_out` are ids of keys that the
    engine would not wrap."""

    id: str
    engine_id: str
    created_at: datetime
    keys: tuple[BackedUpKey, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackupRecord:
    """What the KMS remembers of a backup: which keys are in it, the SHA-256 (hex) of its file,
    and when it was last shown to restore."""

    id: str
    engine_id: str
    created_at: datetime
    sha256: str
    key_ids: tuple[str, ...]
    rehearsed_at: datetime | None = None
    rehearsed_in: str = ""


@dataclass(frozen=True, slots=True)
class Rehearsals:
    """How often a key's backup was rehearsed in one engine, and whether that has not ended: a
    copy may be there then, which is going to be removed."""

    number: int = 0
    under_way: bool = False


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A key that an engine has and nobody claimed; `name` is what it was called before, if that
    was not its id."""

    key_id: str
    public_key: bytes  # SubjectPublicKeyInfo, DER
    spec: KeySpec
    name: str = ""


@dataclass(frozen=True, slots=True)
class NewKey:
    """What an API caller asks for; `engine_id` absent means the default engine."""

    spec: KeySpec
    name: str
    engine_id: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImportedKey:
    """A private key that an API caller sends to be kept; `name` may be empty."""

    private_key: bytes = field(repr=False)  # PEM or DER
    name: str = ""
    engine_id: str | None = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """How many keys there are, by engine id and by algorithm."""

    by_engine: Mapping[str, int]
    by_algorithm: Mapping[KeyAlgorithm, int]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.by_engine.values())
