"""What other slices may know of the KMS: keys live in crypto engines and never come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from lamassu.kernel.identity import Caller
from lamassu.kernel.records import Json

T = TypeVar("T")


class KeyPurpose(StrEnum):
    """Fixed when a key is made; each key has exactly one (security rule 8)."""

    CA = "ca"
    RESPONDER = "responder"
    PLATFORM = "platform"
    GENERAL = "general"


class KeyAlgorithm(StrEnum):
    """As the wire spells them."""

    RSA = "RSA"
    ECDSA = "ECDSA"
    ED25519 = "Ed25519"
    ML_DSA = "ML-DSA"


class KeyOrigin(StrEnum):
    """Where the private key was before it was here."""

    GENERATED = "generated"  # nowhere: its engine made it
    IMPORTED = "imported"  # a caller of the API sent it
    ADOPTED = "adopted"  # in its engine, unknown to the KMS, until an operator took it over


class MessageType(StrEnum):
    """`raw`: the engine side hashes; `hash`: the message is the digest."""

    RAW = "raw"
    HASH = "hash"


@dataclass(frozen=True, slots=True)
class KeySpec:
    """`size` in bits: RSA modulus or curve (256, 384, 521; Ed25519: 256). For ML-DSA it is the
    parameter set of FIPS 204: 44, 65 or 87."""

    algorithm: KeyAlgorithm
    size: int


@dataclass(frozen=True, slots=True)
class Binding:
    """A thing that needs a key, so that the key cannot be deleted: ("certificate", serial)."""

    resource_type: str
    resource_id: str


@dataclass(frozen=True, slots=True)
class Key:
    """A key as the KMS knows it; `key_id` is the lower-case hex SHA-256 of its SPKI DER."""

    key_id: str
    name: str
    engine_id: str
    spec: KeySpec
    purpose: KeyPurpose
    public_key: bytes  # SubjectPublicKeyInfo, DER
    created_at: datetime
    aliases: Sequence[str] = ()
    tags: Sequence[str] = ()
    metadata: Mapping[str, Json] = field(default_factory=dict)
    has_signed: bool = False  # a caller of the API ever had it sign (security rule 9)
    origin: KeyOrigin = KeyOrigin.GENERATED
    bindings: Sequence[Binding] = ()
    version: int = 0


class MoveStep(StrEnum):
    """How far a move has come: judged only; the copy is being made; the copy is in use."""

    PLANNED = "PLANNED"
    COPYING = "COPYING"
    SWITCHED = "SWITCHED"


@dataclass(frozen=True, slots=True)
class KeyMove:
    """A key on its way from one engine to another."""

    key_id: str
    source: str
    target: str
    step: MoveStep
    begun_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """A crypto engine and what it can make; `supported` maps an algorithm to its sizes.

    `for_ca_keys` is false where production makes no CA key (decisions of the security guide's
    table: software and Secrets Manager).
    """

    id: str
    type: str
    provider: str
    name: str
    security_level: int
    default: bool
    supported: Mapping[KeyAlgorithm, Sequence[int]]
    metadata: Mapping[str, Json] = field(default_factory=dict)
    for_ca_keys: bool = True


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """`problem` is empty when the engine can be used; else why not and what to do, for people,
    and `code` says the same for programs. `misconfigured`: waiting will not help."""

    engine_id: str
    default: bool
    problem: str = ""
    code: str = ""
    misconfigured: bool = False

    @property
    def healthy(self) -> bool:
        """Whether it can be used now."""
        return not self.problem


class Keys(Protocol):
    """Keys for the platform's own slices; the public API is in `http.py`."""

    async def engines(self) -> Sequence[Engine]:
        """Every configured engine, the default one marked, in configured order."""
        ...

    async def generate(
        self,
        spec: KeySpec,
        *,
        purpose: KeyPurpose,
        name: str,
        caller: Caller,
        engine_id: str | None = None,
    ) -> Key:
        """Make a key in an engine (the default one if none is named).

        Raises `RuleViolation` for an unknown engine, a spec that it cannot make, or (in
        production) a CA key in an engine that is not for those (`engine_not_for_ca_keys`),
        before anything is written.
        """
        ...

    async def take_in(
        self,
        private_key: bytes,
        *,
        public_key: bytes,
        purpose: KeyPurpose,
        name: str,
        caller: Caller,
    ) -> Key:
        """Keep a private key made elsewhere (PKCS #8, PKCS #1 or SEC 1; PEM or DER, not
        encrypted) in the default engine, or in the first that may hold it.

        `public_key` is the SubjectPublicKeyInfo (DER, as the library writes it) that it must
        have. A key of this purpose that is here, needed by nothing, and never signed for a
        caller is returned as it is. Raises `Malformed`, `RuleViolation` (`key_mismatch`,
        `weak_key`, `no_engine_for_key`) and `Conflict` (`key_exists`) before anything is written.
        """
        ...

    async def get(self, key_id: str, *, purpose: KeyPurpose) -> Key:
        """The key of this id. Raises `NotFound`, also when its purpose is another."""
        ...

    async def find(self, identifier: str) -> Key | None:
        """The key that an API caller names: by id, alias or PKCS#11 URI, whatever its purpose.

        Whoever takes a key named so must judge `purpose` and `has_signed` (security rule 9).
        Raises `Malformed` (`bad_key_uri`).
        """
        ...

    async def find_unused(
        self, name: str, spec: KeySpec, *, purpose: KeyPurpose, engine_id: str
    ) -> Key | None:
        """A key of this kind in this engine that was made under this name, that nothing is bound
        to and that never signed for a caller: one that was made before a crash. Raises
        `RuleViolation` (`engine_not_for_ca_keys`) as `generate`."""
        ...

    async def find_by_public_key(self, spki: bytes) -> Key | None:
        """The key with this SubjectPublicKeyInfo (DER), whatever its purpose."""
        ...

    async def use(
        self,
        key_id: str,
        build: Callable[[CertificateIssuerPrivateKeyTypes], T],
        *,
        purpose: KeyPurpose,
    ) -> T:
        """Run `build` with the private key, in the engine's own bounded pool (a P-256 key in
        software signs at once on the event loop: a thread would cost more than the signature).

        What `build` is given signs like a `cryptography` private key, wherever the key lives,
        so that a certificate, CRL or OCSP builder can be handed it. `build` must do nothing
        but sign. Raises `NotFound` for an unknown key or another purpose, `Unavailable` when
        the engine does not answer.
        """
        ...

    async def sign_for_ca(
        self,
        key_id: str,
        *,
        algorithm: str,
        message: bytes,
        message_type: MessageType,
        caller: Caller | None = None,
    ) -> bytes:
        """Sign an API caller's message with a CA's key, under rule 8.

        Only `raw` messages that could not be a to-be-signed structure; `Forbidden` otherwise.
        `algorithm` is a wire name such as `ECDSA_SHA_256`. Signing and refusal are audited, as
        `caller`'s doing (the CA's own if none is named).
        """
        ...

    async def verify(
        self,
        key_id: str,
        *,
        algorithm: str,
        message: bytes,
        message_type: MessageType,
        signature: bytes,
    ) -> bool:
        """Whether `signature` is this key's over `message`."""
        ...

    async def bind(self, key_id: str, binding: Binding, *, caller: Caller) -> None:
        """Note that something needs this key, which cannot be deleted from then on.

        Idempotent. Shown in the key's metadata (decision 11). Raises `NotFound`.
        """
        ...

    async def unbind(self, key_id: str, binding: Binding, *, caller: Caller) -> None:
        """Note that it no longer needs the key. Idempotent; unknown keys are ignored."""
        ...

    async def plan_move(self, key_id: str, engine_id: str, *, purpose: KeyPurpose) -> KeyMove:
        """What moving the key into another engine would do; nothing is changed.

        Raises `NotFound`, and `RuleViolation`, `Conflict` or `Unavailable` with what stands
        in the way.
        """
        ...

    async def move(
        self, key_id: str, engine_id: str, *, purpose: KeyPurpose, caller: Caller
    ) -> Key:
        """Move the key, or go on with a move that was cut off; it can be used all the while.

        Raises as `plan_move`. Before the switch every failure leaves it where it was.
        """
        ...

    async def discard(self, key_id: str, *, purpose: KeyPurpose, caller: Caller) -> None:
        """Delete a key that was made and not used after all. Unknown keys are ignored.

        Raises `Conflict` (`key_in_use`) for one that something needs.
        """
        ...

    async def health(self) -> Sequence[EngineHealth]:
        """How each engine is, in configured order; asked of the engines themselves."""
        ...


class KeyExport(Protocol):
    """For access alone: the internal root's key leaves the host after init in production."""

    async def export(self, key_id: str, *, passphrase: bytes, caller: Caller) -> bytes:
        """A platform key as PKCS#8 PEM, encrypted under the passphrase; audited.

        The key stays: `discard` removes it once the copy is safe. Raises `NotFound` for any
        key that is not the platform's, `RuleViolation` (`key_not_exportable`) when its engine
        gives no keys out.
        """
        ...


class PlatformKeys(Keys, KeyExport, Protocol):
    """What access needs of the KMS."""
