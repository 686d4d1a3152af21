"""Signed tree heads: checkpoints as signed notes (C2SP signed-note, tlog-checkpoint) and the
cosignatures of witnesses on them (C2SP tlog-cosignature, v1).

A verifier key (`vkey`) is written `name+hash+key`: a name, the key id in hex, and in base64 the
signature type with the public key. Types used here: 0x01 Ed25519, the log's own; 0x02 ECDSA with
SHA-256, where the log's engine makes no Ed25519 key; 0x04 a witness's timestamped Ed25519.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.merkle import HASH_LENGTH, LARGEST_SIZE, Head

LARGEST_NOTE = 32 * 1024
MOST_SIGNATURES = 64
_DASH = "— "
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME = re.compile(r"[^\s+\x00-\x1f\x7f]{1,200}")
_TIME_LENGTH = 8


class SignatureType(IntEnum):
    """What a signature of a note is, by its assigned byte."""

    ED25519 = 1
    ECDSA = 2
    COSIGNATURE = 4


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """Whose signatures count. `public_key` is 32 bytes for Ed25519 and for witnesses, else a
    SubjectPublicKeyInfo (DER)."""

    name: str
    type: SignatureType
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes that tell keys of one name apart."""
        if self.type is SignatureType.ECDSA:
            return hashlib.sha256(self.public_key).digest()[:4]
        head = self.name.encode() + b"\n" + bytes([self.type])
        return hashlib.sha256(head + self.public_key).digest()[:4]

    def __str__(self) -> str:
        key = base64.b64encode(bytes([self.type]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"


@dataclass(frozen=True, slots=True)
class Signature:
    """A line of a note; `value` is what follows the key id."""

    name: str
    key_id: bytes
    value: bytes

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.value).decode()}\n"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head with its signatures; `text` is what they are made over."""

    origin: str
    head: Head
    text: str
    signatures: tuple[Signature, ...] = ()

    def __str__(self) -> str:
        return self.text + "\n" + "".join(str(each) for each in self.signatures)


def check_name(name: str) -> None:
    """Raises `Malformed` for what is no name of a key."""
    if not _NAME.fullmatch(name):
        raise Malformed(
            "a log's or witness's name has no spaces and no plus sign: a host with a path",
            code="key_name_malformed",
            field="name",
        )


def checkpoint_text(origin: str, head: Head) -> str:
    """What a log signs."""
    return f"{origin}\n{head.size}\n{base64.b64encode(head.root).decode()}\n"


def verifier_key(name: str, spki: bytes, *, witness: bool = False) -> VerifierKey:
    """Of a public key (SubjectPublicKeyInfo, DER). Raises `RuleViolation` (`unsupported_key`)."""
    key = load_der_public_key(spki)
    if isinstance(key, ed25519.Ed25519PublicKey):
        kind = SignatureType.COSIGNATURE if witness else SignatureType.ED25519
        return VerifierKey(name, kind, key.public_bytes(Encoding.Raw, PublicFormat.Raw))
    if isinstance(key, ec.EllipticCurvePublicKey) and not witness:
        return VerifierKey(name, SignatureType.ECDSA, spki)
    raise RuleViolation(
        "a witness signs with Ed25519 and a log with Ed25519 or ECDSA", code="unsupported_key"
    )


