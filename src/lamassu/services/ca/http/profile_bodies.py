"""Bodies of issuance profiles, in the spellings of the original and of the seed (decision 8)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.x509.names import Subject
from lamassu.kernel.x509.usages import parse_extended_key_usage, parse_key_usage
from lamassu.platform.http import WireModel
from lamassu.platform.http.wire import WireBase64, WireDuration, WireTimeOrZero
from lamassu.services.ca.contract import (
    NO_EXPIRY,
    AllowedNames,
    AlternativeNameRules,
    CertificatePolicy,
    CryptoEnforcement,
    CustomExtension,
    IssuanceProfile,
    IssuerEnd,
    NameConstraints,
    NamedValue,
    NameType,
    SubjectRules,
    Validity,
)

# What the original's profile lacks, so that its clients say nothing of it.
_OURS = (
    *("minimum_validity", "backdating", "at_issuer_end", "path_length", "ca_id"),
    *("subject_rules", "alternative_names", "name_constraints"),
    *("certificate_policies", "custom_extensions"),
)
_OUR_KEYS = ("allow_ed25519_keys", "allow_ml_dsa_keys", "allowed_ml_dsa_key_sizes")


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _key_usages(names: list[str]) -> list[str]:
    return _read(names, parse_key_usage)


def _extended_key_usages(names: list[str]) -> list[str]:
    return _read(names, parse_extended_key_usage)


def _read(names: list[str], parse: object) -> list[str]:
    assert callable(parse)
    try:
        return [parse(name) for name in names]
    except RuleViolation as refusal:
        raise ValueError(refusal.text) from None


def choice(*words: str) -> BeforeValidator:
    """One of these words in any case."""
    spelt = {word.casefold(): word for word in words}

    def read(value: object) -> object:
        return spelt.get(value.casefold(), value) if isinstance(value, str) else value

    return BeforeValidator(read)


KeyUsages = Annotated[
    list[str], BeforeValidator(_one_or_many), AfterValidator(_key_usages), Field(max_length=16)
]
ExtendedKeyUsages = Annotated[
    list[str],
    BeforeValidator(_one_or_many),
    AfterValidator(_extended_key_usages),
    Field(max_length=32),
]
Urls = Annotated[list[str], BeforeValidator(_one_or_many), Field(max_length=16)]
TypeOfName = Annotated[NameType, choice(*NameType)]


class SubjectBody(WireModel):
    """The six attributes."""

    leftovers = frozenset({"state_province"})

    common_name: str = ""
    organization: str = ""
    organization_unit: str = Field(
        default="", validation_alias=AliasChoices("organization_unit", "organizational_unit")
    )
    country: str = ""
    state: str = ""
    locality: str = ""

    def value(self) -> Subject:
        return Subject(**self.model_dump())


class ValidityBody(WireModel):
    """How long: a duration, until a time, or without end (a time too, RFC 5280 §4.1.2.5)."""

    # one of the original's consoles says Date for Time
    type: Annotated[
        Literal["Duration", "Time", "Date", "NoExpiry", ""], choice("Duration", "Time", "NoExpiry")
    ] = ""
    duration: WireDuration = timedelta(0)
    time: WireTimeOrZero = None

    def value(self) -> Validity:
        """What it says; nothing, if what its type asks for is missing."""
        if self.type == "NoExpiry":
            return Validity(not_after=NO_EXPIRY)
        until: datetime | None = self.time
        if self.type in ("Time", "Date") or (not self.type and not self.duration):
            return Validity(not_after=until)
        return Validity(duration=self.duration or None)


class CryptoEnforcementBody(WireModel):
    """Which keys a profile takes."""

    enabled: bool = False
    allow_rsa_keys: bool = False
    allowed_rsa_key_sizes: list[int] | None = Field(default=None, max_length=64)
    allow_ecdsa_keys: bool = False
    allowed_ecdsa_key_sizes: list[int] | None = Field(default=None, max_length=64)
    allow_ed25519_keys: bool = False
    allow_ml_dsa_keys: bool = False
    allowed_ml_dsa_key_sizes: list[int] | None = Field(default=None, max_length=64)

    def value(self) -> CryptoEnforcement:
        return CryptoEnforcement(
            enabled=self.enabled,
            allow_rsa_keys=self.allow_rsa_keys,
            allowed_rsa_key_sizes=_tuple(self.allowed_rsa_key_sizes),
            allow_ecdsa_keys=self.allow_ecdsa_keys,
            allowed_ecdsa_key_sizes=_tuple(self.allowed_ecdsa_key_sizes),
            allow_ed25519_keys=self.allow_ed25519_keys,
            allow_ml_dsa_keys=self.allow_ml_dsa_keys,
            allowed_ml_dsa_key_sizes=_tuple(self.allowed_ml_dsa_key_sizes),
        )


class AuthorityInfoAccessBody(WireModel):
    """Where status and issuer are found, in place of the platform's own addresses."""

    ocsp_server: Urls = Field(
        default_factory=list, validation_alias=AliasChoices("ocsp_server", "ocsp_servers")
    )
    ca_issuers: Urls = Field(default_factory=list)


