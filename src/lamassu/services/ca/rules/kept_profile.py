"""Whether an end entity's certificate, as it is encoded, is what its profile says: asked once more
of the very octets, just before they are signed, without the code that drafted them."""

from __future__ import annotations

from functools import lru_cache

from lamassu.kernel.errors import LamassuError
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.lint import extensions as ext
from lamassu.kernel.x509.lint.extensions import Extension, check_extension
from lamassu.kernel.x509.lint.fields import check_key
from lamassu.kernel.x509.lint.findings import PlatformLintRefusal, breach
from lamassu.kernel.x509.lint.reading import read_to_be_signed
from lamassu.kernel.x509.lint.together import basic_constraints, facts_of
from lamassu.kernel.x509.usages import (
    AUTHORITY_USAGES,
    KEY_USAGE_NAMES,
    extended_key_usage_extension,
)
from lamassu.services.ca.contract import IssuanceProfile
from lamassu.services.ca.rules.profiles import check_key as check_key_of_profile

_AUTHORITY_BITS = frozenset({ext.KEY_CERT_SIGN, ext.CRL_SIGN})


def check_profile_kept(octets: bytes, *, profile: IssuanceProfile) -> None:
    """Hold a TBSCertificate (DER) against its profile: an end entity's, with a key that the
    profile takes, no usage and no purpose but the profile's, and none of an authority that a
    request asked for (security rule 12).

    Raises `LintRefusal` for a key, `PlatformLintRefusal` for the rest, which no request can cause.
    """
    tbs = read_to_be_signed(octets)
    found: dict[bytes, Extension] = {}
    for one in tbs.extensions:
        extension = check_extension(one)
        found[extension.oid] = extension
    if basic_constraints(found).ca:
        raise _fault("basic_constraints", "it would be a CA's")
    try:
        check_key_of_profile(profile, check_key(tbs), field="subject_public_key")
    except LamassuError as refusal:
        raise breach(
            "profile_key", refusal.text, section="4.1.2.7", part="subject_public_key"
        ) from None
    bits = facts_of(found, ext.KEY_USAGE, frozenset) or frozenset()
    if bits & _AUTHORITY_BITS:
        raise _fault("key_usage", "it has a key usage of a CA")
    if not profile.honor_key_usage and not bits <= _bits(tuple(profile.key_usage)):
        raise _fault("key_usage", "it has key usages that the profile has not")
    purposes = frozenset(facts_of(found, ext.EXTENDED_KEY_USAGE, tuple) or ())
    own = _purposes(tuple(profile.extended_key_usages))
    if not profile.honor_extended_key_usages and purposes != own:
        raise _fault("extended_key_usage", "its purposes are not the profile's")
    if profile.honor_extended_key_usages and purposes & _authority_purposes():
        raise _fault("extended_key_usage", "it has a purpose that no request may ask for")


@lru_cache(maxsize=256)
def _bits(names: tuple[str, ...]) -> frozenset[int]:
    return frozenset(KEY_USAGE_NAMES.index(name) for name in names)


@lru_cache(maxsize=256)
def _purposes(names: tuple[str, ...]) -> frozenset[bytes]:
    encoded = extended_key_usage_extension(names)
    if encoded is None:
        return frozenset()
    value = encoded.public_bytes()
    members = der.children(value, der.sole_element(value))
    return frozenset(value[one.value : one.end] for one in members)


def _authority_purposes() -> frozenset[bytes]:
    return _purposes(tuple(sorted(AUTHORITY_USAGES)))


def _fault(part: str, text: str) -> PlatformLintRefusal:
    return PlatformLintRefusal(
        "profile", text, section="the issuance profile", part=f"extensions.{part}"
    )
