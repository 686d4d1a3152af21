"""What may be done with a key, and by whom. Values in, verdict out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from lamassu.kernel.errors import Conflict, Forbidden, Malformed, NotFound, RuleViolation
from lamassu.kernel.records import Json
from lamassu.kernel.x509.der import is_one_sequence_or_set
from lamassu.services.kms.contract import (
    Engine,
    Key,
    KeyMove,
    KeyPurpose,
    KeySpec,
    MessageType,
)
from lamassu.services.kms.model import SCHEMES, SignatureScheme

API_PURPOSES = (KeyPurpose.CA, KeyPurpose.GENERAL)
OWN_PURPOSES = (KeyPurpose.PLATFORM, KeyPurpose.RESPONDER)
BINDINGS_KEY = "lamassu.io/kms/binded-resources"
NAME_LENGTH_MAX = 255
ALIASES_MAX = 64
TAGS_MAX = 128
_KEY_ID = re.compile(r"[0-9a-fA-F]{64}")
_PKCS11_PARTS = frozenset({"token-id", "id", "type"})


def key_not_found() -> NotFound:
    """The one answer for a key that is absent, and for one that the caller may not know of."""
    return NotFound("key not found", code="key_not_found")


def check_visible(key: Key | None) -> Key:
    """Platform and responder keys do not exist for the API (security rule 8)."""
    if key is None or key.purpose not in API_PURPOSES:
        raise key_not_found()
    return key


def check_purpose(key: Key | None, purpose: KeyPurpose) -> Key:
    """A key answers only to the purpose that it was made for."""
    if key is None or key.purpose is not purpose:
        raise key_not_found()
    return key


def check_spec(spec: KeySpec, engine: Engine, *, field: str = "size") -> None:
    """Refuse a key that the engine cannot make or keep (`unsupported_key`)."""
    sizes = engine.supported.get(spec.algorithm, ())
    if spec.size not in sizes:
        if sizes:
            fault = f"keys of {spec.size} bits; allowed sizes: {', '.join(map(str, sizes))}"
        else:
            made = (str(name) for name, its_sizes in engine.supported.items() if its_sizes)
            fault = f"keys; it has {', '.join(made)}"
        raise RuleViolation(
            f"engine {engine.id} has no {spec.algorithm} {fault}",
            code="unsupported_key",
            field=field,
        )


def check_may_hold(purpose: KeyPurpose, engine: Engine, engines: Sequence[Engine]) -> None:
    """In production a CA's key is made where it can be kept (security rule 11).

    `engines` are all that are configured. Raises `RuleViolation` (`engine_not_for_ca_keys`).
    """
    if purpose is not KeyPurpose.CA or engine.for_ca_keys:
        return
    others = [one.id for one in engines if one.for_ca_keys]
    advice = (
        f"name one of these instead: {', '.join(others)}"
        if others
        else "configure one that would do, such as pkcs11, hashicorp_vault or aws_kms"
    )
    raise RuleViolation(
        f"in production engine {engine.id} ({engine.name}) gets no keys of CAs; {advice}",
        code="engine_not_for_ca_keys",
        field="engine_id",
    )


def parse_identifier(identifier: str) -> str:
    """A key id or alias, as it stands or taken from a PKCS#11 URI.

    The URI has the form `pkcs11:token-id=<engine>;id=<key id>;type=private|public`; only `id`
    is used, and the other two must be present. Raises `Malformed` (`bad_key_uri`).
    """
    if not identifier.startswith("pkcs11:"):
        return identifier
    parts: dict[str, str] = {}
    for part in identifier.removeprefix("pkcs11:").split(";"):
        name, equals, value = part.partition("=")
        if not equals or name in parts:
            raise _bad_uri()
        parts[name] = unquote(value)
    if not parts.keys() >= _PKCS11_PARTS or not parts["id"]:
        raise _bad_uri()
    if parts["type"] not in ("private", "public"):
        raise _bad_uri()
    return parts["id"]


def _bad_uri() -> Malformed:
    return Malformed(
        "not a PKCS#11 URI of a key: pkcs11:token-id=<engine>;id=<key id>;type=private",
        code="bad_key_uri",
        field="id",
    )


def pkcs11_uri(key: Key) -> str:
    """The URI under which the API shows a key."""
    return f"pkcs11:token-id={key.engine_id};id={key.key_id};type=private"


def parse_scheme(name: str) -> SignatureScheme:
    """The scheme of a wire name, exact case. Raises `RuleViolation`."""
    scheme = SCHEMES.get(name)
    if scheme is None:
        raise RuleViolation(
            f"unsupported algorithm; allowed: {', '.join(SCHEMES)}",
            code="unsupported_algorithm",
            field="algorithm",
        )
    return scheme


def check_scheme_fits(scheme: SignatureScheme, key: Key) -> None:
    """Refuse an RSA scheme on an ECDSA key and the like."""
    if scheme.algorithm is not key.spec.algorithm or scheme.size not in (0, key.spec.size):
        kind = scheme.algorithm.value if not scheme.size else f"{scheme.algorithm}-{scheme.size}"
        raise RuleViolation(f"key is not {kind} key", code="algorithm_mismatch", field="algorithm")


def check_digest(message: bytes, message_type: MessageType, scheme: SignatureScheme) -> None:
    """A `hash` message must have the length of the scheme's digest, if the scheme has one."""
    if message_type is not MessageType.HASH:
        return
    if scheme.hash is None:
        raise RuleViolation(
            f"{scheme.name} signs whole messages: send it as raw",
            code="invalid_digest_size",
            field="message_type",
        )
    if len(message) != scheme.hash.digest_size:
        raise RuleViolation(
            f"invalid digest size: {scheme.name} takes {scheme.hash.digest_size} bytes",
            code="invalid_digest_size",
            field="message",
        )


