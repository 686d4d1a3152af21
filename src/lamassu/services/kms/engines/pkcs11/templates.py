"""What a key's objects are made with: private keys that sign, and do nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from asn1crypto.core import OctetString
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pkcs11.constants import Attribute, MechanismFlag, ObjectClass
from pkcs11.mechanisms import KeyType, Mechanism
from pkcs11.types import PrivateKey as PrivateObject
from pkcs11.types import PublicKey as PublicObject
from pkcs11.types import Session

from lamassu.kernel.errors import RuleViolation
from lamassu.services.kms.contract import KeyAlgorithm, KeySpec
from lamassu.services.kms.engines.pkcs11.objects import CURVE_PARAMETERS, ED25519_PARAMETERS
from lamassu.services.kms.model import PrivateKey

Template = Mapping[Attribute, Any]


class Named(TypedDict):
    """What the objects of one key are called."""

    label: str
    key_id: bytes


SIGNS_AND_VERIFIES = MechanismFlag.SIGN | MechanismFlag.VERIFY


def private_template(*, backup: bool) -> dict[Attribute, Any]:
    """Made in the token, seen only after login, its value never shown.

    With `backup` it can leave, but only encrypted under a key that the security officer marked
    as trusted (CKA_WRAP_WITH_TRUSTED); without, it never leaves at all.
    """
    return {
        Attribute.TOKEN: True,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: backup,
        **({Attribute.WRAP_WITH_TRUSTED: True} if backup else {}),
        Attribute.SIGN: True,
        Attribute.DECRYPT: False,
        Attribute.UNWRAP: False,
        Attribute.DERIVE: False,
    }


def public_template() -> dict[Attribute, Any]:
    """The other half, for everybody to see."""
    return {
        Attribute.TOKEN: True,
        Attribute.PRIVATE: False,
        Attribute.VERIFY: True,
        Attribute.ENCRYPT: False,
        Attribute.WRAP: False,
    }


def generate_pair(
    session: Session, spec: KeySpec, *, label: str, key_id: bytes, backup: bool
) -> tuple[PublicObject, PrivateObject]:
    """A key pair of this spec, made in the token."""
    templates: dict[str, Any] = {
        "id": key_id,
        "label": label,
        "store": True,
        "capabilities": SIGNS_AND_VERIFIES,
        "public_template": public_template(),
        "private_template": private_template(backup=backup),
    }
    if spec.algorithm is KeyAlgorithm.RSA:
        # the binding sets the public exponent 65537
        pair = session.generate_keypair(KeyType.RSA, spec.size, **templates)
    elif spec.algorithm is KeyAlgorithm.ECDSA:
        curve = session.create_domain_parameters(
            KeyType.EC, {Attribute.EC_PARAMS: CURVE_PARAMETERS[spec.size]}, local=True
        )
        pair = curve.generate_keypair(mechanism=Mechanism.EC_KEY_PAIR_GEN, **templates)
    else:
        curve = session.create_domain_parameters(
            KeyType.EC_EDWARDS, {Attribute.EC_PARAMS: ED25519_PARAMETERS}, local=True
        )
        pair = curve.generate_keypair(mechanism=Mechanism.EC_EDWARDS_KEY_PAIR_GEN, **templates)
    return pair


def key_type_of(key: object) -> KeyType:
    """Of a private or public key. Raises `RuleViolation` (`unsupported_key`) for a kind that no
    token here holds."""
    if isinstance(key, rsa.RSAPrivateKey | rsa.RSAPublicKey):
        return KeyType.RSA
    if isinstance(key, ec.EllipticCurvePrivateKey | ec.EllipticCurvePublicKey):
        return KeyType.EC
    if isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey):
        return KeyType.EC_EDWARDS
    raise RuleViolation("this token holds no keys of this kind", code="unsupported_key")


def public_object(key: object, *, label: str, key_id: bytes) -> dict[Attribute, Any]:
    """What C_CreateObject makes the public key of."""
    return {
        Attribute.CLASS: ObjectClass.PUBLIC_KEY,
        Attribute.KEY_TYPE: key_type_of(key),
        Attribute.ID: key_id,
        Attribute.LABEL: label,
        **public_template(),
        **_public_values(key),
    }


def private_object(
    key: PrivateKey, *, label: str, key_id: bytes, backup: bool
) -> dict[Attribute, Any]:
    """What C_CreateObject makes the private key of."""
    return {
        Attribute.CLASS: ObjectClass.PRIVATE_KEY,
        Attribute.KEY_TYPE: key_type_of(key),
        Attribute.ID: key_id,
        Attribute.LABEL: label,
        **private_template(backup=backup),
        **_private_values(key),
    }


def _public_values(key: object) -> Template:
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {
            Attribute.MODULUS: _octets(numbers.n),
            Attribute.PUBLIC_EXPONENT: _octets(numbers.e),
        }
    if isinstance(key, ec.EllipticCurvePublicKey):
        point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {
            Attribute.EC_PARAMS: CURVE_PARAMETERS[key.key_size],
            Attribute.EC_POINT: OctetString(point).dump(),
        }
    assert isinstance(key, ed25519.Ed25519PublicKey)  # key_type_of was asked first
    point = key.public_bytes_raw()
    return {
        Attribute.EC_PARAMS: ED25519_PARAMETERS,
        Attribute.EC_POINT: OctetString(point).dump(),
    }


def _private_values(key: PrivateKey) -> Template:
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        return {
            Attribute.MODULUS: _octets(numbers.public_numbers.n),
            Attribute.PUBLIC_EXPONENT: _octets(numbers.public_numbers.e),
            Attribute.PRIVATE_EXPONENT: _octets(numbers.d),
            Attribute.PRIME_1: _octets(numbers.p),
            Attribute.PRIME_2: _octets(numbers.q),
            Attribute.EXPONENT_1: _octets(numbers.dmp1),
            Attribute.EXPONENT_2: _octets(numbers.dmq1),
            Attribute.COEFFICIENT: _octets(numbers.iqmp),
        }
    if isinstance(key, ec.EllipticCurvePrivateKey):
        value = key.private_numbers().private_value
        return {
            Attribute.EC_PARAMS: CURVE_PARAMETERS[key.key_size],
            Attribute.VALUE: value.to_bytes((key.key_size + 7) // 8, "big"),
        }
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return {Attribute.EC_PARAMS: ED25519_PARAMETERS, Attribute.VALUE: raw}


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
