"""Certification paths, validated by the library (security rule 2): we set the policy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from lamassu.kernel.errors import LamassuError, RuleViolation
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.facts import MOST_DEPTH, MOST_OCTETS

_MOST_INTERMEDIATES = 10
_MOST_DEPTH = 8
_MOST_KNOWN = 256


class Purpose(StrEnum):
    """What the certificate at the path's end is to be used for."""

    CLIENT_AUTH = "clientAuth"
    SERVER_AUTH = "serverAuth"
    ANY = "any"


class PathInvalid(RuleViolation):
    """No valid path: `code` is `certificate_expired`, `certificate_not_yet_valid`,
    `certificate_unknown_issuer`, `certificate_purpose` or `path_invalid`."""

    default_code = "path_invalid"


_USAGES: dict[Purpose, ObjectIdentifier] = {
    Purpose.CLIENT_AUTH: ExtendedKeyUsageOID.CLIENT_AUTH,
    Purpose.SERVER_AUTH: ExtendedKeyUsageOID.SERVER_AUTH,
}


def verify_path(
    leaf: bytes,
    *,
    intermediates: Sequence[bytes],
    anchors: Sequence[bytes],
    at: datetime,
    purpose: Purpose,
) -> tuple[bytes, ...]:
    """The path from `leaf` to one of `anchors` (both ends included), all DER, valid at `at`.

    Every anchor is trusted as it stands, an intermediate CA as well as a root, but must
    itself be a CA certificate in force. Revocation is not looked at. Raises `PathInvalid`.
    """
    question = (leaf, tuple(intermediates), tuple(anchors), purpose)
    known = _known.get(question)
    if known is not None and known.since <= at <= known.until:
        return known.path
    chain = _search(leaf, intermediates=intermediates, anchors=anchors, at=at, purpose=purpose)
    path = tuple(_der(certificate) for certificate in chain)
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[question] = _ValidPath(
        path,
        since=max(certificate.not_valid_before_utc for certificate in chain),
        until=min(certificate.not_valid_after_utc for certificate in chain),
    )
    return path


@dataclass(frozen=True, slots=True)
class _ValidPath:
    """A path that was verified: valid at every instant at which all its certificates are."""

    path: tuple[bytes, ...]
    since: datetime
    until: datetime


# Signatures, names and policy do not change with time: when one bootstrap certificate is shown by
# many devices, only its path's dates are compared (0.3 ms less each).
_known: dict[tuple[bytes, tuple[bytes, ...], tuple[bytes, ...], Purpose], _ValidPath] = {}


def _search(
    leaf: bytes,
    *,
    intermediates: Sequence[bytes],
    anchors: Sequence[bytes],
    at: datetime,
    purpose: Purpose,
) -> Sequence[x509.Certificate]:
    if len(intermediates) > _MOST_INTERMEDIATES:
        raise PathInvalid(f"more than {_MOST_INTERMEDIATES} intermediate certificates")
    end = _load(leaf)
    presented = [_load(certificate) for certificate in dict.fromkeys(intermediates)]
    trusted = tuple(dict.fromkeys(anchors))
    if not trusted:
        raise _unknown_issuer()
    if leaf in trusted:
        raise PathInvalid("a trust anchor does not identify anybody")
    between = _vouched_for(presented, _loaded(trusted))
    verifier = (
        PolicyBuilder()
        .store(_store(trusted))
        .time(at)
        .max_chain_depth(_MOST_DEPTH)
        .extension_policies(ca_policy=_CA_POLICIES[purpose], ee_policy=_EE_POLICIES[purpose])
        .build_client_verifier()
    )
    try:
        return verifier.verify(end, between).chain
    except (VerificationError, x509.DuplicateExtension, ValueError):
        raise _reason(end, between, trusted, at, purpose) from None


