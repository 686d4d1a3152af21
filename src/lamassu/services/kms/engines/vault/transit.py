"""Keys of Transit, which never leave Vault.

A key's id is known only once it is made, and Transit renames nothing and keeps no notes. So a
name is drawn (`lamassu-<installation>-<purpose>-<random>`), and which name holds which key is
learnt from Vault itself: each key's public half says its id. A crash at any point leaves a key
that is found all the same, and our database is not needed for it. What was learnt is kept in
memory; names do not change, so that only new ones are read again.
"""

from __future__ import annotations

import base64
import re
import secrets
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import hvac
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from lamassu.kernel.errors import RuleViolation, Unavailable
from lamassu.kernel.x509.keys import key_facts
from lamassu.kernel.x509.keys import key_id as key_id_of
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec
from lamassu.services.kms.engines.keys_in_memory import public_key_of
from lamassu.services.kms.engines.stand_in import stand_in
from lamassu.services.kms.engines.vault.errors import VaultAnswer, timed_out, unreadable
from lamassu.services.kms.engines.vault.session import VaultSession
from lamassu.services.kms.model import MadeKey, Padding, PrivateKey, SignatureScheme
from lamassu.services.kms.ports import EngineDown

TYPES: Mapping[KeySpec, str] = {
    **{KeySpec(KeyAlgorithm.RSA, size): f"rsa-{size}" for size in (2048, 3072, 4096)},
    **{KeySpec(KeyAlgorithm.ECDSA, size): f"ecdsa-p{size}" for size in (256, 384, 521)},
    KeySpec(KeyAlgorithm.ED25519, 256): "ed25519",
}
SUPPORTED: Mapping[KeyAlgorithm, Sequence[int]] = {
    algorithm: tuple(spec.size for spec in TYPES if spec.algorithm is algorithm)
    for algorithm in (KeyAlgorithm.RSA, KeyAlgorithm.ECDSA, KeyAlgorithm.ED25519)
}
READ_AT_ONCE = 8
READ_IN_A_ROW = 2000  # keys whose public halves are read before others have their turn

