"""Which PINs a token has refused, so that none is sent twice: HSMs lock after a few.

    <folder>/salt          random, of this installation
    <folder>/refused.json  by token: digests of refused PINs, and of one whose answer is awaited

A digest is scrypt over the PIN with the salt and the token's serial number, because a wrong PIN is
often one letter away from the right one. What is awaited is written before the token is asked: a
process that dies in between leaves it, and the token's own flag then tells how it went.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import scrypt
from pathlib import Path
from typing import cast

from lamassu.kernel.errors import Conflict, LamassuError
from lamassu.platform.security.private_files import (
    create_private_file,
    make_private_directory,
    replace_private_file,
)
from lamassu.services.kms.ports import EngineDown

REMEMBERED = 16  # refused PINs of one token
FILE_LENGTH_MAX = 64 * 1024
LOCK_POLL = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class TokenName:
    """One token for good: a token that was initialised anew has another serial number."""

    manufacturer: str
    model: str
    serial: str
    label: str

    @property
    def text(self) -> str:
        return json.dumps([self.manufacturer, self.model, self.serial, self.label])


@dataclass(frozen=True, slots=True)
class _Record:
    refused: tuple[str, ...] = ()
    awaited: str = ""


_Change = Callable[[_Record], _Record]


class Attempt:
    """One login: `refused` and `settled` say how it went."""

    def __init__(self, store: RefusedPins, token: TokenName, digest: str) -> None:
        self._store = store
        self._token = token
        self._digest = digest

    def refused(self) -> None:
        """The token said no to this PIN."""
        self._settle(_refuse(self._digest))

    def succeeded(self) -> None:
        """The PIN is right: whatever was refused before is of no interest any more."""
        self._settle(lambda _: _Record())

    def unknown(self) -> None:
        """The token did not judge the PIN."""
        self._settle(lambda record: replace(record, awaited=""))

    def _settle(self, change: _Change) -> None:
        # a disk that fills up just now changes nothing: what is awaited is written, and is judged
        # at the next start by what the token says
        with suppress(OSError):
            self._store._change(self._token, change)


class RefusedPins:
    """The record in one folder; several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def record(self) -> Path:
        """The file, for who knows that a refused PIN is right now."""
        return self._folder / "refused.json"

    @contextmanager
    def attempt(
        self, token: TokenName, pin: bytes, *, failed_lately: bool, patience: float
    ) -> Iterator[Attempt | None]:
        """The one try that this PIN has; `None` if it was refused before.

        `failed_lately` is the token's own word that its last login failed. Only one process at a
        time is in here, so that two do not send the same PIN; `patience` bounds the wait, in
        seconds. Raises `EngineDown`: `pin_record_unusable`, `token_busy`.
        """
        with self._alone(patience):
            try:
                digest = self._digest(token, pin)
                record = self._read().get(token.text, _Record())
                if digest == record.awaited and failed_lately:
                    record = _refuse(digest)(record)
                    self._change(token, lambda _: record)
                if any(hmac.compare_digest(digest, one) for one in record.refused):
                    yield None
                    return
                # also shows that the refusal could be written down: if not, nothing is sent
                self._change(token, lambda old: replace(old, awaited=digest))
            except (OSError, LamassuError) as error:
                if isinstance(error, EngineDown):
                    raise
                why = error.text if isinstance(error, LamassuError) else error.strerror
                raise EngineDown(
                    f"no PIN is sent, because a refusal could not be remembered in"
                    f" {self._folder}: {why}",
                    code="pin_record_unusable",
                ) from error
            yield Attempt(self, token, digest)

    @contextmanager
    def _alone(self, patience: float) -> Iterator[None]:
        try:
            make_private_directory(self._folder)
            descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except (OSError, LamassuError) as error:
            why = error.text if isinstance(error, LamassuError) else error.strerror
            raise EngineDown(
                f"no PIN is sent, because a refusal could not be remembered: {why}",
                code="pin_record_unusable",
            ) from error
        try:
            deadline = time.monotonic() + patience
            while not _locked(descriptor):
                if time.monotonic() > deadline:
                    raise EngineDown(
                        "another process logs in to a token and hangs", code="token_busy"
                    )
                time.sleep(LOCK_POLL)
            yield
        finally:
            os.close(descriptor)

    def _digest(self, token: TokenName, pin: bytes) -> str:
        salt = self._salt() + token.text.encode()
        return scrypt(pin, salt=salt, n=2**14, r=8, p=1, dklen=32).hex()

    def _salt(self) -> bytes:
        path = self._folder / "salt"
        if not path.exists():
            with suppress(Conflict):  # another process was faster
                create_private_file(path, secrets.token_bytes(32))
        return path.read_bytes()

    def _read(self) -> dict[str, _Record]:
        try:
            with self.record.open("rb") as file:
                content = json.loads(file.read(FILE_LENGTH_MAX))
            return {name: _parse(record) for name, record in content.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise EngineDown(
                f"{self.record}, which says what PINs were refused, is damaged;"
                " delete it once you are sure of the PIN",
                code="pin_record_unusable",
            ) from error

    def _change(self, token: TokenName, change: _Change) -> None:
        records = self._read()
        before = records.get(token.text, _Record())
        after = change(before)
        if after == before:
            return
        records[token.text] = after
        content = {
            name: {"refused": list(record.refused), "awaited": record.awaited}
            for name, record in records.items()
            if record != _Record()
        }
        replace_private_file(self.record, json.dumps(content, indent=1).encode())


def _refuse(digest: str) -> _Change:
    return lambda record: _Record((*record.refused, digest)[-REMEMBERED:])


def _parse(record: Mapping[str, object]) -> _Record:
    refused = cast("list[str]", record["refused"])
    return _Record(tuple(str(one) for one in refused), str(record["awaited"]))


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