class ExtensionsBody(WireModel):
    """The seed's place for a profile's addresses."""

    authority_info_access: AuthorityInfoAccessBody = AuthorityInfoAccessBody()
    crl_distribution_points: Urls = Field(default_factory=list)


class SubjectTextsBody(WireModel):
    """A text for each of the six attributes, longer than a name itself may be."""

    common_name: str = ""
    organization: str = ""
    organization_unit: str = ""
    country: str = ""
    state: str = ""
    locality: str = ""

    def value(self) -> Subject:
        return Subject(**self.model_dump())


class SubjectRulesBody(WireModel):
    """A subject made from a template, and patterns (RE2) that every subject has to match."""

    template: SubjectTextsBody | None = None
    patterns: SubjectTextsBody = SubjectTextsBody()

    def value(self) -> SubjectRules:
        template = self.template.value() if self.template is not None else None
        # a template that says nothing is none
        return SubjectRules(
            template=None if template == Subject() else template, patterns=self.patterns.value()
        )


class NamedValueBody(WireModel):
    """A general name, or a subtree of names."""

    type: TypeOfName
    value: str

    def name(self) -> NamedValue:
        return NamedValue(self.type, self.value)


class AllowedNamesBody(WireModel):
    """Names of one type that are allowed: by patterns (RE2), or networks for `ip`."""

    type: TypeOfName
    patterns: Annotated[list[str], BeforeValidator(_one_or_many)] = Field(
        default_factory=list, max_length=64
    )

    def value(self) -> AllowedNames:
        return AllowedNames(self.type, tuple(self.patterns))


class AlternativeNamesBody(WireModel):
    """Names that every certificate gets, and bounds of what any may carry."""

    names: list[NamedValueBody] = Field(default_factory=list, max_length=64)
    allowed: list[AllowedNamesBody] | None = Field(default=None, max_length=16)

    def value(self) -> AlternativeNameRules:
        return AlternativeNameRules(
            names=tuple(name.name() for name in self.names),
            allowed=None
            if self.allowed is None
            else tuple(allowed.value() for allowed in self.allowed),
        )


class NameConstraintsBody(WireModel):
    """Within which names a CA may issue."""

    permitted: list[NamedValueBody] = Field(default_factory=list, max_length=64)
    excluded: list[NamedValueBody] = Field(default_factory=list, max_length=64)

    def value(self) -> NameConstraints:
        return NameConstraints(
            permitted=tuple(name.name() for name in self.permitted),
            excluded=tuple(name.name() for name in self.excluded),
        )


class CertificatePolicyBody(WireModel):
    """A certificate policy."""

    oid: str
    cps_uri: str = ""

    def value(self) -> CertificatePolicy:
        return CertificatePolicy(self.oid, self.cps_uri)


class CustomExtensionBody(WireModel):
    """An extension that the CA knows nothing of; `value` is its DER in base64."""

    oid: str
    critical: bool = False
    value: WireBase64

    def extension(self) -> CustomExtension:
        return CustomExtension(self.oid, self.critical, self.value)


