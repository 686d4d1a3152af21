"""Private keys as secrets of KV v2, as the original keeps them: each of the two reads what the
other wrote.

The secret is named by the key id and has one field, `key`: base64 of PEM PKCS #8. What we add
stands in its metadata, which the original does not look at. Vault is asked for each use, so that
a sealed Vault and a revoked token end it at once; what was read and made of a secret stays in
memory, as that costs an RSA key half of the time of its signature.
"""

from __future__ import annotations

import base64
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, cast, get_args

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from lamassu.kernel.errors import Unavailable
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.contract import KeyPurpose, KeySpec
from lamassu.services.kms.engines.keys_in_memory import (
    KEYS_IN_MEMORY,
    generate_key,
    public_key_of,
)
from lamassu.services.kms.engines.vault.errors import VaultAnswer
from lamassu.services.kms.engines.vault.session import VaultSession
from lamassu.services.kms.model import MadeKey, PrivateKey
from lamassu.services.kms.ports import EngineRefused

FIELD = "key"
INSTALLATION = "lamassu_installation"
PURPOSE = "lamassu_purpose"
ORPHAN = "lamassu_orphan"  # since when; a key that no row knew at a start

_KEY_ID = re.compile(r"[0-9a-f]{64}")


class KvKeys:
    """The keys of one KV v2 mount."""

    def __init__(self, session: VaultSession, *, installation: str) -> None:
        self._session = session
        self._mount = session.access.mount_path
        self._installation = installation
        self._read = _ReadKeys()

    needs: Mapping[str, frozenset[str]] = {
        f"data/{'0' * 64}": frozenset({"create", "read"}),
    }

    def generate(self, spec: KeySpec, *, purpose: KeyPurpose, seconds: float) -> MadeKey:
        return self.take_in(generate_key(spec), purpose=purpose)

    def take_in(self, key: PrivateKey, *, purpose: KeyPurpose) -> MadeKey:
        public_key = public_key_of(key)
        made = MadeKey(key_id_of(public_key), public_key)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        secret = {FIELD: base64.b64encode(pem).decode()}
        if not self._write(made.key_id, secret, after=0):
            self._keep_or_restore(made.key_id, secret, purpose)
        self._mark(made.key_id, {INSTALLATION: self._installation, PURPOSE: purpose.value})
        return made

    def private_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        if not _KEY_ID.fullmatch(key_id):
            raise _lost(key_id, self._mount)
        try:
            data = self._session.fetch(f"{self._mount}/data/{key_id}")
        except VaultAnswer as refusal:
            if refusal.status != 404:
                raise
            raise _lost(key_id, self._mount) from None
        marks = _marks(data.get("metadata"))
        _check_mark(key_id, marks, purpose)
        key = self._read.key_of(key_id, data.get("data"))
        if key is None:
            raise Unavailable(
                f"the secret {self._mount}/{key_id} in Vault does not hold the key that it is named"
                " by; restore an earlier version: vault kv rollback",
                code="key_damaged",
            )
        if ORPHAN in marks:
            self._mark(key_id, {name: marks[name] for name in marks if name != ORPHAN})
        return key

    def delete(self, key_id: str) -> None:
        """All versions, for good: the original only marks the last one as deleted."""
        if not _KEY_ID.fullmatch(key_id):
            return
        self._read.forget(key_id)
        with suppress_missing():
            self._session.ask(
                lambda client: client.secrets.kv.v2.delete_metadata_and_all_versions(
                    path=key_id, mount_point=self._mount
                )
            )

    def key_ids(self, *, made_before: datetime, within: float) -> Sequence[str]:
        """Of our own marking only: others' keys are theirs, the original's too."""
        if not self._installation:
            return ()
        until = datetime.now(UTC).timestamp() + within
        found = []
        for key_id in self._names():
            if datetime.now(UTC).timestamp() > until:
                break  # the others wait for another start
            metadata = self._metadata(key_id)
            marks = _marks(metadata)
            ours = marks.get(INSTALLATION) == self._installation and ORPHAN not in marks
            if ours and _made_at(metadata) < made_before:
                found.append(key_id)
        return found

    def set_aside(self, key_id: str) -> None:
        """Marked, for people to judge; the mark goes when the key is used after all."""
        marks = _marks(self._metadata(key_id))
        if marks:
            self._mark(key_id, {**marks, ORPHAN: datetime.now(UTC).isoformat(timespec="seconds")})

    def _names(self) -> Sequence[str]:
        try:
            data = self._session.data(
                lambda client: client.secrets.kv.v2.list_secrets(path="", mount_point=self._mount)
            )
        except VaultAnswer as refusal:
            if refusal.status != 404:
                raise
            return ()
        return [str(name) for name in data.get("keys") or () if _KEY_ID.fullmatch(str(name))]

    def _metadata(self, key_id: str) -> Mapping[str, Any]:
        try:
            return self._session.fetch(f"{self._mount}/metadata/{key_id}")
        except VaultAnswer as refusal:
            if refusal.status != 404:
                raise
            return {}

    def _write(self, key_id: str, secret: Mapping[str, str], *, after: int) -> bool:
        """False where a version later than `after` is there."""
        try:
            self._session.ask(
                lambda client: client.secrets.kv.v2.create_or_update_secret(
                    path=key_id, secret=dict(secret), cas=after, mount_point=self._mount
                )
            )
        except VaultAnswer as refusal:
            if refusal.says("check-and-set"):
                return False
            raise
        return True

    def _keep_or_restore(self, key_id: str, secret: Mapping[str, str], purpose: KeyPurpose) -> None:
        """A key that is there stays; over one that was deleted, it is written again."""
        try:
            self.private_key(key_id, purpose=purpose)
        except Unavailable as error:
            if error.code != "key_lost":
                raise
            latest = int(self._metadata(key_id).get("current_version") or 0)
            if not self._write(key_id, secret, after=latest):
                self.private_key(key_id, purpose=purpose)  # somebody was faster

    def _mark(self, key_id: str, marks: Mapping[str, str]) -> None:
        """For people and the sweep; a policy that does not allow it takes nothing else away."""
        with suppress(EngineRefused, VaultAnswer):
            self._session.ask(
                lambda client: client.secrets.kv.v2.update_metadata(
                    path=key_id,
                    custom_metadata={name: value for name, value in marks.items() if value},
                    mount_point=self._mount,
                )
            )


