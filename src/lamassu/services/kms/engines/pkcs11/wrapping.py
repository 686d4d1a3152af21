"""Backup of keys from one token to another: wrapped in the one, unwrapped in the other.

Both tokens hold the same AES-256 key, put together from components that custodians keep. In the
token of origin it is marked as trusted by the security officer and may only wrap; the private keys
made there leave under such a key alone (CKA_WRAP_WITH_TRUSTED). In the other token it may only
unwrap, and is seen only after login: whoever could unwrap where the keys live could give what he
unwraps other attributes, and read it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import reduce
from hashlib import sha256
from operator import xor
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import (
    EncryptedDataInvalid,
    FunctionFailed,
    GeneralError,
    PKCS11Error,
    WrappedKeyInvalid,
)
from pkcs11.mechanisms import KeyType, Mechanism
from pkcs11.types import Object, Session, UnwrapMixin, WrapMixin
from pkcs11.types import PrivateKey as PrivateObject

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, NotFound, RuleViolation
from lamassu.kernel.records import Json
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec, MessageType
from lamassu.services.kms.engines.pkcs11 import mechanisms, objects, templates
from lamassu.services.kms.engines.pkcs11.connection import Seat, TokenSettings, check_seat
from lamassu.services.kms.engines.pkcs11.engine import (
    Pkcs11Engine,
    find_named,
    handle_of,
    signature_of,
)
from lamassu.services.kms.engines.pkcs11.objects import Name
from lamassu.services.kms.engines.pkcs11.pins import RefusedPins
from lamassu.services.kms.engines.pkcs11.unwrapping import unwrap_private
from lamassu.services.kms.model import SCHEMES, MadeKey, WrappedKey
from lamassu.services.kms.usecases.signatures import signature_holds

COMPONENT_LENGTH = 32  # AES-256
KEY_TYPES: Mapping[KeyAlgorithm, KeyType] = {
    KeyAlgorithm.RSA: KeyType.RSA,
    KeyAlgorithm.ECDSA: KeyType.EC,
    KeyAlgorithm.ED25519: KeyType.EC_EDWARDS,
}
PROOF_SCHEMES: Mapping[KeyAlgorithm, str] = {
    KeyAlgorithm.RSA: "RSASSA_PKCS1_V1_5_SHA_256",
    KeyAlgorithm.ECDSA: "ECDSA_SHA_256",
    KeyAlgorithm.ED25519: "ED25519",
}


class WrappingEngine(Pkcs11Engine):
    """A token whose keys can be backed up to another (`WrapsKeys`)."""

    _backup = True

    def __init__(
        self,
        settings: TokenSettings,
        pins: RefusedPins,
        *,
        backup_key: str,
        metadata: Mapping[str, Json] | None = None,
        sign_seconds: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        """`backup_key` is the label of the wrapping key in this token."""
        super().__init__(settings, pins, metadata=metadata, sign_seconds=sign_seconds, clock=clock)
        self._backup_key = backup_key

    def wrap(self, key_id: str, *, purpose: KeyPurpose) -> WrappedKey:
        """Raises `RuleViolation`: `key_not_wrappable`; `NotFound` (`backup_key_missing`)."""
        return self._link.browse(lambda seat: self._wrap(seat, key_id, purpose))

    def unwrap(self, wrapped: WrappedKey, *, purpose: KeyPurpose) -> MadeKey:
        """Raises `RuleViolation`: `wrapped_key_invalid`, `backup_key_differs`,
        `unsupported_key`; `NotFound` (`backup_key_missing`)."""
        return self._link.browse(lambda seat: self._unwrap(seat, wrapped, purpose))

    def keep_wrapping_key(self, components: Sequence[bytes], *, security_officer_pin: bytes) -> str:
        """Raises `RuleViolation` (`bad_components`), `Conflict` (`backup_key_exists`)."""
        template = _template(join(components), self._backup_key, wraps=True)
        with self._link.as_security_officer(security_officer_pin) as session:
            return _keep(session, self._backup_key, template)

    def keep_unwrapping_key(self, components: Sequence[bytes]) -> str:
        """Raises `RuleViolation` (`bad_components`), `Conflict` (`backup_key_exists`)."""
        template = _template(join(components), self._backup_key, wraps=False)
        return self._link.browse(lambda seat: _keep(seat.session, self._backup_key, template))

    def _wrap(self, seat: Seat, key_id: str, purpose: KeyPurpose) -> WrappedKey:
        pair = self._get(seat, key_id, purpose)
        wrapping = self._backup_key_in(seat)
        if not isinstance(wrapping, WrapMixin):
            raise self._cannot("wrap")
        under = _check_value_of(wrapping)
        content = wrapping.wrap_key(pair.private, mechanism=_mechanism(seat))
        return WrappedKey(
            key_id=key_id,
            public_key=pair.public_key,
            wrapped_under=under,
            content=content,
        )

    def _unwrap(self, seat: Seat, wrapped: WrappedKey, purpose: KeyPurpose) -> MadeKey:
        spec = _spec_of(wrapped)
        mechanisms.check_makes(spec.algorithm, spec.size, seat.connection.facts.supported)
        made = MadeKey(wrapped.key_id, wrapped.public_key)
        if find_named(seat, made.key_id) is not None:
            self._get(seat, made.key_id, purpose)
            return made
        wrapping = self._backup_key_in(seat)
        under = _check_value_of(wrapping)
        if under != wrapped.wrapped_under:
            raise RuleViolation(
                f"key {wrapped.key_id} was wrapped under the backup key with check value"
                f" {wrapped.wrapped_under}, and this token's has {under}; put the same components"
                " into both tokens",
                code="backup_key_differs",
            )
        if not isinstance(wrapping, UnwrapMixin):
            raise self._cannot("unwrap")
        named: templates.Named = {
            "label": objects.unnamed_label(purpose),
            "key_id": secrets.token_bytes(16),
        }
        template = {
            **templates.private_template(backup=True),
            Attribute.ID: named["key_id"],
            Attribute.LABEL: named["label"],
        }
        kind = KEY_TYPES[spec.algorithm]
        try:
            private = unwrap_private(
                wrapping, wrapped.content, kind, template, mechanism=_mechanism(seat)
            )
        except (GeneralError, FunctionFailed, EncryptedDataInvalid) as error:
            check_seat(seat)  # raises if it is the token that fails, and not the content
            raise WrappedKeyInvalid from error
        try:
            self._check_same_key(seat, private, wrapped, spec)
            public = seat.session.create_object(
                templates.public_object(load_der_public_key(wrapped.public_key), **named)
            )
            for one in (public, private):
                objects.give_name(one, Name(purpose, made.key_id))
        except BaseException:
            with suppress(PKCS11Error):
                private.destroy()
            raise
        self._date(public)
        return made

    def _backup_key_in(self, seat: Seat) -> Object:
        found = _find_wrapping_key(seat.session, self._backup_key)
        if found is None:
            raise NotFound(
                f"the token of engine {self._id} has no backup key {self._backup_key!r}; put it"
                " together from its components first",
                code="backup_key_missing",
            )
        return found

    def _cannot(self, verb: str) -> RuleViolation:
        return RuleViolation(
            f"the backup key {self._backup_key!r} in the token of engine {self._id} may not"
            f" {verb}: the token of origin wraps, another one unwraps",
            code="backup_key_one_way",
        )

    def _check_same_key(
        self, seat: Seat, private: PrivateObject, wrapped: WrappedKey, spec: KeySpec
    ) -> None:
        """The private key that came out makes signatures of the public key that it stands for."""
        scheme = SCHEMES[PROOF_SCHEMES[spec.algorithm]]
        recipe = mechanisms.recipe(scheme, spec.size)
        challenge = secrets.token_bytes(32)
        digest = sha256(challenge).digest() if scheme.hash is not None else challenge
        signature = recipe.finish(
            signature_of(seat, handle_of(private), recipe, recipe.prepare(digest))
        )
        if not signature_holds(wrapped.public_key, scheme, challenge, MessageType.RAW, signature):
            raise RuleViolation(
                "the wrapped private key belongs to another public key",
                code="wrapped_key_invalid",
            )


def join(components: Sequence[bytes]) -> bytes:
    """The backup key of its components: their sum, bit by bit, so that nobody who lacks one knows
    anything of it. Raises `RuleViolation` (`bad_components`)."""
    if len(components) < 2 or any(len(one) != COMPONENT_LENGTH for one in components):
        raise RuleViolation(
            f"a backup key has at least two components of {COMPONENT_LENGTH} random bytes each",
            code="bad_components",
        )
    if len(set(components)) < len(components):
        raise RuleViolation("a component was given twice", code="bad_components")
    return reduce(lambda one, other: bytes(map(xor, one, other)), components)


def check_value(value: bytes) -> str:
    """By which an AES key is recognised without being shown (PKCS #11 v2.40 §4.10.2)."""
    encryptor = Cipher(algorithms.AES(value), modes.ECB()).encryptor()  # noqa: S305
    return encryptor.update(bytes(16))[:3].hex()


def _template(value: bytes, label: str, *, wraps: bool) -> dict[Attribute, Any]:
    """In the token of origin it is seen without login, because a security officer sees no other
    objects, and it wraps alone; elsewhere it unwraps alone."""
    return {
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.KEY_TYPE: KeyType.AES,
        Attribute.TOKEN: True,
        Attribute.LABEL: label,
        Attribute.ID: bytes.fromhex(check_value(value)),
        Attribute.VALUE: value,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.PRIVATE: not wraps,
        Attribute.TRUSTED: wraps,
        Attribute.WRAP: wraps,
        Attribute.UNWRAP: not wraps,
        Attribute.ENCRYPT: False,
        Attribute.DECRYPT: False,
        Attribute.SIGN: False,
        Attribute.VERIFY: False,
    }


def _keep(session: Session, label: str, template: Mapping[Attribute, Any]) -> str:
    there = _find_wrapping_key(session, label)
    wanted = template[Attribute.ID].hex()
    if there is None:
        session.create_object(dict(template))
    elif _check_value_of(there) != wanted:
        raise Conflict(
            f"the token has a backup key {label!r} with check value {_check_value_of(there)}, and"
            f" these components make {wanted}; delete the one, or use another backup_key",
            code="backup_key_exists",
        )
    return str(wanted)


def _find_wrapping_key(session: Session, label: str) -> Object | None:
    wanted = {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label}
    return next(iter(list(session.get_objects(wanted))), None)


def _check_value_of(one: Object) -> str:
    return bytes(one[Attribute.ID]).hex()


def _mechanism(seat: Seat) -> Mechanism:
    """RFC 5649: by its own name since PKCS #11 v3.1, in SoftHSM and before by that of the other."""
    listed = seat.connection.facts.mechanisms
    by_name = Mechanism.AES_KEY_WRAP_KWP in listed
    return Mechanism.AES_KEY_WRAP_KWP if by_name else Mechanism.AES_KEY_WRAP_PAD


def _spec_of(wrapped: WrappedKey) -> KeySpec:
    kind = None
    if key_id_of(wrapped.public_key) == wrapped.key_id:
        kind = objects.kind_of(load_der_public_key(wrapped.public_key))
    if kind is None:
        raise RuleViolation(
            "the wrapped key's id and public key do not fit each other", code="wrapped_key_invalid"
        )
    return KeySpec(*kind)
