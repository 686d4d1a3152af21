"""A key from outside for a token that takes none in clear: encrypted to a key made in the token.

The token makes an RSA key pair for this once; an AES key of ours goes in under it (OAEP), the
private key under that (RFC 5649). Neither helper outlives its session.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pkcs11.constants import DEFAULT, Attribute, MechanismFlag, ObjectClass
from pkcs11.exceptions import PKCS11Error
from pkcs11.mechanisms import MGF, KeyType, Mechanism
from pkcs11.types import PrivateKey as PrivateObject
from pkcs11.types import Session, UnwrapMixin

from lamassu.services.kms.engines.pkcs11.templates import key_type_of
from lamassu.services.kms.model import PrivateKey

TRANSPORT_BITS = 2048  # lives for one import
_VALUES = frozenset(
    {
        Attribute.MODULUS,
        Attribute.PUBLIC_EXPONENT,
        Attribute.PRIVATE_EXPONENT,
        Attribute.PRIME_1,
        Attribute.PRIME_2,
        Attribute.EXPONENT_1,
        Attribute.EXPONENT_2,
        Attribute.COEFFICIENT,
        Attribute.EC_PARAMS,
        Attribute.VALUE,
    }
)


def unwrap_into(
    session: Session, key: PrivateKey, template: Mapping[Attribute, Any]
) -> PrivateObject:
    """Bring the key in with these attributes, without its values in clear. Raises as the token."""
    public, transport = session.generate_keypair(
        KeyType.RSA,
        TRANSPORT_BITS,
        store=False,
        capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP,
        private_template={Attribute.EXTRACTABLE: False, Attribute.SENSITIVE: True},
    )
    try:
        clear, wrapping = _wrapping_key(public, transport)
    finally:
        for one in (transport, public):
            with suppress(PKCS11Error):
                one.destroy()
    content = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    try:
        return unwrap_private(
            wrapping, aes_key_wrap_with_padding(clear, content), key_type_of(key), template
        )
    finally:
        with suppress(PKCS11Error):
            wrapping.destroy()


def unwrap_private(
    wrapping: UnwrapMixin,
    wrapped: bytes,
    key_type: KeyType,
    template: Mapping[Attribute, Any],
    *,
    mechanism: Mechanism = Mechanism.AES_KEY_WRAP_PAD,
) -> PrivateObject:
    """C_UnwrapKey of a PKCS #8 private key, which gets the template's attributes."""
    unwrapped = wrapping.unwrap_key(
        ObjectClass.PRIVATE_KEY,
        key_type,
        wrapped,
        mechanism=mechanism,
        store=True,
        capabilities=MechanismFlag.SIGN,
        template={
            **_only_for_private_keys(),
            **{name: value for name, value in template.items() if name not in _VALUES},
        },
    )
    return cast("PrivateObject", unwrapped)


def _only_for_private_keys() -> dict[Attribute, Any]:
    """The binding names every usage there is; a private key has only some of them."""
    return dict.fromkeys((Attribute.ENCRYPT, Attribute.VERIFY, Attribute.WRAP), DEFAULT)


def _wrapping_key(public: Any, transport: Any) -> tuple[bytes, Any]:
    modulus = int.from_bytes(public[Attribute.MODULUS], "big")
    exponent = int.from_bytes(public[Attribute.PUBLIC_EXPONENT], "big")
    clear = secrets.token_bytes(32)
    # OAEP with SHA-1 is what every token has; its security does not rest on collisions
    oaep = padding.OAEP(padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)  # noqa: S303
    sealed = rsa.RSAPublicNumbers(exponent, modulus).public_key().encrypt(clear, oaep)
    wrapping = transport.unwrap_key(
        ObjectClass.SECRET_KEY,
        KeyType.AES,
        sealed,
        mechanism=Mechanism.RSA_PKCS_OAEP,
        mechanism_param=(Mechanism.SHA_1, MGF.SHA1, None),
        store=False,
        capabilities=MechanismFlag.UNWRAP,
        template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
    )
    return clear, wrapping
