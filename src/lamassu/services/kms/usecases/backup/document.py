"""A backup as a file: JSON, versioned, with a MAC over all of it.

The keys in it are wrapped and need no more secrecy; the MAC keeps anybody from mixing, cutting or
renaming them unseen. Its key is the installation's, so that only this installation reads it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_time
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec
from lamassu.services.kms.model import BackedUpKey, KeyBackup, WrappedKey

FORMAT = "lamassu-key-backup"
VERSION = 1
LENGTH_MAX = 64 * 1024 * 1024
_PURPOSE_OF_MAC = b"lamassu key backup v1"


def mac_key(secret: bytes) -> bytes:
    """The key of the MAC, of a secret of the installation that serves others, too."""
    return hmac.digest(secret, _PURPOSE_OF_MAC, hashlib.sha256)


def encode(backup: KeyBackup, key: bytes) -> bytes:
    """The file."""
    document = _document(backup)
    document["mac"] = _mac(document, key)
    return json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"


def decode(data: bytes, key: bytes) -> KeyBackup:
    """The backup in a file. Raises `RuleViolation`: `backup_damaged`, `backup_version`."""
    if len(data) > LENGTH_MAX:
        raise _damaged("it is too long")
    try:
        document = json.loads(data, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        raise _damaged("it is no JSON") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _damaged("it is no backup of keys")
    if document.get("version") != VERSION:
        raise RuleViolation(
            f"the backup is of version {document.get('version')}, and this program reads"
            f" {VERSION}; use the program that made it",
            code="backup_version",
        )
    mac = document.pop("mac", None)
    expected = _mac(document, key).encode()
    if not isinstance(mac, str) or not hmac.compare_digest(mac.encode(), expected):
        raise _damaged(
            "its MAC does not hold: it was changed, or another installation made it (this one's"
            " secrets/audit.key has to be the one of that time)"
        )
    try:
        return _backup(document)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _damaged("what it says of its keys cannot be read") from None


def _document(backup: KeyBackup) -> dict[str, Json]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "id": backup.id,
        "engine_id": backup.engine_id,
        "created_at": format_time(backup.created_at),
        "wrapping": "RFC 5649 (AES-256) over PKCS #8",
        "keys": [_key_document(key) for key in backup.keys],
        "left_out": list(backup.left_out),
    }


def _key_document(key: BackedUpKey) -> dict[str, Json]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "algorithm": key.spec.algorithm.value,
        "size": key.spec.size,
        "purpose": key.purpose.value,
        "public_key": base64.b64encode(key.wrapped.public_key).decode(),
        "wrapped_under": key.wrapped.wrapped_under,
        "wrapped_key": base64.b64encode(key.wrapped.content).decode(),
        "sha256": hashlib.sha256(key.wrapped.content).hexdigest(),
    }


def _mac(document: Mapping[str, Json], key: bytes) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hmac.digest(key, text.encode(), hashlib.sha256).hex()


def _backup(document: Mapping[str, Json]) -> KeyBackup:
    listed, left_out = document["keys"], document["left_out"]
    if not isinstance(listed, list) or not isinstance(left_out, list):
        raise TypeError
    keys = tuple(_key(one) for one in listed)
    if len({key.key_id for key in keys}) != len(keys):
        raise ValueError
    return KeyBackup(
        id=str(document["id"]),
        engine_id=str(document["engine_id"]),
        created_at=_time(document["created_at"]),
        keys=keys,
        left_out=tuple(map(str, left_out)),
    )


def _key(document: Mapping[str, Json]) -> BackedUpKey:
    content = _octets(document["wrapped_key"])
    public_key = _octets(document["public_key"])
    key_id = str(document["key_id"])
    if hashlib.sha256(content).hexdigest() != document["sha256"]:
        raise ValueError
    if key_id_of(public_key) != key_id:
        raise ValueError
    return BackedUpKey(
        WrappedKey(key_id, public_key, str(document["wrapped_under"]), content),
        str(document["name"]),
        KeySpec(KeyAlgorithm(str(document["algorithm"])), int(str(document["size"]))),
        KeyPurpose(str(document["purpose"])),
    )


def _octets(text: Json) -> bytes:
    try:
        return base64.b64decode(str(text), validate=True)
    except binascii.Error as error:
        raise ValueError from error


def _time(text: Json) -> datetime:
    time = datetime.fromisoformat(str(text))
    if time.tzinfo is None:
        raise ValueError
    return time


def _without_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError
    return document


def _damaged(why: str) -> RuleViolation:
    return RuleViolation(f"the backup cannot be used: {why}", code="backup_damaged", field="file")
