"""What the KMS needs: crypto engines, and a store of what is known about keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from lamassu.kernel.errors import Unavailable
from lamassu.kernel.listing import Filter, ListQuery, Page
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.kms.contract import Binding, Engine, Key, KeyMove, KeyPurpose, KeySpec
from lamassu.services.kms.model import (
    BackupRecord,
    FoundKey,
    KeyCounts,
    MadeKey,
    PrivateKey,
    Rehearsals,
    WrappedKey,
)


class EngineDown(Unavailable):
    """The engine as a whole cannot be used now: out of reach, sealed, throttled, logged out.

    A failure of one key (`key_lost`, `key_damaged`) is a plain `Unavailable`.
    """

    default_code = "engine_unreachable"


class EngineRefused(EngineDown):
    """The engine will not work as it is configured: PIN, role, token, module, region, address.

    Asking again changes nothing until somebody corrects the configuration: the start is
    refused, and what was refused (a PIN) is not tried again.
    """

    default_code = "engine_misconfigured"


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How an engine may be used: calls at once, and seconds until a caller stops waiting."""

    workers: int
    sign_seconds: float = 10.0
    generate_seconds: float = 120.0


class CryptoEngine(Protocol):
    """Where private keys live. An adapter is plain blocking code: `GuardedEngine` runs it in
    threads of its own and bounds it in number and time, so several calls run at once.

    Every method but `facts` and `close` raises `EngineDown` (`EngineRefused`) when the engine
    cannot be used, and `Unavailable` (`key_lost`, `key_damaged`) when the key cannot. An engine
    connects when it is first asked, not when it is constructed.
    """

    limits: EngineLimits

    def facts(self) -> Engine:
        """What it is and what it can make, without asking it. `default` is the KMS's business,
        and false here."""
        ...

    def generate(self, spec: KeySpec, *, purpose: KeyPurpose) -> MadeKey:
        """Make and keep a key. `spec` is one that `facts` lists. Durable when this returns."""
        ...

    def private_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        """The key, or a stand-in whose `sign` asks the engine (`stand_in.py`).

        The purpose given must be the one that the key was made for.
        """
        ...

    def delete(self, key_id: str) -> None:
        """Destroy a key; one that is not there is fine."""
        ...

    def check(self) -> None:
        """Do a little of its work. Returns when it can be used now."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


@runtime_checkable
class SignsInline(Protocol):
    """An engine some of whose signatures take less time than the hop to a thread."""

    def inline_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey | None:
        """The key, if it is at hand and signs that fast; called on the event loop."""
        ...


@runtime_checkable
class ListsKeys(Protocol):
    """An engine whose keys can be enumerated, so that orphans can be set aside."""

    def key_ids(self, *, made_before: datetime) -> Sequence[str]:
        """Keys that it holds since before an instant."""
        ...

    def set_aside(self, key_id: str) -> None:
        """Take a key that no row knows out of use, without destroying it.

        It comes back when it is used after all: the database may have been the wrong one.
        """
        ...


@runtime_checkable
class NamesLeftovers(Protocol):
    """An engine in which the making of a key can be cut off before the key has its id."""

    def name_leftovers(self, *, purpose: KeyPurpose) -> Sequence[str]:
        """Finish such keys of this purpose, so that `key_ids` lists them; their ids. Only for
        who has the store to itself: another process may be about to do so."""
        ...


@runtime_checkable
class TakesInKeys(Protocol):
    """An engine in which a key made elsewhere can be kept."""

    def take_in(self, key: PrivateKey, *, purpose: KeyPurpose) -> MadeKey:
        """Keep the key; durable when this returns. A key that is there already stays as it is
        (so that an interrupted import or move can be repeated)."""
        ...


@runtime_checkable
class GivesOutKeys(Protocol):
    """An engine that can give a private key away: never by the API, only to move it, back it
    up, or take the internal root off the host."""

    def take_out(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        """The private key itself; it stays in the engine too."""
        ...


@runtime_checkable
class WrapsKeys(Protocol):
    """An engine whose keys can be backed up to another one of its kind, without anybody seeing
    them: encrypted under a backup key that both hold, made of the custodians' components (at
    least two, of 32 random bytes). What unwraps a key does not wrap, and the other way round."""

    def wrap(self, key_id: str, *, purpose: KeyPurpose) -> WrappedKey:
        """The key, encrypted. Raises `RuleViolation` (`key_not_wrappable`: made without backup
        in mind; `backup_key_one_way`), `NotFound` (`backup_key_missing`)."""
        ...

    def unwrap(self, wrapped: WrappedKey, *, purpose: KeyPurpose) -> MadeKey:
        """Keep a wrapped key, once a signature has shown that it is the one it says it is. One
        that is there already stays as it is. Raises `RuleViolation` (`wrapped_key_invalid`,
        `backup_key_differs`, `backup_key_one_way`), `NotFound` (`backup_key_missing`)."""
        ...

    def keep_wrapping_key(self, components: Sequence[bytes], *, security_officer_pin: bytes) -> str:
        """Put the backup key into the engine of origin, trusted; returns its check value.

        Idempotent. The PIN is sent once. Raises `RuleViolation` (`bad_components`), `Conflict`
        (`backup_key_exists`: another one of this name), `EngineRefused` (`pin_refused`).
        """
        ...

    def keep_unwrapping_key(self, components: Sequence[bytes]) -> str:
        """Put the backup key into the engine that restores; as `keep_wrapping_key`."""
        ...


@runtime_checkable
class FindsKeys(Protocol):
    """An engine in which keys of an earlier installation may wait for somebody to adopt them."""

    def unclaimed_keys(self) -> Sequence[FoundKey]:
        """Keys of which nobody has said yet what they are for; they cannot be used."""
        ...

    def claim(self, key_id: str, *, purpose: KeyPurpose) -> None:
        """Give one of them its purpose, for good. Durable when this returns; one that has this
        purpose already is fine."""
        ...


class KeyUnit(Protocol):
    """One transaction over the keys, with its events and audit records."""

    def emit(self, event: Event) -> None:
        """Publish this once the transaction has committed."""
        ...

    def audit(self, record: AuditRecord) -> None:
        """Record this with the transaction."""
        ...

    async def insert(self, key: Key) -> None:
        """Add a key. Raises `Conflict` if its id is there."""
        ...

    async def lock(self, key_id: str) -> Key | None:
        """Read a key so that nobody else changes it before this transaction ends."""
        ...

    async def save(self, key: Key) -> None:
        """Write name, tags, metadata, `has_signed` and version of a locked key."""
        ...

    async def replace_aliases(self, key_id: str, aliases: Sequence[str]) -> None:
        """Give a locked key exactly these aliases. Raises `Conflict` (`alias_exists`)."""
        ...

    async def bind(self, key_id: str, binding: Binding, bound_at: datetime) -> None:
        """Note that something needs a locked key, and did not before."""
        ...

    async def unbind(self, key_id: str, binding: Binding) -> None:
        """Take back what `bind` noted."""
        ...

    async def rehome(self, key: Key, moved: Key) -> None:
        """Write the engine and version of a locked key that moved."""
        ...

    async def save_move(self, move: KeyMove) -> None:
        """Write how far the move of a locked key has come."""
        ...

    async def end_move(self, key_id: str) -> None:
        """Forget a move."""
        ...

    async def find_move(self, key_id: str) -> KeyMove | None:
        """The move of a locked key that has begun and not ended."""
        ...

    async def save_backup(self, record: BackupRecord) -> None:
        """Remember a backup, or what is known of one since."""
        ...

    async def rehearsals_of(self, key_id: str, engine_id: str) -> Rehearsals:
        """The rehearsals of a locked key in this engine."""
        ...

    async def begin_rehearsal(self, key_id: str, engine_id: str) -> None:
        """Note that a copy of a locked key comes into this engine, to be removed again."""
        ...

    async def end_rehearsal(self, key_id: str, engine_id: str) -> None:
        """Note that the copy is gone."""
        ...

    async def delete(self, key: Key) -> None:
        """Remove a locked key, its aliases and bindings."""
        ...


class KeyStorage(Protocol):
    """Rows about keys; never a private key."""

    def unit(self) -> AbstractAsyncContextManager[KeyUnit]:
        """A write transaction: commits at exit, rolls back on an error."""
        ...

    def alone(self, deed: str) -> AbstractAsyncContextManager[None]:
        """Wait for one's turn in this process at the deed of this name. Raises `Conflict`
        (`done_elsewhere`) where another process is at it."""
        ...

    async def find(self, key_id: str) -> Key | None:
        """The key with this id."""
        ...

    async def find_by_alias(self, alias: str) -> Key | None:
        """The key with this alias."""
        ...

    async def list(self, query: ListQuery, *, purposes: Sequence[KeyPurpose]) -> Page[Key]:
        """A page of the keys of these purposes."""
        ...

    async def count(
        self, *, purposes: Sequence[KeyPurpose], filters: Sequence[Filter], limit: int
    ) -> KeyCounts | None:
        """How many keys of these purposes match; `None` for more than `limit`.

        Without filters there is no limit: those numbers are kept, not counted.
        """
        ...

    async def find_move(self, key_id: str) -> KeyMove | None:
        """The move of this key that has begun and not ended."""
        ...

    async def moves(self) -> Sequence[KeyMove]:
        """Every move that has begun and not ended."""
        ...

    async def known_among(self, key_ids: Sequence[str]) -> frozenset[str]:
        """Which of these ids have a row."""
        ...

    async def keys_in(self, engine_id: str) -> Sequence[Key]:
        """Every key of an engine, of whatever purpose, the oldest first."""
        ...

    async def rehearsals(self) -> Mapping[str, int]:
        """How many copies rehearsals may have in each engine, and have not removed yet."""
        ...

    async def backups(self) -> Sequence[BackupRecord]:
        """Every backup that was made, or rehearsed, here; the newest first."""
        ...
