"""Taking the internal root's key away: an encrypted file, and its passphrase in another place.

Both on one medium are a key in clear, so the passphrase goes to a file elsewhere, comes from
one, or is shown once on a terminal.
"""

from __future__ import annotations

import secrets
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from lamassu.kernel.errors import RuleViolation
from lamassu.platform.security.private_files import create_private_file
from lamassu.services.access.contract import RootKeyExport

PASSPHRASE_LENGTH_MIN = 16


@dataclass(frozen=True, slots=True)
class RootKeyPlaces:
    """Where an operator wants the key and, unless it is to be shown, its passphrase."""

    key: Path
    passphrase: Path | None = None


def prepare_export(
    places: RootKeyPlaces, installation: Path, reveal: Callable[[str], None] | None
) -> RootKeyExport:
    """Judge the places and settle the passphrase, before the key is touched. Blocks.

    A passphrase file that is there is read, else made; without one `reveal` shows a fresh
    passphrase (`None`: there is nobody to show it to). Raises `RuleViolation`
    (`option_refused`).
    """
    key = places.key.absolute()
    _judge_folder("export-root-key", key, installation)
    if key.exists():
        _refuse("export-root-key", f"{key} is there already and stays; name another file")
    if places.passphrase is None:
        if reveal is None:
            _refuse(
                "export-root-key",
                "there is no terminal to show its passphrase on; name a file in another place,"
                " with --root-passphrase-file",
            )
        passphrase = secrets.token_urlsafe(32)
        reveal(passphrase)
        return RootKeyExport(str(key), passphrase.encode())
    words = places.passphrase.absolute()
    _judge_folder("root-passphrase-file", words, installation)
    if _together(key, words, installation):
        _refuse(
            "root-passphrase-file",
            f"{words} lies with the key, and whoever finds one finds both; name another place",
        )
    return RootKeyExport(str(key), _read(words) if words.exists() else _make(words))


def _judge_folder(option: str, path: Path, installation: Path) -> None:
    if not path.parent.is_dir():
        _refuse(option, f"there is no folder {path.parent}")
    if path.resolve().is_relative_to(installation.resolve()):
        _refuse(option, f"{path} lies inside the installation; name a place that you take away")


def _together(key: Path, words: Path, installation: Path) -> bool:
    """Whether both lie in one folder, or on one medium that is not the installation's own."""
    folder, other = key.parent.resolve(), words.parent.resolve()
    if other.is_relative_to(folder):
        return True
    medium = folder.stat().st_dev
    return medium == other.stat().st_dev != installation.stat().st_dev


def _read(words: Path) -> bytes:
    if words.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        _refuse("root-passphrase-file", f"others may read it; run: chmod 600 {words}")
    passphrase = words.read_bytes().strip()
    if len(passphrase) < PASSPHRASE_LENGTH_MIN:
        _refuse(
            "root-passphrase-file",
            f"a passphrase has {PASSPHRASE_LENGTH_MIN} characters at least;"
            " a file that is not there yet gets a good one",
        )
    return passphrase


def _make(words: Path) -> bytes:
    passphrase = secrets.token_urlsafe(32).encode()
    create_private_file(words, passphrase + b"\n")
    return passphrase


def _refuse(option: str, text: str) -> NoReturn:
    raise RuleViolation(f"--{option}: {text}", code="option_refused")
