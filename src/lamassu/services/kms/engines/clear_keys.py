"""Private keys in clear, as the original's directory has them: PEM files, named by key id or by
some older name. They are sealed into the keystore, and their files removed.

What was in clear may live on in backups and on the medium: docs/how-to says so.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lamassu.kernel.errors import Conflict, LamassuError, RuleViolation
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.platform.security.private_files import sync_directory
from lamassu.services.kms.engines.keystore import ASIDE, HEADER, KEY_ID, SUFFIX, UNCLAIMED, Keystore
from lamassu.services.kms.usecases.private_keys import parse_private_key, spec_of, spki_of

FILE_LENGTH_MAX = 64 * 1024
_OURS = frozenset({SUFFIX, ASIDE, UNCLAIMED})
_MARK = b"PRIVATE KEY-----"
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"
_ENCRYPTED = (b"ENCRYPTED PRIVATE KEY-----", b"Proc-Type:")


@dataclass(frozen=True, slots=True)
class Sealing:
    """What became of the files: key ids that are sealed now, and the names of files that stay
    because no key could be read from them."""

    sealed: tuple[str, ...]
    left: tuple[str, ...]


def refuse_clear_keys(directory: Path) -> None:
    """For production. Raises `RuleViolation` (`clear_keys_refused`) if a key lies in clear."""
    names = [path.name for path, _ in _clear_files(directory)]
    if names:
        raise RuleViolation(
            f"{len(names)} private keys lie in clear in {directory} ({names[0]}), which production"
            " refuses; start an installation in development once with this directory and"
            " passphrase, which encrypts them, or move them away",
            code="clear_keys_refused",
        )


def seal_clear_keys(directory: Path, keystore: Keystore) -> Sealing:
    """Seal every key that lies in clear. A file is removed only once its key was read back from
    the sealed one; a crash anywhere leaves a key in clear, sealed, or both."""
    sealed: list[str] = []
    left: list[str] = []
    for path, pem in _clear_files(directory):
        try:
            key_id = _seal(path.name, pem, keystore)
        except LamassuError:
            left.append(path.name)
            continue
        path.unlink(missing_ok=True)
        sync_directory(directory)
        sealed.append(key_id)
    return Sealing(tuple(sealed), tuple(left))


def _seal(name: str, pem: bytes, keystore: Keystore) -> str:
    """Have the keystore hold the key of a PEM text; its id. Raises a `LamassuError` if it does
    not hold exactly this key in the end."""
    key = parse_private_key(pem)
    spec_of(key)  # raises for a curve that no row could name
    key_id = key_id_of(spki_of(key))
    if not keystore.holds(key_id, key):
        printable = name.encode("utf-8", "replace").decode()
        with suppress(Conflict):  # another process is at it
            keystore.write_unclaimed(key_id, printable, key)
        if not keystore.holds(key_id, key):
            raise Conflict("the keystore has another key of this id", code="already_exists")
    return key_id


def _clear_files(directory: Path) -> list[tuple[Path, bytes]]:
    """Files with an unencrypted private key in them; links and what is ours are passed over.

    Raises `RuleViolation` (`storage_directory_shared`) where certificates lie beside them: such
    keys are somebody's, a web server's perhaps, who would miss them.
    """
    found: list[tuple[Path, bytes]] = []
    for path in sorted(directory.iterdir()):
        ours = path.suffix in _OURS and KEY_ID.fullmatch(path.stem)
        if ours or path.name == HEADER or path.name.startswith("."):
            continue
        if path.is_symlink() or not path.is_file():
            continue
        content = _read(path)
        if _CERTIFICATE in content:
            raise RuleViolation(
                f"{directory} holds a certificate ({path.name}): a keystore's storage_directory is"
                " for keys alone, which are encrypted and renamed there; name another one",
                code="storage_directory_shared",
                field="storage_directory",
            )
        if _MARK in content and not any(mark in content for mark in _ENCRYPTED):
            found.append((path, content))
    return found


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FILE_LENGTH_MAX)
    except OSError as error:
        raise RuleViolation(
            f"{path} cannot be read: {error.strerror}; give it to the user that runs this, or"
            " move it away",
            code="keystore_damaged",
        ) from error
