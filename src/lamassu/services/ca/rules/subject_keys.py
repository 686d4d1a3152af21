"""The key that a certificate made by the platform is to have: a new one, or one that is here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lamassu.kernel.errors import Forbidden, NotFound, RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import Json
from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract import IssuanceProfile
from lamassu.services.kms.contract import Engine, Key, KeyAlgorithm, KeyPurpose, KeySpec


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """`algorithm` and `size` (bits) of a key to make, in `engine_id` or the default engine; or
    `identifier` (id, alias, PKCS #11 URI) of a key of the KMS."""

    algorithm: str = ""
    size: int = 0
    engine_id: str = ""
    identifier: str = ""


@dataclass(frozen=True, slots=True)
class CertificateOrder:
    """A certificate for a key of the platform's."""

    ca_id: str
    key: SubjectKey
    subject: Subject
    caller: Caller
    profile: IssuanceProfile | None = None
    profile_id: str | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)


def check_key_source(key: SubjectKey) -> None:
    """Raises `RuleViolation` (`invalid_key_spec`), in the text that the Go SDK compares."""
    if bool(key.algorithm and key.size) == bool(key.identifier):
        raise RuleViolation(
            "invalid key spec: exactly one of (Type+Bits) or KeyIdentifier must be provided",
            code="invalid_key_spec",
            field="key_spec",
        )


def spec_of(key: SubjectKey, engines: Sequence[Engine]) -> KeySpec:
    """The key to make, if the chosen engine can make it.

    Raises `RuleViolation` (`engine_unknown`, `key_not_supported`).
    """
    wanted = key.engine_id
    engine = next((e for e in engines if e.id == wanted or (not wanted and e.default)), None)
    if engine is None:
        raise RuleViolation(
            f"there is no crypto engine {wanted[:64]!r}; "
            f"known are {', '.join(e.id for e in engines) or 'none'}",
            code="engine_unknown",
            field="key_spec.engine_id",
        )
    algorithm = next((a for a in KeyAlgorithm if a.value == key.algorithm), None)
    if algorithm is None or key.size not in engine.supported.get(algorithm, ()):
        kinds = "; ".join(
            f"{a} {', '.join(map(str, sizes))}" for a, sizes in engine.supported.items() if sizes
        )
        raise RuleViolation(
            f"the engine {engine.id} makes no such key; it makes {kinds}",
            code="key_not_supported",
            field="key_spec",
        )
    return KeySpec(algorithm, key.size)


def check_named_key(key: Key | None) -> Key:
    """Security rule 9: none of a CA or of the platform, nor one that has signed for a caller,
    who could have had it sign anything beforehand.

    Raises `NotFound`, also for what nobody is to know of, and `Forbidden` (`key_not_usable`).
    """
    if key is None or key.purpose not in (KeyPurpose.CA, KeyPurpose.GENERAL):
        raise NotFound("key not found", code="key_not_found", field="key_spec.key_identifier")
    if key.purpose is KeyPurpose.CA:
        fault = "the key is a CA's, and is that CA's alone"
    elif key.has_signed:
        fault = "the key has signed messages of callers by the KMS's API; certify a new one"
    else:
        return key
    raise Forbidden(fault, code="key_not_usable", field="key_spec.key_identifier")
