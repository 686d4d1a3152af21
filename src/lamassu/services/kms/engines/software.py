"""The software engine: keys in an encrypted directory, used in this process.

Measured on one core (`cryptography` 50): a P-256 signature takes 21 µs, Ed25519 40 µs, P-384
130 µs, P-521 250 µs, RSA-2048 260 µs, RSA-4096 2 ms, and the hop to a thread and back 100 µs of
the loop's own time. So elliptic curves sign on the event loop, which a hop would keep as busy;
RSA and ML-DSA go to the pool, where they run on every core, as OpenSSL frees the GIL.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from lamassu.kernel.errors import LamassuError, Unavailable
from lamassu.kernel.records import Json
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.contract import Engine, KeyPurpose, KeySpec
from lamassu.services.kms.engines.clear_keys import (
    Sealing,
    refuse_clear_keys,
    seal_clear_keys,
)
from lamassu.services.kms.engines.keys_in_memory import (
    KEYS_IN_MEMORY,
    SUPPORTED,
    OpenedKeys,
    generate_key,
    public_key_of,
    signs_inline,
)
from lamassu.services.kms.engines.keystore import Keystore, ScryptCost, UnclaimedKey
from lamassu.services.kms.model import FoundKey, MadeKey, PrivateKey
from lamassu.services.kms.ports import EngineDown, EngineLimits
from lamassu.services.kms.usecases.private_keys import spec_of


class SoftwareEngine:
    """A `CryptoEngine` over a `Keystore`. Opened keys stay in memory, the newest used ones."""

    def __init__(
        self,
        engine_id: str,
        keystore: Keystore,
        *,
        metadata: Mapping[str, Json] | None = None,
        keeps_names: bool = True,
    ) -> None:
        """`keeps_names`: what files in clear were called is told with their keys."""
        # as many threads as processors: OpenSSL frees the GIL while it signs
        self.limits = EngineLimits(workers=os.cpu_count() or 1)
        self._id = engine_id
        self._keystore = keystore
        self._metadata = dict(metadata or {})
        self._keeps_names = keeps_names
        self._opened = OpenedKeys(KEYS_IN_MEMORY)

    @classmethod
    def open(
        cls,
        engine_id: str,
        directory: Path,
        secret: bytes,
        *,
        metadata: Mapping[str, Json] | None = None,
        cost: ScryptCost | None = None,
        keeps_names: bool = True,
    ) -> SoftwareEngine:
        """Open the keystore in `directory` (made if absent). Blocks: the key derivation is slow
        by design. Raises as `Keystore.open`.
        """
        keystore = Keystore.open(directory, secret, cost=cost)
        return cls(engine_id, keystore, metadata=metadata, keeps_names=keeps_names)

    def facts(self) -> Engine:
        return Engine(
            id=self._id,
            type="GOLANG",  # the wire's word for keys in software; clients match it
            provider="Lamassu",
            name="Software keystore",
            security_level=0,
            default=False,
            supported=SUPPORTED,
            metadata=self._metadata,
            for_ca_keys=False,
        )

    def generate(self, spec: KeySpec, *, purpose: KeyPurpose) -> MadeKey:
        return self.take_in(generate_key(spec), purpose=purpose)

    def take_in(self, key: PrivateKey, *, purpose: KeyPurpose) -> MadeKey:
        public_key = public_key_of(key)
        made = MadeKey(key_id_of(public_key), public_key)
        try:
            self._keystore.write(made.key_id, purpose, key)
        except OSError as error:
            raise self._unusable(error.strerror or "it cannot be written") from error
        self._opened.put(made.key_id, purpose, key)
        return made

    def take_out(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        return self.private_key(key_id, purpose=purpose)

    def private_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        key = self._opened.get(key_id, purpose)
        if key is None:
            try:
                key = self._keystore.read(key_id, purpose)
            except Unavailable as error:
                if error.code == "key_lost":
                    self.check()  # with the whole directory gone no single key is lost
                raise
            self._opened.put(key_id, purpose, key)
        return key

    def inline_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey | None:
        key = self._opened.get(key_id, purpose)
        return key if key is not None and signs_inline(key) else None

    def delete(self, key_id: str) -> None:
        self._opened.forget(key_id)
        self._keystore.remove(key_id)

    def key_ids(self, *, made_before: datetime) -> Sequence[str]:
        return [file.key_id for file in self._keystore.files() if file.modified_at < made_before]

    def set_aside(self, key_id: str) -> None:
        self._opened.forget(key_id)
        self._keystore.set_aside(key_id)

    def seal_clear_keys(self) -> Sealing:
        """Encrypt what lies in clear in the directory, as an earlier installation left it."""
        return seal_clear_keys(self._keystore.directory, self._keystore)

    def refuse_clear_keys(self) -> None:
        """The same in production: raises `RuleViolation` (`clear_keys_refused`)."""
        refuse_clear_keys(self._keystore.directory)

    def unclaimed_keys(self) -> Sequence[FoundKey]:
        found = map(self._keystore.read_unclaimed, self._keystore.unclaimed_ids())
        return [self._found(one) for one in found if one is not None]

    def claim(self, key_id: str, *, purpose: KeyPurpose) -> None:
        self._keystore.claim(key_id, purpose)

    def _found(self, unclaimed: UnclaimedKey) -> FoundKey:
        key = unclaimed.private_key
        named = self._keeps_names and unclaimed.name != unclaimed.key_id
        name = unclaimed.name if named else ""
        return FoundKey(unclaimed.key_id, public_key_of(key), spec_of(key), name)

    def check(self) -> None:
        try:
            self._keystore.check()
        except OSError as error:
            raise self._unusable(error.strerror or "it cannot be read") from error
        except LamassuError as error:
            raise self._unusable(error.text) from error

    def _unusable(self, why: str) -> EngineDown:
        return EngineDown(
            f"the keystore of engine {self._id} cannot be used: {why}; look at its directory,"
            " or restore it from a backup",
            code="keystore_unusable",
        )

    def close(self) -> None:
        self._opened.clear()
