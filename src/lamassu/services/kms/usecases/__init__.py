"""What the KMS does, one module per verb; `KmsService` is its face."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import NotFound, Unavailable
from lamassu.kernel.identity import Caller, system_caller
from lamassu.kernel.listing import Filter, ListQuery, Operator, Page
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms import rules
from lamassu.services.kms.contract import (
    Binding,
    Engine,
    EngineHealth,
    Key,
    KeyMove,
    KeyOrigin,
    KeyPurpose,
    KeySpec,
    MessageType,
)
from lamassu.services.kms.model import ImportedKey, KeyCounts, NewKey
from lamassu.services.kms.ports import CryptoEngine, EngineDown, KeyStorage
from lamassu.services.kms.usecases.adopt_keys import (
    Adopting,
    Adoption,
    adopt_keys,
    unclaimed_keys,
)
from lamassu.services.kms.usecases.backup import KeyBackups
from lamassu.services.kms.usecases.bind_key import bind_key, unbind_key
from lamassu.services.kms.usecases.count_keys import count_keys, misplaced_ca_keys
from lamassu.services.kms.usecases.delete_key import delete_key
from lamassu.services.kms.usecases.describe_key import Change, describe_key
from lamassu.services.kms.usecases.engines import EngineDirectory
from lamassu.services.kms.usecases.export_key import export_key
from lamassu.services.kms.usecases.find_key import find_key, get_visible_key
from lamassu.services.kms.usecases.find_lost_keys import KeySearch, find_lost_keys
from lamassu.services.kms.usecases.guard import EngineMeter
from lamassu.services.kms.usecases.import_key import KeyImport
from lamassu.services.kms.usecases.make_key import make_key
from lamassu.services.kms.usecases.move_key import KeyMoving
from lamassu.services.kms.usecases.sign_message import Message, sign_message
from lamassu.services.kms.usecases.sweep_orphans import sweep_orphans
from lamassu.services.kms.usecases.verify_message import verify_message

T = TypeVar("T")

KEYS_REMEMBERED = 4096
LISTED_AT_ONCE = 1000


class KmsService:
    """The `PlatformKeys` contract, and the verbs of the public API (`*_named`, `list_keys`).

    What the API names it names by id, alias or PKCS#11 URI; keys that it must not know of are
    `NotFound` there.
    """

    def __init__(
        self,
        *,
        engines: Sequence[CryptoEngine],
        default_engine_id: str,
        storage: KeyStorage,
        clock: Clock,
        meter: EngineMeter | None = None,
        production: bool = False,
    ) -> None:
        """`production` may be set later: the mode is settled by a service that needs keys.

        Raises `RuleViolation` (`unknown_engine`) when the default engine is not there.
        """
        self.production = production
        self._engines = EngineDirectory(engines, default_id=default_engine_id, meter=meter)
        self._storage = storage
        self._clock = clock
        self._moving = KeyMoving(self._engines, storage)
        self._imports = KeyImport(engines=self._engines, storage=storage, clock=clock)
        self.backups = KeyBackups(self._engines, storage, clock)
        self._remembered: OrderedDict[str, Key] = OrderedDict()

    async def start(self) -> Sequence[str]:
        """End moves that were cut off, and set orphaned keys aside; returns these for the log."""
        await self._moving.finish_switched(system_caller("kms"))
        return await sweep_orphans(
            engines=self._engines, storage=self._storage, now=self._clock.now()
        )

    async def close(self) -> None:
        """Let the engines finish and close them."""
        for engine in self._engines:
            await engine.close()

    # for the platform's own slices

    async def engines(self) -> Sequence[Engine]:
        return self._engines.facts()

    async def generate(
        self,
        spec: KeySpec,
        *,
        purpose: KeyPurpose,
        name: str,
        caller: Caller,
        engine_id: str | None = None,
    ) -> Key:
        wanted = NewKey(spec, name, engine_id)
        return await self._make(wanted, purpose, caller)

    async def take_in(
        self,
        private_key: bytes,
        *,
        public_key: bytes,
        purpose: KeyPurpose,
        name: str,
        caller: Caller,
    ) -> Key:
        return await self._imports.take_for(
            private_key,
            public_key=public_key,
            purpose=purpose,
            name=name,
            caller=caller,
            production=self.production,
        )

    async def get(self, key_id: str, *, purpose: KeyPurpose) -> Key:
        return rules.check_purpose(await self._storage.find(key_id), purpose)

    async def find(self, identifier: str) -> Key | None:
        return await find_key(identifier, storage=self._storage)

    async def find_unused(
        self, name: str, spec: KeySpec, *, purpose: KeyPurpose, engine_id: str
    ) -> Key | None:
        if self.production:
            # one that was made in development is nobody's way around the rule
            facts = self._engines.facts_of(engine_id)
            rules.check_may_hold(purpose, facts, self._engines.facts())
        named = Filter("name", Operator.EQ, name)
        page = await self._storage.list(ListQuery(filters=[named]), purposes=[purpose])
        for key in page.items:
            # a first version was never renamed: nobody gave it this name but who made it
            untouched = key.version == 1 and key.origin is KeyOrigin.GENERATED
            if untouched and not key.bindings and (key.spec, key.engine_id) == (spec, engine_id):
                return key
        return None

    async def find_by_public_key(self, spki: bytes) -> Key | None:
        return await self._storage.find(key_id_of(spki))

    async def use(
        self,
        key_id: str,
        build: Callable[[CertificateIssuerPrivateKeyTypes], T],
        *,
        purpose: KeyPurpose,
    ) -> T:
        key = rules.check_purpose(await self._recall(key_id), purpose)
        try:
            return await self._engines.holding(key.engine_id).use(key_id, build, purpose=purpose)
        except Unavailable as error:
            if error.code != "key_lost" and not isinstance(error, EngineDown):
                raise
            # it may have moved to another engine, or was restored into one, since we remembered
            self._remembered.pop(key_id, None)
            moved = rules.check_purpose(await self._recall(key_id), purpose)
            if moved.engine_id == key.engine_id:
                raise
        return await self._engines.holding(moved.engine_id).use(key_id, build, purpose=purpose)

    async def sign_for_ca(
        self,
        key_id: str,
        *,
        algorithm: str,
        message: bytes,
        message_type: MessageType,
        caller: Caller | None = None,
    ) -> bytes:
        key = await self.get(key_id, purpose=KeyPurpose.CA)
        return await sign_message(
            key,
            Message(message, message_type, algorithm),
            caller=caller or system_caller("ca"),
            engines=self._engines,
            storage=self._storage,
        )

    async def verify(
        self,
        key_id: str,
        *,
        algorithm: str,
        message: bytes,
        message_type: MessageType,
        signature: bytes,
    ) -> bool:
        key = rules.check_visible(await self._storage.find(key_id))
        return await verify_message(key, Message(message, message_type, algorithm), signature)

    async def bind(self, key_id: str, binding: Binding, *, caller: Caller) -> None:
        now = self._clock.now()
        await bind_key(key_id, binding, caller=caller, now=now, storage=self._storage)

    async def unbind(self, key_id: str, binding: Binding, *, caller: Caller) -> None:
        await unbind_key(key_id, binding, caller=caller, storage=self._storage)

    async def plan_move(self, key_id: str, engine_id: str, *, purpose: KeyPurpose) -> KeyMove:
        key = await self.get(key_id, purpose=purpose)
        return await self._moving.plan(key, engine_id, production=self.production)

    async def move(
        self, key_id: str, engine_id: str, *, purpose: KeyPurpose, caller: Caller
    ) -> Key:
        key = await self.get(key_id, purpose=purpose)
        try:
            return await self._moving.move(
                key,
                engine_id,
                production=self.production,
                caller=caller,
                now=self._clock.now(),
            )
        finally:
            self._remembered.pop(key_id, None)

    async def discard(self, key_id: str, *, purpose: KeyPurpose, caller: Caller) -> None:
        key = await self._storage.find(key_id)
        if key is None or key.purpose is not purpose:
            return
        with suppress(NotFound):  # somebody else was faster
            await self._delete(key, key_id, rules.check_unbound, caller)

    async def export(self, key_id: str, *, passphrase: bytes, caller: Caller) -> bytes:
        return await export_key(
            await self.get(key_id, purpose=KeyPurpose.PLATFORM),
            passphrase=passphrase,
            caller=caller,
            engines=self._engines,
            storage=self._storage,
        )

    async def find_lost(
        self, needed: Collection[str], problems: Mapping[str, str] | None = None
    ) -> KeySearch:
        """Which of these keys, of the responders' and of the platform's are not where they
        should be. `problems` are what each engine was just found to have, empty for none: who
        knows them spares the engines the question."""
        keys = [key for each in needed if (key := await self._storage.find(each)) is not None]
        query = ListQuery(page_size=LISTED_AT_ONCE)
        while True:
            page = await self._storage.list(query, purposes=rules.OWN_PURPOSES)
            keys.extend(page.items)
            if page.after is None:
                return await find_lost_keys(keys, engines=self._engines, problems=problems)
            query = replace(query, after=page.after)

    async def default_gives_out_keys(self) -> bool:
        """Whether a key of the default engine could leave it at all: an HSM's stays."""
        return self._engines.default().gives_out_keys

    async def check_engine(self, engine_id: str) -> None:
        """Ask one engine for a little work. Raises `Unavailable` that says what is wrong."""
        await self._engines.holding(engine_id).check()

    async def health(self) -> Sequence[EngineHealth]:
        return await self._engines.health()

    # for the public API

    async def create_named(self, wanted: NewKey, *, caller: Caller) -> Key:
        """Make a general key."""
        return await self._make(wanted, KeyPurpose.GENERAL, caller)

    async def import_named(self, wanted: ImportedKey, *, caller: Caller) -> Key:
        """Keep a private key made elsewhere, as a general key."""
        return await self._imports.take(wanted, caller=caller)

    async def adopt(self, wanted: Adopting, *, caller: Caller) -> Sequence[Adoption]:
        """Take over keys that an engine has from an earlier installation."""
        return await adopt_keys(
            wanted,
            caller=caller,
            engines=self._engines,
            storage=self._storage,
            clock=self._clock,
            production=self.production,
        )

    async def unclaimed(self, problems: Mapping[str, str] | None = None) -> Mapping[str, int]:
        """How many keys wait for `adopt`, by engine; `problems` as `find_lost` has them."""
        return await unclaimed_keys(self._engines, problems or {})

    async def misplaced_ca_keys(self) -> Sequence[str]:
        """Findings for production: keys of CAs in engines that are not for them."""
        return await misplaced_ca_keys(engines=self._engines, storage=self._storage)

    async def count_keys(self, filters: Sequence[Filter] = ()) -> KeyCounts:
        """How many keys the API may know of."""
        return await count_keys(filters, engines=self._engines, storage=self._storage)

    async def get_named(self, identifier: str) -> Key:
        """Raises `NotFound` (`key not found`), `Malformed` for a broken URI."""
        return await get_visible_key(identifier, storage=self._storage)

    async def list_keys(self, query: ListQuery) -> Page[Key]:
        """A page of the keys that the API may know of."""
        return await self._storage.list(query, purposes=rules.API_PURPOSES)

    async def sign_named(self, identifier: str, message: Message, *, caller: Caller) -> bytes:
        """Sign with a general key, or with a CA's under security rule 8 (`Forbidden`).

        The caller's right to use a CA's key was judged before (`ca-key:sign`).
        """
        return await sign_message(
            await self.get_named(identifier),
            message,
            caller=caller,
            engines=self._engines,
            storage=self._storage,
        )

    async def verify_named(self, identifier: str, message: Message, signature: bytes) -> bool:
        """Whether the signature is this key's over the message."""
        return await verify_message(await self.get_named(identifier), message, signature)

    async def delete_named(self, identifier: str, *, caller: Caller) -> None:
        """Delete a general key that nothing needs. Raises `Conflict` (`key_in_use`,
        `move_in_progress`: a second engine may hold it), and
        `Unavailable`, with nothing changed, while its engine cannot destroy it."""
        key = await self.get_named(identifier)
        rules.check_deletable(key)
        rules.check_not_moving(await self._storage.find_move(key.key_id))
        await self._engines.holding(key.engine_id).check()
        await self._delete(key, identifier, rules.check_deletable, caller)

    async def describe_named(
        self, identifier: str, event_type: str, change: Change, *, caller: Caller
    ) -> Key:
        """Change name, tags, metadata or aliases; see `usecases.describe_key` for changes."""
        key = await self.get_named(identifier)
        return await describe_key(
            key.key_id, event_type, change, caller=caller, storage=self._storage
        )

    async def _make(self, wanted: NewKey, purpose: KeyPurpose, caller: Caller) -> Key:
        return await make_key(
            wanted,
            purpose,
            caller=caller,
            engines=self._engines,
            storage=self._storage,
            clock=self._clock,
            production=self.production,
        )

    async def _delete(
        self, key: Key, identifier: str, judge: Callable[[Key], None], caller: Caller
    ) -> None:
        self._remembered.pop(key.key_id, None)
        await delete_key(
            key.key_id,
            identifier=identifier,
            judge=judge,
            caller=caller,
            engines=self._engines,
            storage=self._storage,
        )
        self._remembered.pop(key.key_id, None)

    async def _recall(self, key_id: str) -> Key | None:
        """The key's row, for engine and purpose only: a move shows when the key is lost."""
        key = self._remembered.get(key_id)
        if key is None:
            key = await self._storage.find(key_id)
            if key is None:
                return None
            self._remembered[key_id] = key
            if len(self._remembered) > KEYS_REMEMBERED:
                self._remembered.popitem(last=False)
        return key
