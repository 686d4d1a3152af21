"""Which CAs may be made, and how they hang together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.x509.names import same_name
from lamassu.services.ca.contract import IssuanceProfile
from lamassu.services.ca.model import CaRequest
from lamassu.services.ca.rules.profiles import check_id
from lamassu.services.kms.contract import Engine, KeyAlgorithm, KeySpec

# Words that stand where an id does in the routes.
_RESERVED_IDS = frozenset({"cn", "import", "import-signed"})

# What relying parties in the field verify; EdDSA and ML-DSA keys are for other uses yet.
CA_ALGORITHMS = (KeyAlgorithm.RSA, KeyAlgorithm.ECDSA)


@dataclass(frozen=True, slots=True)
class ProfileRoles:
    """What the profiles of a request mean: the CA's own, its parent, its default."""

    own: IssuanceProfile | None
    parent_id: str | None
    profile_id: str


def roles_of_profiles(
    request: CaRequest,
    *,
    own: IssuanceProfile | None,
    either: IssuanceProfile | None,
    default: IssuanceProfile | None,
    fallback_profile_id: str,
) -> ProfileRoles:
    """Sort out the profiles of a request (decision 16).

    `own` and `default` are what the original's fields name, `either` what the seed's one field
    names: with `sign_as_ca` it is the CA's own and its `ca_id` the parent, otherwise the
    default. Raises `RuleViolation`.
    """
    parent_id = request.parent_id
    if either is not None and either.sign_as_ca:
        if own is not None:
            raise _twice("the CA's own certificate")
        own = either
        if parent_id and either.ca_id and parent_id != either.ca_id:
            raise RuleViolation(
                f"the profile names {either.ca_id} as the parent",
                code="parent_contradicts_profile",
                field="parent_id",
            )
        parent_id = parent_id or either.ca_id or ""
    elif either is not None:
        if default is not None and default.id != either.id:
            raise _twice("what the CA will issue")
        default = either
    if own is not None and not own.sign_as_ca:
        raise RuleViolation(
            "struct validation error",  # as the original says it; its clients compare the text
            code="profile_not_for_cas",
            field="ca_issuance_profile",
        )
    if default is not None and default.sign_as_ca:
        raise RuleViolation(
            "the default profile is for what the CA issues and cannot have sign_as_ca",
            code="profile_signs_as_ca",
            field="profile_id",
        )
    if default is None and not request.any_profile_id:
        raise RuleViolation(
            "struct validation error",
            code="missing_field",
            field="profile_id",
        )
    return ProfileRoles(
        own=own,
        parent_id=parent_id or None,
        profile_id=default.id if default else fallback_profile_id,
    )


def _twice(what: str) -> RuleViolation:
    return RuleViolation(
        f"two profiles are named for {what}", code="profile_twice", field="issuance_profile_id"
    )


def check_ca_id(ca_id: str) -> None:
    """Refuse an id under which the CA could not be reached. Raises `RuleViolation`."""
    check_id(ca_id)
    if ca_id in _RESERVED_IDS:
        raise RuleViolation(f"{ca_id} is no name for a CA", code="id_malformed", field="id")


def check_key_spec(request: CaRequest, engines: Sequence[Engine]) -> KeySpec:
    """The key to make, if the chosen engine can make it. Raises as `check_ca_key_spec`."""
    return check_ca_key_spec(request.engine_id, request.key.algorithm, request.key.size, engines)


def check_ca_key_spec(engine_id: str, wanted: str, size: int, engines: Sequence[Engine]) -> KeySpec:
    """The key that a CA is to have, if the engine (the default one if none is named) makes it.

    Raises `RuleViolation` (`engine_unknown`, `key_not_supported`).
    """
    engine = next((e for e in engines if e.id == engine_id or (not engine_id and e.default)), None)
    if engine is None:
        raise RuleViolation(
            f"there is no crypto engine {engine_id[:64]!r}; "
            f"known are {', '.join(e.id for e in engines) or 'none'}",
            code="engine_unknown",
            field="engine_id",
        )
    offered = {a: engine.supported.get(a, ()) for a in CA_ALGORITHMS}
    algorithm = next((a for a in CA_ALGORITHMS if a.value == wanted), None)
    if algorithm is None or size not in offered[algorithm]:
        kinds = "; ".join(f"{a} {', '.join(map(str, sizes))}" for a, sizes in offered.items())
        raise RuleViolation(
            f"the engine {engine.id} makes no key of this type and size for a CA; it makes {kinds}",
            code="key_not_supported",
            field="key_metadata",
        )
    return KeySpec(algorithm, size)


def path_length_for(
    own: IssuanceProfile | None, *, has_parent: bool, parent_path_length: int | None
) -> int | None:
    """How many CAs may follow below a new one; `None` is no limit (RFC 5280 §4.2.1.9).

    Raises `RuleViolation` (`path_length_exceeded`) where the parent allows none, or fewer
    than the profile asks for.
    """
    wanted = own.path_length if own else None
    if not has_parent or parent_path_length is None:
        return wanted
    if parent_path_length == 0:
        raise RuleViolation(
            "the issuing CA has path length 0: it may issue to end entities only",
            code="path_length_exceeded",
            field="parent_id",
        )
    if wanted is None:
        return parent_path_length - 1
    if wanted >= parent_path_length:
        raise RuleViolation(
            f"the issuing CA allows a path length of at most {parent_path_length - 1}",
            code="path_length_exceeded",
            field="path_length",
        )
    return wanted


def check_subject(subject: x509.Name, issuer: x509.Name | None) -> None:
    """A CA has a name (RFC 5280 §4.1.2.6), and another than the CA above it."""
    if not subject.rdns:
        raise RuleViolation("a CA needs a subject", code="subject_empty", field="subject")
    if issuer is not None and same_name(subject, issuer):
        raise RuleViolation(
            "a CA cannot have the name of the CA that issues it: its certificate would look "
            "self-issued",
            code="subject_is_issuer",
            field="subject",
        )