def _made_at(metadata: Mapping[str, Any]) -> datetime:
    """Never, as it were, where it does not say: such a key is nobody's orphan."""
    try:
        return datetime.fromisoformat(metadata["created_time"])
    except (KeyError, TypeError, ValueError):
        return datetime.max.replace(tzinfo=UTC)


class _ReadKeys:
    """What was made of secrets, the newest used; good for as long as Vault shows the same."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, tuple[str, PrivateKey]] = OrderedDict()
        self._lock = threading.Lock()

    def key_of(self, key_id: str, secret: object) -> PrivateKey | None:
        """The key of this id in a secret; `None` where it is not there."""
        text = secret.get(FIELD) if isinstance(secret, dict) else None
        if not isinstance(text, str):
            return None
        with self._lock:
            kept = self._keys.get(key_id)
            if kept is not None and kept[0] == text:
                self._keys.move_to_end(key_id)
                return kept[1]
        key = _key_in(text)
        if key is None or key_id_of(public_key_of(key)) != key_id:
            return None
        with self._lock:
            self._keys[key_id] = (text, key)
            while len(self._keys) > KEYS_IN_MEMORY:
                self._keys.popitem(last=False)
        return key

    def forget(self, key_id: str) -> None:
        with self._lock:
            self._keys.pop(key_id, None)


class suppress_missing(suppress):  # noqa: N801 - as `suppress` itself
    """Pass over a 404."""

    def __init__(self) -> None:
        super().__init__(VaultAnswer)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        return isinstance(error, VaultAnswer) and error.status == 404


def _marks(metadata: object) -> dict[str, str]:
    marks = metadata.get("custom_metadata") if isinstance(metadata, dict) else None
    return dict(marks) if isinstance(marks, dict) else {}


def _check_mark(key_id: str, marks: Mapping[str, str], purpose: KeyPurpose) -> None:
    marked = marks.get(PURPOSE, purpose.value)
    if marked != purpose.value:
        raise Unavailable(
            f"key {key_id} is marked in Vault for the purpose {marked} and used for"
            f" {purpose.value}; name the database that belongs to it, or correct the secret's"
            f" metadata {PURPOSE}",
            code="key_damaged",
        )


def _key_in(text: str) -> PrivateKey | None:
    """The key in a secret's field. PKCS #1 and SEC 1 are read too, as by the original."""
    try:
        # that it is the key it is named by is judged by its public half, so that the costly
        # primality checks buy nothing
        key = load_pem_private_key(
            base64.b64decode(text, validate=True), None, unsafe_skip_rsa_key_validation=True
        )
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return cast("PrivateKey", key) if isinstance(key, get_args(PrivateKey)) else None


def _lost(key_id: str, mount: str) -> Unavailable:
    return Unavailable(
        f"Vault has no secret {key_id} in {mount}, or it is deleted (vault kv undelete); name the"
        " engine that holds the key",
        code="key_lost",
    )
