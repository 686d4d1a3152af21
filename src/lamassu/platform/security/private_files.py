"""Files that only their owner may read, written so that a crash leaves all or nothing.

Everything here blocks; callers on the event loop use a thread.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from lamassu.kernel.errors import Conflict, RuleViolation


def make_private_directory(directory: Path) -> None:
    """Make a directory of mode 0700, or check that an existing one lets nobody else in.

    Raises `RuleViolation` (`keystore_exposed`).
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(directory.stat().st_mode)
    if mode & 0o077:
        raise RuleViolation(
            f"{directory} is open to others (mode {mode:o}); run: chmod 700 {directory}",
            code="keystore_exposed",
        )


def create_private_file(path: Path, content: bytes) -> None:
    """Write a new file of mode 0600, durable when this returns.

    Raises `Conflict` (`file_exists`) if there is one of that name already: a private key is
    never overwritten.
    """
    temporary = _write_beside(path, content)
    try:
        # link, not rename: it fails where the name is taken
        os.link(temporary, path)
    except FileExistsError as error:
        raise Conflict(f"{path.name} exists already", code="file_exists") from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def replace_private_file(path: Path, content: bytes) -> None:
    """Write a file of mode 0600, in place of one that may be there; durable when this returns."""
    temporary = _write_beside(path, content)
    try:
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make names that were added to or removed from a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_beside(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
