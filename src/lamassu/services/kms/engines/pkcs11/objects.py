"""Keys as objects in a token: how ours are named, how the original's are, what is public of them.

ours      private and public key: CKA_ID the 32 bytes of the key id,
          CKA_LABEL `lamassu:<purpose>:<key id>`; the public key's CKA_START_DATE is the day on
          which it was made (SoftHSM cannot read back a private key's).
          `lamassu:<purpose>:new` is one whose making was interrupted: nothing needs it;
          `lamassu:aside:<purpose>:<key id>` one that some installation's database did not know
original  private key: CKA_LABEL the key id, CKA_ID a random UUID as text;
          public key: the same CKA_ID, no label

Everything else in the token belongs to somebody else and is neither listed, used nor deleted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import cast

from asn1crypto.core import OctetString
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import AttributeSensitive, AttributeTypeInvalid, FunctionFailed
from pkcs11.mechanisms import KeyType
from pkcs11.types import Object, Session
from pkcs11.types import PrivateKey as PrivateObject
from pkcs11.types import PublicKey as PublicObject

from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose
from lamassu.services.kms.engines.pkcs11.mechanisms import CURVES

PREFIX = "lamassu"
UNNAMED = "new"
ASIDE = "aside"
KEY_ID = re.compile(r"[0-9a-f]{64}")
_LABEL = re.compile(rf"{PREFIX}:(?:({ASIDE}):)?([a-z]+):([0-9a-f]{{64}})")
# dumps of OBJECT IDENTIFIER (RFC 5480 §2.1.1.1)
CURVE_PARAMETERS = {
    256: bytes.fromhex("06082a8648ce3d030107"),
    384: bytes.fromhex("06052b81040022"),
    521: bytes.fromhex("06052b81040023"),
}
_CURVE_CLASSES: dict[bytes, ec.EllipticCurve] = {
    CURVE_PARAMETERS[256]: ec.SECP256R1(),
    CURVE_PARAMETERS[384]: ec.SECP384R1(),
    CURVE_PARAMETERS[521]: ec.SECP521R1(),
}
# PKCS #11 v3.0 §2.3.10: the curve's name as PrintableString, or RFC 8410's OBJECT IDENTIFIER
ED25519_PARAMETERS = bytes.fromhex("130c656477617264733235353139")
ED25519_OID = bytes.fromhex("06032b6570")
_ABSENT = (AttributeTypeInvalid, AttributeSensitive, FunctionFailed)


@dataclass(frozen=True, slots=True)
class Name:
    """What one of our labels says."""

    purpose: KeyPurpose
    key_id: str
    aside: bool = False

    @property
    def label(self) -> str:
        middle = f"{ASIDE}:{self.purpose.value}" if self.aside else self.purpose.value
        return f"{PREFIX}:{middle}:{self.key_id}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A private key in the token, its public key, and its name if it bears one of ours."""

    private: PrivateObject
    public: tuple[PublicObject, ...]
    public_key: bytes  # SubjectPublicKeyInfo, DER
    name: Name | None


class Unreadable(Exception):
    """The public key of a private key in the token cannot be found or read."""


def unnamed_label(purpose: KeyPurpose) -> str:
    """What a key is called until its id is known."""
    return f"{PREFIX}:{purpose.value}:{UNNAMED}"


def parse_label(label: str) -> Name | None:
    """The name, if this is one of our labels."""
    match = _LABEL.fullmatch(label)
    if match is None or match[2] not in set(KeyPurpose):
        return None
    return Name(KeyPurpose(match[2]), match[3], aside=match[1] is not None)


def find_pair(session: Session, key_id: str) -> Pair | None:
    """The key of this id, named in our way or in the original's.

    Raises `Unreadable` for one whose public key does not fit its name.
    """
    if not KEY_ID.fullmatch(key_id):
        return None
    seen = None
    for private, name in _candidates(session, key_id):
        public = _public_objects(session, private)
        public_key = _read_first(private, public, key_id)
        if public_key is not None:
            return Pair(private, public, public_key, name)
        seen = private
    if seen is not None:
        raise Unreadable
    return None


