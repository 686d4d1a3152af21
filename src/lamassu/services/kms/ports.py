"""What the KMS needs: crypto engines, and a store of what is known about keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol, TypeVar, runtime_checkable

from lamassu.kernel.listing import ListQuery, Page
from lamassu.kernel.records import AuditRecord, Event
from lamassu.services.kms.contract import Engine, Key, KeyPurpose, KeySpec
from lamassu.services.kms.model import MadeKey, PrivateKey

T = TypeVar("T")


class CryptoEngine(Protocol):
    """Where private keys live. Every engine has threads of its own for what blocks.

    Each method but `facts` and `healthy` raises `Unavailable` when the engine cannot do it now:
    out of reach, too busy (`engine_busy`), or the key is lost there (`key_lost`).
    """

    def facts(self) -> Engine:
        """What it is and what it can make. `default` is the KMS's business, and false here."""
        ...

    async def generate(self, spec: KeySpec, *, purpose: KeyPurpose) -> MadeKey:
        """Make and keep a key. `spec` is one that `facts` lists. Durable when this returns."""
        ...

    async def public_key(self, key_id: str, *, purpose: KeyPurpose) -> bytes:
        """The SubjectPublicKeyInfo (DER), read from where the private key lives."""
        ...

    async def use(self, key_id: str, build: Callable[[PrivateKey], T], *, purpose: KeyPurpose) -> T:
        """Run `build`, which only signs, with the key or with a stand-in whose `sign` asks
        the engine. The purpose given must be the one that the key was made for.
        """
        ...

    async def delete(self, key_id: str) -> None:
        """Destroy a key; one that is not there is fine."""
        ...

    async def healthy(self) -> bool:
        """Whether it can be used now: it does a little of its work, in its own threads."""
        ...

    async def close(self) -> None:
        """Finish running work and let go of everything."""
        ...


@runtime_checkable
class ListsKeys(Protocol):
    """An engine whose keys can be enumerated, so that orphans can be set aside."""

    async def key_ids(self, *, made_before: datetime) -> Sequence[str]:
        """Keys that it holds since before an instant."""
        ...

    async def set_aside(self, key_id: str) -> None:
        """Take a key that no row knows out of use, without destroying it.

        It comes back when it is used after all: the database may have been the wrong one.
        """
        ...


@runtime_checkable
class GivesOutKeys(Protocol):
    """An engine that can hand out a private key. Only platform keys are ever asked for."""

    async def export(self, key_id: str, *, purpose: KeyPurpose, passphrase: bytes) -> bytes:
        """The key as PKCS#8 PEM, encrypted under the passphrase."""
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

    async def delete(self, key_id: str) -> None:
        """Remove a locked key and its aliases."""
        ...


class KeyStorage(Protocol):
    """Rows about keys; never a private key."""

    def unit(self) -> AbstractAsyncContextManager[KeyUnit]:
        """A write transaction: commits at exit, rolls back on an error."""
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

    async def known_among(self, key_ids: Sequence[str]) -> frozenset[str]:
        """Which of these ids have a row."""
        ...
