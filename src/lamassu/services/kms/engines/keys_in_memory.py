"""Private keys while they are in our own memory: made, kept for a while, used at once.

For every engine whose keys come into this process: the software keystore, and the stores that
hold private keys as secrets.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lamassu.kernel.errors import RuleViolation
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec
from lamassu.services.kms.model import PrivateKey

KEYS_IN_MEMORY = 1024
CURVES: Mapping[int, ec.EllipticCurve] = {
    256: ec.SECP256R1(),
    384: ec.SECP384R1(),
    521: ec.SECP521R1(),
}
ML_DSA: Mapping[int, Callable[[], PrivateKey]] = {
    44: mldsa.MLDSA44PrivateKey.generate,
    65: mldsa.MLDSA65PrivateKey.generate,
    87: mldsa.MLDSA87PrivateKey.generate,
}
SUPPORTED: Mapping[KeyAlgorithm, Sequence[int]] = {
    KeyAlgorithm.RSA: (2048, 3072, 4096),
    KeyAlgorithm.ECDSA: tuple(CURVES),
    KeyAlgorithm.ED25519: (256,),
    KeyAlgorithm.ML_DSA: tuple(ML_DSA),
}


class OpenedKeys:
    """Decrypted keys by id and purpose, bounded; the least recently used goes first.

    The purpose is part of the name so that memory asks what the file would have asked.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._keys: OrderedDict[tuple[str, KeyPurpose], PrivateKey] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key_id: str, purpose: KeyPurpose) -> PrivateKey | None:
        with self._lock:
            key = self._keys.get((key_id, purpose))
            if key is not None:
                self._keys.move_to_end((key_id, purpose))
            return key

    def put(self, key_id: str, purpose: KeyPurpose, key: PrivateKey) -> None:
        with self._lock:
            self._keys[(key_id, purpose)] = key
            while len(self._keys) > self._limit:
                self._keys.popitem(last=False)

    def forget(self, key_id: str) -> None:
        with self._lock:
            for purpose in KeyPurpose:
                self._keys.pop((key_id, purpose), None)

    def clear(self) -> None:
        with self._lock:
            self._keys.clear()


def signs_inline(key: PrivateKey) -> bool:
    """Whether a signature costs the loop hardly more than the hop to a thread would."""
    return isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey)


def generate_key(spec: KeySpec) -> PrivateKey:
    """A new key. Raises `RuleViolation` (`unsupported_key`)."""
    if spec.algorithm is KeyAlgorithm.RSA and spec.size in SUPPORTED[KeyAlgorithm.RSA]:
        return rsa.generate_private_key(public_exponent=65537, key_size=spec.size)
    if spec.algorithm is KeyAlgorithm.ECDSA and spec.size in CURVES:
        return ec.generate_private_key(CURVES[spec.size])
    if spec.algorithm is KeyAlgorithm.ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    if spec.algorithm is KeyAlgorithm.ML_DSA and spec.size in ML_DSA:
        return ML_DSA[spec.size]()
    raise RuleViolation(
        f"no {spec.algorithm} keys of {spec.size} bits are made in software",
        code="unsupported_key",
    )


def public_key_of(key: PrivateKey) -> bytes:
    """Its SubjectPublicKeyInfo, DER."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
