"""Which usages a certificate gets, and which it never gets by asking."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.x509.keys import NEWER_KEYS, KeyFacts
from lamassu.kernel.x509.usages import AUTHORITY_USAGES, EXTENDED_KEY_USAGE_NAMES
from lamassu.services.ca.contract import IssuanceProfile

CA_KEY_USAGE = ("CertSign", "CRLSign")
_EXTENDED = frozenset(EXTENDED_KEY_USAGE_NAMES)
# What a key of its kind cannot do: RFC 3279 §2.3.1 for RSA, RFC 8813 §3 for curves, RFC 8410 §5
# and RFC 9881 §5 for those that only sign.
_NOT_FOR = {
    "RSA": frozenset({"KeyAgreement", "EncipherOnly", "DecipherOnly"}),
    "ECDSA": frozenset({"KeyEncipherment", "DataEncipherment"}),
    **dict.fromkeys(
        NEWER_KEYS,
        frozenset(
            {"KeyEncipherment", "DataEncipherment", "KeyAgreement", "EncipherOnly", "DecipherOnly"}
        ),
    ),
}


def key_usage_for(
    profile: IssuanceProfile, requested: Sequence[str], key: KeyFacts
) -> tuple[str, ...]:
    """Key usages of an end-entity certificate.

    Never keyCertSign or cRLSign, and nothing that a key of this kind cannot do, whoever asks.
    """
    wanted = requested if profile.honor_key_usage else profile.key_usage
    barred = _NOT_FOR.get(key.algorithm, frozenset()) | set(CA_KEY_USAGE)
    kept = [name for name in dict.fromkeys(wanted) if name not in barred]
    if "KeyAgreement" not in kept:
        kept = [name for name in kept if name not in ("EncipherOnly", "DecipherOnly")]
    return tuple(kept)


def extended_key_usages_for(profile: IssuanceProfile, requested: Sequence[str]) -> tuple[str, ...]:
    """Extended key usages of an end-entity certificate; what is honoured is narrowed to usages
    that have a name and those that the profile lists by OID."""
    if not profile.honor_extended_key_usages:
        return tuple(profile.extended_key_usages)
    return tuple(
        name
        for name in dict.fromkeys(requested)
        if (name in _EXTENDED or name in profile.extended_key_usages)
        and name not in AUTHORITY_USAGES
    )


def ca_key_usage(profile: IssuanceProfile | None) -> tuple[str, ...]:
    """Key usages of a CA certificate: the profile's, and always what makes it a CA."""
    return as_a_cas(profile.key_usage if profile else ())


def as_a_cas(key_usage: Sequence[str]) -> tuple[str, ...]:
    """These, and what makes a CA: an imported one may have had none."""
    return (*(name for name in key_usage if name not in CA_KEY_USAGE), *CA_KEY_USAGE)
