"""A directory of encrypted private keys: one file per key, nothing in clear.

    keystore.json     how the key-encryption key comes from the secret, and a sealed check text
    <key id>.orphan   a key that no row of the database knew at start; it comes back when used
    <key id>.unclaimed  a key that lay here in clear (`clear_keys.py`), until an operator says
                      what it is for: no row of the database can
    <key id>.key      AES-256-GCM of the PKCS#8, bound to key id, purpose and format by its
                      associated data: a file renamed, or a purpose changed in the database,
                      does not open

Everything here blocks; `software.py` calls it from its pool.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast, get_args

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from lamassu.kernel.errors import Conflict, RuleViolation, Unavailable
from lamassu.platform.security.private_files import (
    create_private_file,
    make_private_directory,
    sync_directory,
)
from lamassu.services.kms.contract import KeyPurpose
from lamassu.services.kms.model import PrivateKey

FORMAT = 1
HEADER = "keystore.json"
SUFFIX = ".key"
ASIDE = ".orphan"
UNCLAIMED = ".unclaimed"
SECRET_LENGTH_MIN = 12
FILE_LENGTH_MAX = 64 * 1024
NONCE_LENGTH = 12  # 96 bits, as NIST SP 800-38D §8.2 wants for random nonces
CHECK_TEXT = b"lamassu keystore"
KEY_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ScryptCost:
    """RFC 7914 parameters; memory is 128 * n * r bytes."""

    n: int = 2**15
    r: int = 8
    p: int = 1

    def check(self) -> None:
        """Refuse a header made weak, or so costly that opening it would exhaust the host."""
        if not (2**15 <= self.n <= 2**20 and 8 <= self.r <= 16 and 1 <= self.p <= 16):
            raise RuleViolation(
                "the keystore's scrypt parameters are out of bounds", code="keystore_damaged"
            )


@dataclass(frozen=True, slots=True)
class UnclaimedKey:
    """A key that has no purpose yet; `name` is its file's, before it was sealed."""

    key_id: str
    name: str
    private_key: PrivateKey


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A key's file as the directory shows it."""

    key_id: str
    modified_at: datetime


