"""The `hashicorp_vault` engine: keys in KV v2 or in Transit, as the mount's type has it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import datetime

from lamassu.kernel.records import Json
from lamassu.services.kms.contract import Engine, KeyAlgorithm, KeyPurpose, KeySpec
from lamassu.services.kms.engines import keys_in_memory
from lamassu.services.kms.engines.vault import transit
from lamassu.services.kms.engines.vault.access import VaultAccess
from lamassu.services.kms.engines.vault.errors import VaultAnswer, failing, unreadable
from lamassu.services.kms.engines.vault.kv import KvKeys
from lamassu.services.kms.engines.vault.mount import MountKind, find_mount
from lamassu.services.kms.engines.vault.session import VaultSession
from lamassu.services.kms.engines.vault.transit import TransitKeys
from lamassu.services.kms.model import MadeKey, PrivateKey
from lamassu.services.kms.ports import EngineLimits, EngineRefused

WORKERS = 32  # calls at once: Vault answers in milliseconds, of which we compute next to nothing
CHECK_SECONDS = 3.0
OF_THE_TIME = 0.9  # what the network may take of a caller's patience
LISTING_SHARE = 0.5


class VaultEngine:
    """A `CryptoEngine` that lists and takes in keys. What kind its mount is, it learns when it
    first asks; until then it says of itself the least that it can be."""

    def __init__(
        self,
        engine_id: str,
        access: VaultAccess,
        *,
        limits: EngineLimits | None = None,
        installation: str = "",
        metadata: Mapping[str, Json] | None = None,
    ) -> None:
        """`installation` marks the keys that are made here."""
        self.limits = limits or EngineLimits(workers=WORKERS)
        self._id = engine_id
        self._installation = installation
        self._metadata = dict(metadata or {})
        self._session = VaultSession(
            access,
            # beside the workers: the renewal of the token, and those that are given up
            at_once=self.limits.workers * 2 + 2,
            seconds=self.limits.sign_seconds * OF_THE_TIME,
        )
        self._lock = threading.Lock()
        self._keys: KvKeys | TransitKeys | None = None

    def facts(self) -> Engine:
        in_transit = isinstance(self._keys, TransitKeys)
        return Engine(
            id=self._id,
            type="HASHICORP_VAULT_TRANSIT" if in_transit else "HASHICORP_VAULT_KV_V2",
            provider="Hashicorp",
            name="Transit" if in_transit else "Key Value - V2",
            security_level=2 if in_transit else 1,
            default=False,
            supported=self._supported(),
            metadata=self._metadata,
        )

    def generate(self, spec: KeySpec, *, purpose: KeyPurpose) -> MadeKey:
        seconds = self.limits.generate_seconds * OF_THE_TIME
        return self._opened().generate(spec, purpose=purpose, seconds=seconds)

    def take_in(self, key: PrivateKey, *, purpose: KeyPurpose) -> MadeKey:
        keys = self._opened()
        if isinstance(keys, KvKeys):
            return keys.take_in(key, purpose=purpose)
        return keys.take_in(key, purpose=purpose, seconds=self.limits.sign_seconds * OF_THE_TIME)

    def private_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        return self._opened().private_key(key_id, purpose=purpose)

    def delete(self, key_id: str) -> None:
        self._opened().delete(key_id)

    def key_ids(self, *, made_before: datetime) -> Sequence[str]:
        """None of Transit: a key there cannot be marked, and harms nobody where it is."""
        keys = self._opened()
        if isinstance(keys, TransitKeys):
            return ()
        within = self.limits.sign_seconds * LISTING_SHARE
        return keys.key_ids(made_before=made_before, within=within)

    def set_aside(self, key_id: str) -> None:
        keys = self._opened()
        if isinstance(keys, KvKeys):
            keys.set_aside(key_id)

    def check(self) -> None:
        seconds = min(CHECK_SECONDS, self.limits.sign_seconds * OF_THE_TIME)
        mount = self._session.access.mount_path
        with self._session.within(seconds):
            keys = self._opened()
        needs = {f"{mount}/{path}": wants for path, wants in keys.needs.items()}
        try:
            given = self._session.data(
                lambda client: client.sys.get_capabilities(paths=list(needs)), seconds=seconds
            )
        except VaultAnswer as answer:
            raise failing(self._session.access, answer) from None
        except EngineRefused as refusal:
            if refusal.code != "access_denied":
                raise
            # a token without Vault's default policy cannot ask; that it may do this is enough
            self._session.fetch(f"sys/internal/ui/mounts/{mount}", seconds=seconds)
            return
        if not all(isinstance(given.get(path), list) for path in needs):
            raise unreadable(self._session.access)
        missing = [
            f"{', '.join(sorted(wants - set(given[path])))} on {path}"
            for path, wants in needs.items()
            if "root" not in given[path] and not wants <= set(given[path])
        ]
        if missing:
            raise EngineRefused(
                f"{self._session.access.who}: the AppRole's policy lacks {'; '.join(missing)};"
                " write it as the how-to page on Vault shows",
                code="access_denied",
            )

    def close(self) -> None:
        self._session.close()

    def _supported(self) -> Mapping[KeyAlgorithm, Sequence[int]]:
        return keys_in_memory.SUPPORTED if isinstance(self._keys, KvKeys) else transit.SUPPORTED

    def _opened(self) -> KvKeys | TransitKeys:
        """The keys; what the mount is, is asked once."""
        keys = self._keys
        if keys is not None:
            return keys
        try:
            kind = find_mount(self._session)
        except VaultAnswer as answer:
            raise failing(self._session.access, answer) from None
        with self._lock:
            if self._keys is None:
                if kind is MountKind.KV:
                    self._keys = KvKeys(self._session, installation=self._installation)
                    # what an engine can do is told by its class, and this one can do more
                    self.__class__ = KvVaultEngine
                else:
                    self._keys = TransitKeys(self._session, installation=self._installation)
            return self._keys


class KvVaultEngine(VaultEngine):
    """What a `VaultEngine` becomes on a KV v2 mount: one that also gives keys out."""

    def take_out(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        """The private key itself; it stays in Vault too."""
        return self.private_key(key_id, purpose=purpose)