class ProfileBody(WireModel):
    """An issuance profile; nothing is required, as in the original."""

    leftovers = frozenset({"warnings"})  # what an answer says beside the profile

    id: str = ""
    name: str = ""
    description: str = ""
    validity: ValidityBody = ValidityBody()
    minimum_validity: WireDuration | None = None
    backdating: WireDuration | None = None
    at_issuer_end: Annotated[IssuerEnd, choice(*IssuerEnd)] = IssuerEnd.CLAMP
    sign_as_ca: bool = False
    path_length: int | None = None
    honor_key_usage: bool = False
    key_usage: KeyUsages = Field(default_factory=list)
    honor_extended_key_usages: bool = False
    extended_key_usages: ExtendedKeyUsages = Field(
        default_factory=list,
        # the singular is one of the original's consoles'
        validation_alias=AliasChoices("extended_key_usages", "extended_key_usage"),
    )
    honor_subject: bool = False
    subject: SubjectBody = SubjectBody()
    subject_rules: SubjectRulesBody = SubjectRulesBody()
    honor_extensions: bool = False
    alternative_names: AlternativeNamesBody = AlternativeNamesBody()
    name_constraints: NameConstraintsBody = NameConstraintsBody()
    certificate_policies: list[CertificatePolicyBody] = Field(default_factory=list, max_length=64)
    custom_extensions: list[CustomExtensionBody] = Field(default_factory=list, max_length=64)
    crypto_enforcement: CryptoEnforcementBody = CryptoEnforcementBody()
    ca_id: str = ""
    extensions: ExtensionsBody = ExtensionsBody()
    crl_distribution_points: Urls = Field(default_factory=list)

    def unsaid(self) -> list[str]:
        """The fields of the value that the original's profile lacks and this body left out."""
        said, in_extensions = self.model_fields_set, self.extensions.model_fields_set
        kept = [name for name in _OURS if name not in said]
        kept += [
            f"crypto_enforcement.{name}"
            for name in _OUR_KEYS
            if name not in self.crypto_enforcement.model_fields_set
        ]
        if "authority_info_access" not in in_extensions:
            kept += ["ocsp_servers", "ca_issuers"]
        if "crl_distribution_points" not in said | in_extensions:
            kept.append("crl_distribution_points")
        return kept

    def value(self) -> IssuanceProfile:
        access = self.extensions.authority_info_access
        points = self.crl_distribution_points or self.extensions.crl_distribution_points
        return IssuanceProfile(
            id=self.id,
            name=self.name,
            description=self.description,
            validity=self.validity.value(),
            minimum_validity=self.minimum_validity or None,
            backdating=self.backdating,
            at_issuer_end=self.at_issuer_end,
            sign_as_ca=self.sign_as_ca,
            path_length=self.path_length,
            honor_key_usage=self.honor_key_usage,
            key_usage=tuple(self.key_usage),
            honor_extended_key_usages=self.honor_extended_key_usages,
            extended_key_usages=tuple(self.extended_key_usages),
            honor_subject=self.honor_subject,
            subject=self.subject.value(),
            subject_rules=self.subject_rules.value(),
            honor_extensions=self.honor_extensions,
            alternative_names=self.alternative_names.value(),
            name_constraints=self.name_constraints.value(),
            certificate_policies=tuple(policy.value() for policy in self.certificate_policies),
            custom_extensions=tuple(one.extension() for one in self.custom_extensions),
            crypto_enforcement=self.crypto_enforcement.value(),
            ca_id=self.ca_id or None,
            ocsp_servers=tuple(access.ocsp_server),
            ca_issuers=tuple(access.ca_issuers),
            crl_distribution_points=tuple(points),
        )


def inline_profile(body: ProfileBody | None) -> IssuanceProfile | None:
    """A profile within a request; the SDK sends an empty one where it means none."""
    if body is None:
        return None
    profile = body.value()
    return None if profile == ProfileBody().value() else profile


def _tuple(sizes: list[int] | None) -> tuple[int, ...] | None:
    return None if sizes is None else tuple(sizes)