class Keystore:
    """An opened keystore. Holds the key-encryption key; never shows it."""

    __slots__ = ("_cipher", "_directory")

    def __init__(self, directory: Path, cipher: AESGCM) -> None:
        self._directory = directory
        self._cipher = cipher

    @property
    def directory(self) -> Path:
        """Where its files are."""
        return self._directory

    @classmethod
    def open(cls, directory: Path, secret: bytes, *, cost: ScryptCost | None = None) -> Keystore:
        """Open the keystore, making it if the directory has none (then at `cost`).

        `secret` is the content of a passphrase or key file; line ends at its end do not count.
        Raises `RuleViolation`: `weak_secret`, `wrong_passphrase`, `keystore_damaged`,
        `keystore_exposed` (others may enter the directory).
        """
        secret = secret.rstrip(b"\r\n")
        if len(secret) < SECRET_LENGTH_MIN:
            raise RuleViolation(
                f"the keystore's secret is shorter than {SECRET_LENGTH_MIN} bytes; "
                "use a longer passphrase or a random key file",
                code="weak_secret",
            )
        make_private_directory(directory)
        header = directory / HEADER
        if not header.exists():
            if any(KEY_ID.fullmatch(path.stem) for path in directory.glob(f"*{SUFFIX}")):
                raise RuleViolation(
                    f"{header} is missing but keys are there; restore it from a backup",
                    code="keystore_damaged",
                )
            create_private_file(header, _new_header(secret, cost or ScryptCost()))
        return cls(directory, _unlock(header, secret))

    def write(self, key_id: str, purpose: KeyPurpose, private_key: PrivateKey) -> None:
        """Seal a key into its file, durably. A file that holds this key already stays as it is.

        Raises `Conflict` for a file with another key, `Unavailable` (`key_damaged`) for one that
        does not open, as when its key has another purpose.
        """
        if self._path(key_id).exists() or self._path(key_id).with_suffix(ASIDE).exists():
            if self.read(key_id, purpose).public_key() != private_key.public_key():
                raise Conflict("the keystore has another key of this id", code="already_exists")
            return
        self._create(self._path(key_id), private_key, _associated(key_id, purpose))

    def read(self, key_id: str, purpose: KeyPurpose) -> PrivateKey:
        """Open a key's file. Raises `Unavailable`: `key_lost`, `key_damaged`."""
        path = self._path(key_id)
        try:
            content = self._content(path)
        except FileNotFoundError as error:
            if self._unclaimed_path(key_id).exists():
                raise Unavailable(
                    f"key {key_id} was found in clear and waits to be told its purpose;"
                    " run: lamassu key adopt",
                    code="key_unclaimed",
                ) from error
            raise Unavailable(
                f"the file of key {key_id} is missing from the keystore; restore it from a backup,"
                " or name the database that belongs to this keystore",
                code="key_lost",
            ) from error
        return self._opened(key_id, content, _associated(key_id, purpose))

    def write_unclaimed(self, key_id: str, name: str, private_key: PrivateKey) -> None:
        """Seal a key that has no purpose yet, durably. Raises `Conflict` if there is one."""
        associated = _associated_unclaimed(key_id, name)
        self._create(self._unclaimed_path(key_id), private_key, associated, name=name)

    def read_unclaimed(self, key_id: str) -> UnclaimedKey | None:
        """Open what `write_unclaimed` wrote. Raises `Unavailable` (`key_damaged`)."""
        try:
            content = _bounded(self._unclaimed_path(key_id))
        except FileNotFoundError:
            return None
        try:
            name = str(json.loads(content)["name"])
        except (ValueError, KeyError, TypeError):
            name = ""  # then it does not open either
        key = self._opened(key_id, content, _associated_unclaimed(key_id, name))
        return UnclaimedKey(key_id, name, key)

    def claim(self, key_id: str, purpose: KeyPurpose) -> None:
        """Seal an unclaimed key for its purpose, for good. Can be repeated.

        Raises `Unavailable`: `key_lost`, `key_damaged` (also where it has another purpose).
        """
        unclaimed = self.read_unclaimed(key_id)
        if unclaimed is None:
            self.read(key_id, purpose)
            return
        self.write(key_id, purpose, unclaimed.private_key)
        self._unclaimed_path(key_id).unlink(missing_ok=True)
        sync_directory(self._directory)

    def unclaimed_ids(self) -> list[str]:
        """Every key that has no purpose yet."""
        paths = self._directory.glob(f"*{UNCLAIMED}")
        return sorted(path.stem for path in paths if KEY_ID.fullmatch(path.stem))

    def holds(self, key_id: str, private_key: PrivateKey) -> bool:
        """Whether exactly this key is here, whatever it is for. Opens its file."""
        wanted = _clear(private_key)
        unclaimed = self.read_unclaimed(key_id)
        if unclaimed is not None:
            return _clear(unclaimed.private_key) == wanted
        for purpose in KeyPurpose:
            try:
                return _clear(self.read(key_id, purpose)) == wanted
            except Unavailable:
                continue  # not there, or for another purpose
        return False

    def remove(self, key_id: str) -> None:
        """Delete a key's file; a missing one is fine."""
        path = self._path(key_id)
        for suffix in (SUFFIX, ASIDE, UNCLAIMED):
            path.with_suffix(suffix).unlink(missing_ok=True)
        sync_directory(self._directory)

    def set_aside(self, key_id: str) -> None:
        """Rename a key's file, so that it is no longer listed; a missing one is fine."""
        path = self._path(key_id)
        if path.exists():
            path.replace(path.with_suffix(ASIDE))
            sync_directory(self._directory)

    def files(self) -> Iterator[StoredFile]:
        """Every key file there is."""
        for path in self._directory.glob(f"*{SUFFIX}"):
            if KEY_ID.fullmatch(path.stem):
                modified = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                yield StoredFile(path.stem, modified)

    def check(self) -> None:
        """Whether the directory can be read now, and is still the keystore that was opened.

        Raises `OSError` or `RuleViolation`.
        """
        _read_header(self._directory / HEADER).check(self._cipher)

    def _content(self, path: Path) -> bytes:
        aside = path.with_suffix(ASIDE)
        if not path.exists() and aside.exists():
            aside.replace(path)
            sync_directory(self._directory)
        return _bounded(path)

    def _create(self, path: Path, private_key: PrivateKey, associated: bytes, **more: str) -> None:
        sealed = _seal(self._cipher, _clear(private_key), associated)
        content = {"format": FORMAT, "key_id": path.stem, **more, **sealed}
        create_private_file(path, json.dumps(content).encode())

    def _opened(self, key_id: str, content: bytes, associated: bytes) -> PrivateKey:
        try:
            clear = _unseal(self._cipher, json.loads(content), associated)
        except (InvalidTag, ValueError, KeyError, TypeError) as error:
            raise Unavailable(
                f"the file of key {key_id} is damaged, or was made for another key or purpose",
                code="key_damaged",
            ) from error
        # AEAD vouches for the content, so that the costly primality checks buy nothing
        key = load_der_private_key(clear, None, unsafe_skip_rsa_key_validation=True)
        if not isinstance(key, get_args(PrivateKey)):
            raise Unavailable(f"key {key_id} has an unknown type", code="key_damaged")
        return cast("PrivateKey", key)

    def _unclaimed_path(self, key_id: str) -> Path:
        return self._path(key_id).with_suffix(UNCLAIMED)

    def _path(self, key_id: str) -> Path:
        if not KEY_ID.fullmatch(key_id):
            raise Unavailable("not the id of a key in this keystore", code="key_lost")
        return self._directory / f"{key_id}{SUFFIX}"