def _load(data: bytes) -> x509.Certificate:
    try:
        der.check_der(data, max_length=MOST_OCTETS, max_depth=MOST_DEPTH)
        return x509.load_der_x509_certificate(data)
    except (LamassuError, ValueError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise PathInvalid("certificate cannot be read") from None


def _vouched_for(
    certificates: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """Those that an anchor signed, or one that an anchor signed, and so on; from the top down.

    A stranger's certificates, which may all claim to have signed each other, cost one look with
    the key of an anchor each, and the search for a path never meets them (security rule 21).
    """
    kept: list[x509.Certificate] = []
    left, issuers = list(certificates), list(anchors)
    while left and issuers:
        issuers = [each for each in left if any(_issued(issuer, each) for issuer in issuers)]
        kept += issuers
        left = [each for each in left if each not in issuers]
    return kept


@lru_cache(maxsize=64)
def _loaded(anchors: tuple[bytes, ...]) -> tuple[x509.Certificate, ...]:
    return tuple(_load(anchor) for anchor in anchors)


@lru_cache(maxsize=64)
def _store(anchors: tuple[bytes, ...]) -> Store:
    return Store(list(_loaded(anchors)))


# What the library leaves to a policy of one's own. It checks by itself: signatures, names,
# dates, key and signature strength, path lengths, name constraints, unknown critical extensions.


def _check_ca(policy: Policy, certificate: x509.Certificate, ext: x509.BasicConstraints) -> None:
    if not ext.ca:
        raise ValueError("an issuer is not a CA")


def _check_ca_usage(
    policy: Policy, certificate: x509.Certificate, ext: x509.KeyUsage | None
) -> None:
    if ext is not None and not ext.key_cert_sign:
        raise ValueError("an issuer may not sign certificates")


def _check_not_ca(
    policy: Policy, certificate: x509.Certificate, ext: x509.BasicConstraints | None
) -> None:
    if ext is not None and ext.ca:
        raise ValueError("a CA certificate identifies no end entity")


def _allows(purpose: Purpose, ext: x509.ExtendedKeyUsage | None) -> bool:
    """RFC 5280 §4.2.1.12: no extension, no restriction."""
    usage = _USAGES.get(purpose)
    return (
        usage is None
        or ext is None
        or usage in ext
        or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in ext
    )


def _allows_handshake(purpose: Purpose, ext: x509.KeyUsage | None) -> bool:
    """The key usage bits that are consistent with the purpose (RFC 5280 §4.2.1.12)."""
    if ext is None or purpose is Purpose.ANY:
        return True
    if ext.digital_signature or ext.key_agreement:
        return True
    return purpose is Purpose.SERVER_AUTH and ext.key_encipherment


def _ca_policy(purpose: Purpose) -> ExtensionPolicy:
    def check_extended(
        policy: Policy, certificate: x509.Certificate, ext: x509.ExtendedKeyUsage | None
    ) -> None:
        if not _allows(purpose, ext):
            raise ValueError("an issuer is restricted to other purposes")

    return (
        ExtensionPolicy.permit_all()
        .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _check_ca)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _check_ca_usage)
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, check_extended)
    )


def _ee_policy(purpose: Purpose) -> ExtensionPolicy:
    def check_extended(
        policy: Policy, certificate: x509.Certificate, ext: x509.ExtendedKeyUsage | None
    ) -> None:
        if not _allows(purpose, ext):
            raise ValueError("not for this purpose")

    def check_usage(
        policy: Policy, certificate: x509.Certificate, ext: x509.KeyUsage | None
    ) -> None:
        if not _allows_handshake(purpose, ext):
            raise ValueError("its key is not for this purpose")

    policy = (
        ExtensionPolicy.permit_all()
        .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, check_extended)
        .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, check_usage)
    )
    if purpose is not Purpose.ANY:
        policy = policy.may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, _check_not_ca)
    return policy


_CA_POLICIES = {purpose: _ca_policy(purpose) for purpose in Purpose}
_EE_POLICIES = {purpose: _ee_policy(purpose) for purpose in Purpose}


def _unknown_issuer() -> PathInvalid:
    return PathInvalid(
        "certificate was not issued by a trusted CA", code="certificate_unknown_issuer"
    )


def _reason(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    anchors: tuple[bytes, ...],
    at: datetime,
    purpose: Purpose,
) -> PathInvalid:
    """Why there is no path, for people; the verdict itself was the library's."""
    issuers = _issuers_of(leaf, intermediates, _loaded(anchors))
    if issuers is None:
        return _unknown_issuer()
    if leaf.not_valid_after_utc < at:
        return PathInvalid(
            f"certificate expired at {leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
            code="certificate_expired",
        )
    if leaf.not_valid_before_utc > at:
        return PathInvalid(
            f"certificate is not valid before {leaf.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}",
            code="certificate_not_yet_valid",
        )
    if any(issuer.not_valid_after_utc < at for issuer in issuers):
        return PathInvalid("a CA above the certificate has expired", code="certificate_expired")
    if not _serves(leaf, purpose):
        return PathInvalid(f"certificate is not for {purpose.value}", code="certificate_purpose")
    return PathInvalid("the certificate's path breaks a rule of its CAs")


def _issuers_of(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
) -> list[x509.Certificate] | None:
    """Who signed whom up to an anchor, by signatures alone; `None` if no anchor is reached."""
    path: list[x509.Certificate] = []
    current = leaf
    for _ in range(_MOST_DEPTH + 1):
        anchor = next((a for a in anchors if _issued(a, current)), None)
        if anchor is not None:
            return [*path, anchor]
        above = next((i for i in intermediates if i not in path and _issued(i, current)), None)
        if above is None:
            return None
        path.append(above)
        current = above
    return None


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _serves(leaf: x509.Certificate, purpose: Purpose) -> bool:
    try:
        extensions = leaf.extensions
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return True
    extended: x509.ExtendedKeyUsage | None = None
    usage: x509.KeyUsage | None = None
    for extension in extensions:
        if isinstance(extension.value, x509.ExtendedKeyUsage):
            extended = extension.value
        elif isinstance(extension.value, x509.KeyUsage):
            usage = extension.value
    return _allows(purpose, extended) and _allows_handshake(purpose, usage)


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)
