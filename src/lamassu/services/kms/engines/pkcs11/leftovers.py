"""Keys whose making was cut off in the token before they had their names.

A pair is made under a label that says "new" and a random id. Its id follows from the public
key, so it is written afterwards, object by object and attribute by attribute: a power cut can
leave any part of that undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from pkcs11 import Session
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.exceptions import PKCS11Error
from pkcs11.types import Object

from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.contract import KeyPurpose
from lamassu.services.kms.engines.pkcs11 import objects
from lamassu.services.kms.engines.pkcs11.objects import Name, Unreadable


def name_leftovers(session: Session, purpose: KeyPurpose) -> Sequence[str]:
    """Give every unnamed pair of this purpose its name; their ids."""
    label = objects.unnamed_label(purpose)
    wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: label}
    named = []
    for private in list(session.get_objects(wanted)):
        public = _public_half(session, private)
        if public is None:
            continue  # nobody can tell what it is; it signs nothing
        key_id = _key_id(public)
        assert key_id is not None
        for one in (public, private):
            objects.give_name(one, Name(purpose, key_id))
        named.append(key_id)
    return named


def _public_half(session: Session, private: Object) -> Object | None:
    """By the id that both were made with; else the one public key that has its own id already,
    and whose private key is missing."""
    publics = list(session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY}))
    own = [one for one in publics if _id(one) == _id(private) and _key_id(one) is not None]
    if own:
        return own[0]
    widows = [one for one in publics if _is_named(one) and not _has_private(session, _id(one))]
    return widows[0] if len(widows) == 1 else None


def _is_named(public: Object) -> bool:
    key_id = _key_id(public)
    return key_id is not None and _id(public).hex() == key_id


def _has_private(session: Session, identifier: bytes) -> bool:
    wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: identifier}
    return bool(list(session.get_objects(wanted)))


def _key_id(public: Object) -> str | None:
    try:
        return key_id_of(objects.public_key_of(public))
    except (PKCS11Error, Unreadable, ValueError):
        return None


def _id(one: Object) -> bytes:
    try:
        return cast("bytes", one[Attribute.ID])
    except PKCS11Error:
        return b""