_KEY_ID = re.compile(r"[0-9a-f]{64}")
_OUR_NAME = re.compile(r"lamassu-(?:[0-9a-f]{16}-)?([a-z]+)-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class TransitKey:
    """Where a key is: Transit keeps several versions under one name when somebody rotates it."""

    name: str
    version: int
    public_key: bytes  # SubjectPublicKeyInfo, DER

    @property
    def key_id(self) -> str:
        """As everywhere."""
        return key_id_of(self.public_key)

    def check_purpose(self, purpose: KeyPurpose) -> None:
        """Refuse a key that was made for something else; a name that is not ours passes."""
        ours = _OUR_NAME.fullmatch(self.name)
        if ours is not None and ours[1] != purpose.value:
            raise Unavailable(
                f"key {self.key_id} was made in Vault for the purpose {ours[1]} ({self.name}) and"
                f" is used for {purpose.value}; name the database that belongs to it",
                code="key_damaged",
            )


class TransitKeys:
    """The keys of one Transit mount."""

    def __init__(self, session: VaultSession, *, installation: str) -> None:
        self._session = session
        self._mount = session.access.mount_path
        self._prefix = f"lamassu-{installation}-" if installation else "lamassu-"
        self._lock = threading.Lock()
        self._searching = threading.Lock()  # one thread reads what is new, for all
        self._keys: dict[str, TransitKey] = {}
        self._names: set[str] = set()  # whose public halves were read

    needs: Mapping[str, frozenset[str]] = {
        f"keys/{'lamassu-check'}": frozenset({"update", "read"}),
        "keys": frozenset({"list"}),
        f"sign/{'lamassu-check'}": frozenset({"update"}),
    }

    def generate(self, spec: KeySpec, *, purpose: KeyPurpose, seconds: float) -> MadeKey:
        if spec not in TYPES:
            raise _cannot_make(spec)
        name = f"{self._prefix}{purpose.value}-{secrets.token_hex(16)}"

        def make(client: hvac.Client) -> None:
            client.secrets.transit.create_key(
                name=name,
                key_type=TYPES[spec],
                exportable=False,
                allow_plaintext_backup=False,
                mount_point=self._mount,
            )

        self._session.ask(make, seconds=seconds)
        read = self._read(name)
        if not read:
            raise unreadable(self._session.access)
        key = read[-1]
        facts = key_facts(key.public_key)
        if (facts.algorithm, facts.size) != (spec.algorithm.value, spec.size):
            raise _cannot_make(spec)
        return MadeKey(key.key_id, key.public_key)

    def take_in(self, key: PrivateKey, *, purpose: KeyPurpose, seconds: float) -> MadeKey:
        """The key is wrapped for this Vault alone. Raises `RuleViolation` (`unsupported_key`)."""
        public_key = public_key_of(key)
        made = MadeKey(key_id_of(public_key), public_key)
        facts = key_facts(public_key)
        spec = next((one for one in TYPES if _is(one, facts.algorithm, facts.size)), None)
        if spec is None:
            raise _cannot_make(KeySpec(KeyAlgorithm(facts.algorithm), facts.size))
        there = self._find(made.key_id)
        if there is not None:
            there.check_purpose(purpose)
            return made
        # named by what it is, so that whoever repeats this does not make a second one
        name = f"{self._prefix}{purpose.value}-{made.key_id[:32]}"
        try:
            self._import(name, TYPES[spec], key, seconds=seconds)
        except EngineDown as error:
            # Vault answers 500 to an import of a name that is there
            if error.code != "engine_failing" or not self._is_at(name, made.key_id):
                raise
        self._read(name)
        return made

    def private_key(self, key_id: str, *, purpose: KeyPurpose) -> PrivateKey:
        key = self._get(key_id)
        key.check_purpose(purpose)
        return stand_in(key.public_key, _Signer(self, key))

    def delete(self, key_id: str) -> None:
        key = self._find(key_id)
        if key is None:
            return

        def destroy(client: hvac.Client) -> None:
            transit = client.secrets.transit
            transit.update_key_configuration(
                name=key.name, deletion_allowed=True, mount_point=self._mount
            )
            transit.delete_key(name=key.name, mount_point=self._mount)

        try:
            self._session.ask(destroy)
        except VaultAnswer as refusal:
            if not refusal.says("no existing key", "not found", "could not delete key"):
                raise
        self.forget(key)

    def sign(self, key: TransitKey, **what: Any) -> bytes:
        """Ask for a signature. Raises `Unavailable` (`key_lost`) where the key is gone."""
        try:
            data = self._session.data(
                lambda client: client.secrets.transit.sign_data(
                    name=key.name, key_version=key.version, mount_point=self._mount, **what
                )
            )
        except VaultAnswer as refusal:
            self.forget(key)
            if refusal.status == 404 or refusal.says("not found", "key version"):
                raise _lost(key.key_id, self._mount) from None
            raise
        try:
            return base64.b64decode(str(data["signature"]).rpartition(":")[2], validate=True)
        except (KeyError, ValueError):
            raise unreadable(self._session.access) from None

    def forget(self, key: TransitKey) -> None:
        """Look it up again before it is used again."""
        with self._lock:
            self._names.discard(key.name)
            self._keys = {key_id: one for key_id, one in self._keys.items() if one.name != key.name}

    def _get(self, key_id: str) -> TransitKey:
        key = self._keys.get(key_id) or self._find(key_id)
        if key is None:
            raise _lost(key_id, self._mount)
        return key

    def _find(self, key_id: str) -> TransitKey | None:
        """Among all the mount's keys; those that are known are not read again."""
        if not _KEY_ID.fullmatch(key_id):
            return None
        if not self._searching.acquire(timeout=self._session.seconds):
            raise timed_out(self._session.access)
        try:
            return self._keys.get(key_id) or self._search(key_id)
        finally:
            self._searching.release()

    def _search(self, key_id: str) -> TransitKey | None:
        try:
            data = self._session.data(
                lambda client: client.secrets.transit.list_keys(mount_point=self._mount)
            )
        except VaultAnswer as refusal:
            if refusal.status != 404:
                raise
            return None
        unread = [str(name) for name in data.get("keys") or () if name not in self._names]
        # ours first: others' keys may share the mount
        unread.sort(key=lambda name: not name.startswith(self._prefix))
        with ThreadPoolExecutor(max_workers=READ_AT_ONCE) as readers:
            for _ in readers.map(self._read, unread[:READ_IN_A_ROW]):
                pass
        if key_id not in self._keys and len(unread) > READ_IN_A_ROW:
            raise Unavailable(
                f"{self._session.access.who}: the keys of {self._mount} are still being read; try"
                " again shortly",
                code="engine_reading",
                retry_after=1,
            )
        return self._keys.get(key_id)

    def _read(self, name: str) -> Sequence[TransitKey]:
        try:
            data = self._session.fetch(f"{self._mount}/keys/{name}")
        except VaultAnswer as refusal:
            if refusal.status != 404:
                raise
            return ()
        keys = versions_of(name, data)
        with self._lock:
            self._names.add(name)
            for key in keys:
                self._keys[key.key_id] = key
        return keys

    def _is_at(self, name: str, key_id: str) -> bool:
        return any(key.key_id == key_id for key in self._read(name))

    def _import(self, name: str, kind: str, key: PrivateKey, *, seconds: float) -> None:
        # the first one makes it, an RSA key of 4096 bits
        data = self._session.fetch(f"{self._mount}/wrapping_key", seconds=seconds)
        try:
            wrapping = load_pem_public_key(str(data.get("public_key")).encode())
        except ValueError:
            raise unreadable(self._session.access) from None
        if not isinstance(wrapping, rsa.RSAPublicKey):
            raise unreadable(self._session.access)
        once = secrets.token_bytes(32)
        mask = padding.MGF1(hashes.SHA256())
        ciphertext = wrapping.encrypt(
            once, padding.OAEP(mask, hashes.SHA256(), None)
        ) + aes_key_wrap_with_padding(
            once, key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        )
        content = {
            "ciphertext": base64.b64encode(ciphertext).decode(),
            "hash_function": "SHA256",
            "type": kind,
            "exportable": False,
            "allow_plaintext_backup": False,
            "allow_rotation": False,
        }
        path = f"/v1/{self._mount}/keys/{name}/import"
        self._session.ask(lambda client: client.adapter.post(path, json=content), seconds=seconds)


class _Signer:
    """`RemoteSigner` for one key."""

    def __init__(self, keys: TransitKeys, key: TransitKey) -> None:
        self._keys = keys
        self._key = key

    def sign_digest(self, digest: bytes, scheme: SignatureScheme) -> bytes:
        more = {}
        if scheme.padding is Padding.PSS:
            more = {"signature_algorithm": "pss", "salt_length": "hash"}
        elif scheme.padding is Padding.PKCS1_V1_5:
            more = {"signature_algorithm": "pkcs1v15"}
        else:
            more = {"marshaling_algorithm": "asn1"}
        return self._keys.sign(
            self._key,
            hash_input=base64.b64encode(digest).decode(),
            hash_algorithm=f"sha2-{len(digest) * 8}",
            prehashed=True,
            **more,
        )

    def sign_message(self, message: bytes, scheme: SignatureScheme) -> bytes:
        return self._keys.sign(self._key, hash_input=base64.b64encode(message).decode())


def versions_of(name: str, data: Mapping[str, Any]) -> Sequence[TransitKey]:
    """Every version of an asymmetric key; none of a symmetric one."""
    found = []
    versions = data.get("keys")
    for version, facts in versions.items() if isinstance(versions, dict) else ():
        public = facts.get("public_key") if isinstance(facts, dict) else None
        spki = _spki(public, data.get("type")) if public else None
        if spki is not None:
            found.append(TransitKey(name, int(version), spki))
    return sorted(found, key=lambda key: key.version)


def _spki(public: str, kind: object) -> bytes | None:
    """Transit shows Ed25519 as its 32 bytes in base64, the others as PEM."""
    try:
        key = (
            ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(public))
            if kind == "ed25519"
            else load_pem_public_key(public.encode())
        )
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _is(spec: KeySpec, algorithm: str, size: int) -> bool:
    return spec.algorithm.value == algorithm and (
        spec.size == size or spec.algorithm is KeyAlgorithm.ED25519
    )


def _cannot_make(spec: KeySpec) -> RuleViolation:
    return RuleViolation(
        f"Transit of this Vault keeps no {spec.algorithm} keys of {spec.size} bits",
        code="unsupported_key",
        field="size",
    )


def _lost(key_id: str, mount: str) -> Unavailable:
    return Unavailable(
        f"Transit has no key {key_id} in {mount}; restore Vault from a backup, or name the engine"
        " that holds the key",
        code="key_lost",
    )