def signed(text: str, key: CertificateIssuerPrivateKeyTypes) -> bytes:
    """A log's signature over a note's text; runs with a key wherever it lives."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(text.encode())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(text.encode(), ec.ECDSA(hashes.SHA256()))
    raise RuleViolation("a log signs with Ed25519 or ECDSA", code="unsupported_key")


def cosigned(text: str, at: datetime, key: CertificateIssuerPrivateKeyTypes) -> bytes:
    """A witness's signature over a checkpoint's text, with the time before it."""
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise RuleViolation("a witness signs with Ed25519", code="unsupported_key")
    seconds = int(at.timestamp())
    return seconds.to_bytes(_TIME_LENGTH, "big") + key.sign(_cosigned_bytes(text, seconds))


def _cosigned_bytes(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def cosigned_at(signature: Signature) -> datetime:
    """When a witness signed. Raises `Malformed`."""
    try:
        return datetime.fromtimestamp(int.from_bytes(signature.value[:_TIME_LENGTH], "big"), UTC)
    except (ValueError, OverflowError, OSError):
        raise _malformed("a cosignature's time is out of bounds") from None


def verify_note(checkpoint: Checkpoint, key: VerifierKey) -> None:
    """That `key` signed it. Raises `RuleViolation` (`checkpoint_unsigned`, where it bears no
    signature of this key; `checkpoint_forged`, where one does not hold)."""
    found = [
        each
        for each in checkpoint.signatures
        if each.name == key.name and each.key_id == key.key_id
    ]
    if not found:
        raise RuleViolation(
            f"the checkpoint bears no signature of {key.name} ({key.key_id.hex()})",
            code="checkpoint_unsigned",
        )
    for each in found:
        if not _holds(checkpoint.text, each.value, key):
            raise RuleViolation(
                f"the signature of {key.name} on the checkpoint is wrong",
                code="checkpoint_forged",
            )


def _holds(text: str, value: bytes, key: VerifierKey) -> bool:
    try:
        if key.type is SignatureType.ECDSA:
            public = load_der_public_key(key.public_key)
            assert isinstance(public, ec.EllipticCurvePublicKey)  # parsed so
            public.verify(value, text.encode(), ec.ECDSA(hashes.SHA256()))
            return True
        message = text.encode()
        if key.type is SignatureType.COSIGNATURE:
            seconds = int.from_bytes(value[:_TIME_LENGTH], "big")
            message, value = _cosigned_bytes(text, seconds), value[_TIME_LENGTH:]
        ed25519.Ed25519PublicKey.from_public_bytes(key.public_key).verify(value, message)
    except InvalidSignature:
        return False
    return True


def parse_verifier_key(text: str) -> VerifierKey:
    """Read a `vkey`. Raises `Malformed` (`verifier_key_malformed`)."""
    name, _, rest = text.strip().partition("+")
    hint, _, encoded = rest.partition("+")
    try:
        content = base64.b64decode(encoded, validate=True)
        kind = SignatureType(content[0])
        key = VerifierKey(name, kind, content[1:])
        check_name(name)
        if kind is SignatureType.ECDSA:
            if not isinstance(load_der_public_key(key.public_key), ec.EllipticCurvePublicKey):
                raise ValueError("no EC key")
        else:
            ed25519.Ed25519PublicKey.from_public_bytes(key.public_key)
    except (ValueError, IndexError, binascii.Error):
        raise _bad_key() from None
    if key.key_id.hex() != hint:
        raise _bad_key()
    return key


def _bad_key() -> Malformed:
    return Malformed(
        "not a verifier key: name+hash+key, as `lamassu log status` shows it",
        code="verifier_key_malformed",
        field="key",
    )


def parse_checkpoint(note: str) -> Checkpoint:
    """Read a checkpoint; its signatures are not judged. Raises `Malformed`."""
    if len(note) > LARGEST_NOTE:
        raise _malformed("it is too long")
    text, gap, lines = note.rpartition("\n\n")
    text += "\n"
    if not gap or not lines.endswith("\n") or any(ord(c) < 32 and c != "\n" for c in note):
        raise _malformed("it is no signed note")
    parts = text.split("\n")
    if len(parts) < 4 or not all(parts[:-1]):
        raise _malformed("it has no origin, size and root")
    origin, size, root = parts[:3]
    decoded = _unbase64(root)
    if not _SIZE.fullmatch(size) or int(size) > LARGEST_SIZE or len(decoded) != HASH_LENGTH:
        raise _malformed("its size or root is none")
    signatures = parse_signatures(lines)
    return Checkpoint(origin, Head(int(size), decoded), text, signatures)


def parse_signatures(lines: str) -> tuple[Signature, ...]:
    """Signature lines, such as a witness answers with. Raises `Malformed`."""
    given = lines.removesuffix("\n").split("\n")
    if len(given) > MOST_SIGNATURES:
        raise _malformed("it has too many signatures")
    return tuple(_signature(line) for line in given)


def _signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    content = _unbase64(encoded)
    if not line.startswith(_DASH) or not _NAME.fullmatch(name) or len(content) < 5:
        raise _malformed("a signature line is none")
    return Signature(name, content[:4], content[4:])


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _malformed("something in it is not base64") from None


def _malformed(why: str) -> Malformed:
    return Malformed(f"not a checkpoint: {why}", code="checkpoint_malformed")


def proof_lines(proof: Sequence[bytes]) -> str:
    """A proof as C2SP tlog-witness sends it: a hash a line."""
    return "".join(base64.b64encode(each).decode() + "\n" for each in proof)


def parse_proof_lines(lines: Sequence[str]) -> list[bytes]:
    """Raises `Malformed`."""
    proof = [_unbase64(line) for line in lines]
    if any(len(each) != HASH_LENGTH for each in proof):
        raise _malformed("a hash of the proof has another length")
    return proof