def check_ca_message(message: bytes, message_type: MessageType) -> None:
    """What a CA's key may sign for an API caller (security rule 8).

    A certificate, CRL, OCSP answer or CSR to be signed is one SEQUENCE; a digest could be that
    of one. Raises `Forbidden`.
    """
    if message_type is not MessageType.RAW:
        raise Forbidden(
            "a CA's key signs no digests: send the message itself as raw",
            code="ca_key_digest_refused",
            field="message_type",
        )
    if is_one_sequence_or_set(message):
        raise Forbidden(
            "a CA's key signs nothing that could be a certificate or CRL",
            code="ca_key_message_refused",
            field="message",
        )


def check_moves_alone(key: Key) -> None:
    """A CA's key leaves its engine only when the CA's approvers agree: the CA asks them."""
    if key.purpose is KeyPurpose.CA:
        raise Conflict(
            "the key is a CA's; move it by POST /api/ca/v1/cas/{id}/key/move"
            " (lamassu key move finds the CA)",
            code="key_of_ca",
            field="id",
        )


def check_not_moving(move: KeyMove | None) -> None:
    """A key that two engines may hold is moved to its end before it is deleted."""
    if move is not None:
        raise Conflict(
            f"a move of this key from {move.source} to {move.target} has begun; ask for it again,"
            " so that it ends, and then delete the key",
            code="move_in_progress",
            field="id",
        )


def check_unbound(key: Key) -> None:
    """What something needs stays (`key_in_use`): a CA without its key can never sign again."""
    if not key.bindings:
        return
    first, *others = key.bindings
    more = f" and {len(others)} more" if others else ""
    raise Conflict(
        f"the key is used by {first.resource_type} {first.resource_id}{more};"
        " delete what uses it first",
        code="key_in_use",
        field="id",
    )


def check_deletable(key: Key) -> None:
    """The API deletes general keys that nothing needs."""
    if key.purpose is not KeyPurpose.GENERAL:
        # a CA's key is made under its name
        kind, _, name = key.name.removesuffix("/rekey").partition("/")
        of = f"the CA {name}" if kind == "ca" and name else "a CA"
        raise Conflict(
            f"the key belongs to {of}; delete the CA instead", code="key_in_use", field="id"
        )
    check_unbound(key)


def is_name(name: str) -> bool:
    """A name is for people: printable, not empty, not endless."""
    return 1 <= len(name) <= NAME_LENGTH_MAX and name.isprintable()


def check_name(name: str) -> None:
    """Raises `RuleViolation` (`bad_name`)."""
    if not is_name(name):
        raise RuleViolation(
            f"a key's name has 1 to {NAME_LENGTH_MAX} printable characters",
            code="bad_name",
            field="name",
        )


def check_tags(tags: Sequence[str]) -> None:
    """Tags are short and few."""
    if len(tags) > TAGS_MAX or any(not tag or len(tag) > NAME_LENGTH_MAX for tag in tags):
        raise RuleViolation(
            f"at most {TAGS_MAX} tags of 1 to {NAME_LENGTH_MAX} characters",
            code="bad_tags",
            field="tags",
        )


def check_aliases(aliases: Json) -> tuple[str, ...]:
    """The aliases that a patch left, judged: names that cannot be taken for a key id or a URI."""
    if not isinstance(aliases, list) or len(aliases) > ALIASES_MAX:
        raise RuleViolation(
            f"aliases are a list of at most {ALIASES_MAX}", code="bad_alias", field="patches"
        )
    texts = tuple(_check_alias(alias) for alias in aliases)
    if len(set(texts)) != len(texts):
        raise Conflict("an alias is given twice", code="alias_exists", field="patches")
    return texts


def is_alias(name: str) -> bool:
    """Whether a name can be an alias."""
    try:
        _check_alias(name)
    except RuleViolation:
        return False
    return True


def _check_alias(alias: Json) -> str:
    if not isinstance(alias, str) or not 1 <= len(alias) <= NAME_LENGTH_MAX:
        raise RuleViolation(
            f"an alias is a text of 1 to {NAME_LENGTH_MAX} characters",
            code="bad_alias",
            field="patches",
        )
    if not alias.isprintable() or alias.startswith("pkcs11:") or _KEY_ID.fullmatch(alias):
        raise RuleViolation(
            "an alias must not look like a key id or a PKCS#11 URI",
            code="bad_alias",
            field="patches",
        )
    return alias


def shown_metadata(key: Key) -> dict[str, Json]:
    """Metadata as clients see it: their own, and what the system says of the key."""
    shown = without_system_keys(key.metadata)
    if key.bindings:
        shown[BINDINGS_KEY] = [
            {"resource_type": one.resource_type, "resource_id": one.resource_id}
            for one in key.bindings
        ]
    return shown


def without_system_keys(metadata: Mapping[str, Json]) -> dict[str, Json]:
    """Client metadata without what the system alone says (decision 11)."""
    return {name: value for name, value in metadata.items() if name != BINDINGS_KEY}
