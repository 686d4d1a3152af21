"""The ledger on a directory: lines that are synced before they count, one process at a time.

transcript.jsonl      the transcript, append only
session-N.bundle      what session N hands over
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from lamassu.kernel.errors import Conflict, Malformed
from lamassu.platform.security.private_files import (
    make_private_directory,
    replace_private_file,
    sync_directory,
)

TRANSCRIPT = "transcript.jsonl"


class DirectoryLedger:
    """The `Ledger` port. Holds a lock until `close`."""

    def __init__(self, directory: Path) -> None:
        """Raises `Conflict` (`ceremony_busy`) when another process has it."""
        make_private_directory(directory)
        self._directory = directory
        self._path = directory / TRANSCRIPT
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise Conflict(
                f"another run is using {directory}; let it end first", code="ceremony_busy"
            ) from None
        sync_directory(directory)

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._file)

    def read(self) -> str:
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            # cut off by a crash before it was synced, so nobody was told of it
            os.ftruncate(self._file, whole)
        os.fsync(self._file)  # what was read is built upon, so it is to last
        try:
            return content[:whole].decode("ascii")
        except UnicodeDecodeError:
            raise Malformed(f"{self._path} is no transcript", code="transcript_malformed") from None

    def append(self, line: str) -> None:
        left = f"{line}\n".encode("ascii")
        while left:
            left = left[os.write(self._file, left) :]
        os.fsync(self._file)

    def keep(self, name: str, content: bytes) -> str:
        path = self._directory / name
        replace_private_file(path, content)
        return str(path)