def _associated(key_id: str, purpose: KeyPurpose) -> bytes:
    return f"lamassu-key/{FORMAT}/{purpose.value}/{key_id}".encode()


def _associated_unclaimed(key_id: str, name: str) -> bytes:
    return f"lamassu-unclaimed-key/{FORMAT}/{key_id}/{name}".encode()


def _clear(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(FILE_LENGTH_MAX)


def _seal(cipher: AESGCM, clear: bytes, associated: bytes) -> dict[str, str]:
    nonce = secrets.token_bytes(NONCE_LENGTH)
    sealed = cipher.encrypt(nonce, clear, associated)
    return {"nonce": _text(nonce), "sealed": _text(sealed)}


def _unseal(cipher: AESGCM, content: dict[str, str], associated: bytes) -> bytes:
    """Raises `InvalidTag`, or `ValueError`, `KeyError`, `TypeError` for a broken content."""
    return cipher.decrypt(_bytes(content["nonce"]), _bytes(content["sealed"]), associated)


def _new_header(secret: bytes, cost: ScryptCost) -> bytes:
    cost.check()
    salt = secrets.token_bytes(16)
    check = _seal(_cipher(secret, salt, cost), CHECK_TEXT, _header_data(salt, cost))
    content = {
        "format": FORMAT,
        "kdf": "scrypt",
        "n": cost.n,
        "r": cost.r,
        "p": cost.p,
        "salt": _text(salt),
        "check": check,
    }
    return json.dumps(content, indent=1).encode()


@dataclass(frozen=True, slots=True)
class _Header:
    """What `keystore.json` says."""

    path: Path
    cost: ScryptCost
    salt: bytes
    check_text: dict[str, str]

    def check(self, cipher: AESGCM) -> None:
        """Raises `RuleViolation` (`wrong_passphrase`) for another keystore's cipher."""
        try:
            _unseal(cipher, self.check_text, _header_data(self.salt, self.cost))
        except (InvalidTag, ValueError) as error:
            raise RuleViolation(
                f"wrong passphrase: it does not open the keystore in {self.path.parent}",
                code="wrong_passphrase",
            ) from error


def _read_header(path: Path) -> _Header:
    try:
        content = json.loads(path.read_bytes()[:FILE_LENGTH_MAX])
        if (content["format"], content["kdf"]) != (FORMAT, "scrypt"):
            raise ValueError("another format")
        cost = ScryptCost(int(content["n"]), int(content["r"]), int(content["p"]))
        salt = _bytes(content["salt"])
        check_text = {name: str(content["check"][name]) for name in ("nonce", "sealed")}
    except (ValueError, KeyError, TypeError) as error:
        raise RuleViolation(
            f"{path} cannot be read as a keystore header; restore it from a backup",
            code="keystore_damaged",
        ) from error
    cost.check()
    return _Header(path, cost, salt, check_text)


def _unlock(path: Path, secret: bytes) -> AESGCM:
    header = _read_header(path)
    cipher = _cipher(secret, header.salt, header.cost)
    header.check(cipher)
    return cipher


def _header_data(salt: bytes, cost: ScryptCost) -> bytes:
    return f"lamassu-keystore/{FORMAT}/{cost.n}/{cost.r}/{cost.p}/{salt.hex()}".encode()


def _cipher(secret: bytes, salt: bytes, cost: ScryptCost) -> AESGCM:
    return AESGCM(Scrypt(salt=salt, length=32, n=cost.n, r=cost.r, p=cost.p).derive(secret))


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