def named_keys(session: Session) -> Iterator[tuple[Name, date | None]]:
    """Every private key with a label of ours and the day on which it was made, if that is known."""
    days = {
        text_of(public, Attribute.LABEL): _day(public)
        for public in list(session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY}))
    }
    for private in list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})):
        name = parse_label(text_of(private, Attribute.LABEL))
        if name is not None:
            yield name, days.get(name.label)


def give_name(one: Object, name: Name) -> None:
    """Name one object of a key that was just made."""
    one[Attribute.ID] = bytes.fromhex(name.key_id)
    one[Attribute.LABEL] = name.label


def rename(pair: Pair, name: Name) -> None:
    """Give both objects this label. The private key's counts, so it comes last."""
    for one in (*pair.public, pair.private):
        one[Attribute.LABEL] = name.label


def text_of(one: Object, attribute: Attribute) -> str:
    """An attribute as text; of others' objects it may be missing or no text."""
    try:
        return cast("str", one[attribute])
    except (*_ABSENT, UnicodeDecodeError):
        return ""


def _day(one: Object) -> date | None:
    try:
        return cast("date", one[Attribute.START_DATE])
    except (*_ABSENT, ValueError):
        return None


def _candidates(session: Session, key_id: str) -> Iterator[tuple[PrivateObject, Name | None]]:
    ours = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: bytes.fromhex(key_id)}
    for one in list(session.get_objects(ours)):
        name = parse_label(text_of(one, Attribute.LABEL))
        if name is not None and name.key_id == key_id:
            yield cast("PrivateObject", one), name
    original = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: key_id}
    for one in list(session.get_objects(original)):
        yield cast("PrivateObject", one), None


def _public_objects(session: Session, private: PrivateObject) -> tuple[PublicObject, ...]:
    wanted = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: private[Attribute.ID]}
    return tuple(cast("PublicObject", one) for one in session.get_objects(wanted))


def _read_first(
    private: PrivateObject, public: tuple[PublicObject, ...], key_id: str
) -> bytes | None:
    """The public key that has this id. An RSA private key shows its own, and so do the EC keys
    of some tokens, so that a lost public object does no harm there."""
    for one in (*public, private):
        try:
            public_key = public_key_of(one)
        except (*_ABSENT, Unreadable, ValueError):
            continue
        if key_id_of(public_key) == key_id:
            return public_key
    return None


def public_key_of(one: Object) -> bytes:
    """SubjectPublicKeyInfo (DER) of an object's attributes. Raises `Unreadable`, `ValueError`."""
    kind = one[Attribute.KEY_TYPE]
    if kind == KeyType.RSA:
        exponent = int.from_bytes(one[Attribute.PUBLIC_EXPONENT], "big")
        modulus = int.from_bytes(one[Attribute.MODULUS], "big")
        key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
        key = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    elif kind == KeyType.EC:
        curve = _CURVE_CLASSES.get(one[Attribute.EC_PARAMS])
        if curve is None:
            raise Unreadable
        point = _point(one[Attribute.EC_POINT], 1 + 2 * ((curve.key_size + 7) // 8))
        key = ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    elif kind == KeyType.EC_EDWARDS:
        if one[Attribute.EC_PARAMS] not in (ED25519_PARAMETERS, ED25519_OID):
            raise Unreadable
        key = ed25519.Ed25519PublicKey.from_public_bytes(_point(one[Attribute.EC_POINT], 32))
    else:
        raise Unreadable
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _point(value: bytes, length: int) -> bytes:
    """PKCS #11 wraps the point in an OCTET STRING; some libraries forget to."""
    if len(value) == length:
        return value
    return cast("bytes", OctetString.load(value).native)


def kind_of(public_key: object) -> tuple[KeyAlgorithm, int] | None:
    """Algorithm and size of a public key that this engine can hold."""
    if isinstance(public_key, rsa.RSAPublicKey):
        return KeyAlgorithm.RSA, public_key.key_size
    if isinstance(public_key, ec.EllipticCurvePublicKey) and public_key.key_size in CURVES:
        return KeyAlgorithm.ECDSA, public_key.key_size
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        return KeyAlgorithm.ED25519, 256
    return None
