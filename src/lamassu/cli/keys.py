"""Kinds of keys as the command line names them."""

from __future__ import annotations

from enum import StrEnum

_ALGORITHMS = {"rsa": "RSA", "ecdsa": "ECDSA", "ed25519": "Ed25519", "ml-dsa": "ML-DSA"}


class _Kind(StrEnum):
    @property
    def algorithm(self) -> str:
        """As the wire spells it."""
        return _ALGORITHMS[self.value.rpartition("-")[0] or self.value]

    @property
    def bits(self) -> int:
        """Modulus, curve or parameter set."""
        size = self.value.rpartition("-")[2]
        return 256 if size == "ed25519" else int(size.lstrip("p"))


class KeyType(_Kind):
    """Keys of CAs."""

    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    P256 = "ecdsa-p256"
    P384 = "ecdsa-p384"
    P521 = "ecdsa-p521"


class AnyKeyType(_Kind):
    """Keys that sign for whoever may use them: those of CAs, and two kinds more."""

    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    P256 = "ecdsa-p256"
    P384 = "ecdsa-p384"
    P521 = "ecdsa-p521"
    ED25519 = "ed25519"
    ML_DSA_44 = "ml-dsa-44"
    ML_DSA_65 = "ml-dsa-65"
    ML_DSA_87 = "ml-dsa-87"


def usual_signature(algorithm: str, bits: int) -> str:
    """The signature algorithm that fits a key, by its wire name."""
    if algorithm == "RSA":
        return "RSASSA_PKCS1_V1_5_SHA_256"
    if algorithm == "Ed25519":
        return "ED25519"
    if algorithm == "ML-DSA":
        return f"ML_DSA_{bits}"
    return f"ECDSA_SHA_{ {256: 256, 384: 384, 521: 512}.get(bits, 256) }"
