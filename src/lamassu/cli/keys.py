"""Kinds of keys as the command line names them."""

from __future__ import annotations

from enum import StrEnum


class KeyType(StrEnum):
    """Algorithm and size in bits."""

    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    P256 = "ecdsa-p256"
    P384 = "ecdsa-p384"
    P521 = "ecdsa-p521"

    @property
    def algorithm(self) -> str:
        """As the wire spells it."""
        return "RSA" if self.value.startswith("rsa") else "ECDSA"

    @property
    def bits(self) -> int:
        """Modulus or curve."""
        return int(self.value.rpartition("-")[2].lstrip("p"))


def usual_signature(algorithm: str, bits: int) -> str:
    """The signature algorithm that fits a key, by its wire name."""
    if algorithm == "RSA":
        return "RSASSA_PKCS1_V1_5_SHA_256"
    return f"ECDSA_SHA_{ {256: 256, 384: 384, 521: 512}.get(bits, 256) }"
