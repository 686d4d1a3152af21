"""Issuance profiles: everything that decides a certificate's content.

The original's fields and those of ours stand in one model. What the original's model lacks is
optional, and its default is what the original does. Profiles are hashable: what is made of one
is remembered by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from lamassu.kernel.x509.names import Subject

# RFC 5280 §4.1.2.5: a certificate without a well-defined expiration date ends here.
NO_EXPIRY = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Validity:
    """How long: exactly one of `duration` (from issuance) or `not_after` is set."""

    duration: timedelta | None = None
    not_after: datetime | None = None


class IssuerEnd(StrEnum):
    """What becomes of an end-entity certificate that would outlive its issuer (decision 15)."""

    CLAMP = "clamp"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class CryptoEnforcement:
    """Which subject keys a profile takes. `None` for sizes means any size, `()` none.

    Ed25519 and ML-DSA keys are taken only where they are enabled here; ML-DSA's sizes are its
    parameter sets (44, 65, 87).
    """

    enabled: bool = False
    allow_rsa_keys: bool = False
    allowed_rsa_key_sizes: tuple[int, ...] | None = None
    allow_ecdsa_keys: bool = False
    allowed_ecdsa_key_sizes: tuple[int, ...] | None = None
    allow_ed25519_keys: bool = False
    allow_ml_dsa_keys: bool = False
    allowed_ml_dsa_key_sizes: tuple[int, ...] | None = None


class NameType(StrEnum):
    """Kinds of general names (RFC 5280 §4.2.1.6)."""

    DNS = "dns"
    IP = "ip"
    EMAIL = "email"
    URI = "uri"
    DIRECTORY = "directory"
    REGISTERED_ID = "registered_id"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class NamedValue:
    """A general name in words; a directory name as RFC 4514 writes it (`O=Acme,C=PT`).

    In a name constraint it is a subtree: a domain, a network (`10.0.0.0/8`), a mailbox, its
    host or domain, the host of URIs, or the head of a name.
    """

    type: NameType
    value: str


@dataclass(frozen=True, slots=True)
class AllowedNames:
    """Names of one type that a certificate may carry: those that match one of the patterns, or
    lie in one of the networks (`ip`); any, if there are none."""

    type: NameType
    patterns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SubjectRules:
    """What the original's `honor_subject` and `subject` cannot say.

    `template` has `{placeholders}` in its attributes; `patterns` are regular expressions (RE2)
    that each attribute of a certificate, wherever it came from, has to match as a whole.
    """

    template: Subject | None = None
    patterns: Subject = field(default_factory=Subject)


@dataclass(frozen=True, slots=True)
class AlternativeNameRules:
    """What the original's `honor_extensions` cannot say.

    `names` (with `{placeholders}`, or fixed) stand in every certificate, in place of the CSR's.
    `allowed` bounds what any certificate carries, wherever it came from; `None` is no bound.
    """

    names: tuple[NamedValue, ...] = ()
    allowed: tuple[AllowedNames, ...] | None = None


@dataclass(frozen=True, slots=True)
class NameConstraints:
    """Within which names a CA may issue (RFC 5280 §4.2.1.10)."""

    permitted: tuple[NamedValue, ...] = ()
    excluded: tuple[NamedValue, ...] = ()


@dataclass(frozen=True, slots=True)
class CertificatePolicy:
    """A policy (dotted OID), and where its certification practice statement is found."""

    oid: str
    cps_uri: str = ""


@dataclass(frozen=True, slots=True)
class CustomExtension:
    """An extension that the platform knows nothing of; `value` is the DER inside it."""

    oid: str
    critical: bool
    value: bytes


@dataclass(frozen=True, slots=True)
class IssuanceProfile:
    """What decides a certificate's content. Usages hold wire names (`DigitalSignature`), or
    dotted OIDs where an extended one has no name.

    `minimum_validity` bounds the clamping to the issuer's end (decision 15); `backdating` is how
    far `not_before` lies before issuance. `ca_id` restricts the profile to that CA; for a
    profile with `sign_as_ca` it names the parent (decision 16).
    """

    id: str
    name: str = ""
    description: str = ""
    validity: Validity = field(default_factory=Validity)
    minimum_validity: timedelta | None = None
    backdating: timedelta | None = None
    at_issuer_end: IssuerEnd = IssuerEnd.CLAMP
    sign_as_ca: bool = False
    path_length: int | None = None
    honor_key_usage: bool = False
    key_usage: tuple[str, ...] = ()
    honor_extended_key_usages: bool = False
    extended_key_usages: tuple[str, ...] = ()
    honor_subject: bool = True
    subject: Subject = field(default_factory=Subject)
    subject_rules: SubjectRules = field(default_factory=SubjectRules)
    honor_extensions: bool = False
    alternative_names: AlternativeNameRules = field(default_factory=AlternativeNameRules)
    name_constraints: NameConstraints = field(default_factory=NameConstraints)
    certificate_policies: tuple[CertificatePolicy, ...] = ()
    custom_extensions: tuple[CustomExtension, ...] = ()
    crypto_enforcement: CryptoEnforcement = field(default_factory=CryptoEnforcement)
    ca_id: str | None = None
    ocsp_servers: tuple[str, ...] = ()
    ca_issuers: tuple[str, ...] = ()
    crl_distribution_points: tuple[str, ...] = ()
    version: int = 0
