"""Request bodies, in the spellings of the original and of the seed (decisions 8, 16)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.x509.names import Subject
from lamassu.kernel.x509.usages import parse_extended_key_usage, parse_key_usage
from lamassu.platform.http import WireModel
from lamassu.platform.http.wire import (
    FreeForm,
    WireBase64,
    WireCsr,
    WireDuration,
    WireTimeOrZero,
)
from lamassu.services.ca.contract import (
    ApprovalPolicy,
    CertificateStatus,
    CryptoEnforcement,
    IssuanceProfile,
    RevocationReason,
    Validity,
)
from lamassu.services.ca.contract.approvals import DEFAULT_LIFETIME
from lamassu.services.ca.model import CaRequest, KeyRequest, RekeyRequest, StatusChange
from lamassu.services.kms.contract import MessageType

MISSING = "struct validation error"

_REASONS = {reason.value.casefold(): reason for reason in RevocationReason}


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


def _reason(value: object) -> object:
    """Any case, with or without underscores: `KeyCompromise`, `key_compromise`."""
    if not isinstance(value, str):
        return value
    known = _REASONS.get(value.replace("_", "").casefold())
    if known is None:
        raise ValueError(
            f"unknown revocation reason {value[:40]!r}; known are "
            f"{', '.join(reason.value for reason in RevocationReason)}"
        )
    return known


def _choice(*words: str) -> BeforeValidator:
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
Reason = Annotated[RevocationReason, BeforeValidator(_reason)]


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
    """How long: a duration, or until a time."""

    # one of the original's consoles says Date for Time
    type: Annotated[Literal["Duration", "Time", "Date", ""], _choice("Duration", "Time")] = ""
    duration: WireDuration = timedelta(0)
    time: WireTimeOrZero = None

    def value(self) -> Validity:
        """What it says; nothing, if what its type asks for is missing."""
        until: datetime | None = self.time
        if self.type in ("Time", "Date") or (not self.type and not self.duration):
            return Validity(not_after=until)
        return Validity(duration=self.duration or None)


class KeyMetadataBody(WireModel):
    """The key that a CA is to have."""

    leftovers = frozenset({"strength"})

    key_id: str = ""
    type: str = ""
    bits: int = 0


class CryptoEnforcementBody(WireModel):
    """Which keys a profile takes."""

    enabled: bool = False
    allow_rsa_keys: bool = False
    allowed_rsa_key_sizes: list[int] | None = Field(default=None, max_length=64)
    allow_ecdsa_keys: bool = False
    allowed_ecdsa_key_sizes: list[int] | None = Field(default=None, max_length=64)

    def value(self) -> CryptoEnforcement:
        return CryptoEnforcement(
            enabled=self.enabled,
            allow_rsa_keys=self.allow_rsa_keys,
            allowed_rsa_key_sizes=_tuple(self.allowed_rsa_key_sizes),
            allow_ecdsa_keys=self.allow_ecdsa_keys,
            allowed_ecdsa_key_sizes=_tuple(self.allowed_ecdsa_key_sizes),
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


class ProfileBody(WireModel):
    """An issuance profile; nothing is required, as in the original."""

    id: str = ""
    name: str = ""
    description: str = ""
    validity: ValidityBody = ValidityBody()
    minimum_validity: WireDuration | None = None
    sign_as_ca: bool = False
    path_length: int | None = None
    honor_key_usage: bool = False
    key_usage: KeyUsages = Field(default_factory=list)
    honor_extended_key_usages: bool = False
    extended_key_usages: ExtendedKeyUsages = Field(default_factory=list)
    honor_subject: bool = False
    subject: SubjectBody = SubjectBody()
    honor_extensions: bool = False
    crypto_enforcement: CryptoEnforcementBody = CryptoEnforcementBody()
    ca_id: str = ""
    extensions: ExtensionsBody = ExtensionsBody()
    crl_distribution_points: Urls = Field(default_factory=list)

    def unsaid(self) -> list[str]:
        """The fields of the value that the original's profile lacks and this body left out."""
        said, in_extensions = self.model_fields_set, self.extensions.model_fields_set
        kept = [name for name in ("minimum_validity", "path_length", "ca_id") if name not in said]
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
            sign_as_ca=self.sign_as_ca,
            path_length=self.path_length,
            honor_key_usage=self.honor_key_usage,
            key_usage=tuple(self.key_usage),
            honor_extended_key_usages=self.honor_extended_key_usages,
            extended_key_usages=tuple(self.extended_key_usages),
            honor_subject=self.honor_subject,
            subject=self.subject.value(),
            honor_extensions=self.honor_extensions,
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


class ApprovalPolicyBody(WireModel):
    """Who has to agree; `required` 0 of nobody is no policy."""

    missing_text = MISSING

    required: int
    of: list[str] = Field(max_length=64)
    lifetime: WireDuration = DEFAULT_LIFETIME

    def value(self) -> ApprovalPolicy | None:
        if not self.required and not self.of:
            return None
        return ApprovalPolicy(self.required, tuple(self.of), self.lifetime)


class VoteBody(WireModel):
    """Why."""

    comment: str = ""


class CreateCaBody(WireModel):
    """A CA to make. `issuance_profile_id` is the seed's, `external_root` (the id of a root
    whose key is offline) is ours; the others are the original's."""

    missing_text = MISSING
    leftovers: ClassVar[frozenset[str]] = frozenset(
        {"ca_type", "ca_chain", "ca_request_id", "issuance_expiration"}
    )

    id: str = ""
    type: Annotated[Literal["MANAGED", ""], _choice("MANAGED")] = ""
    parent_id: str = ""
    subject: SubjectBody
    key_metadata: KeyMetadataBody
    ca_expiration: ValidityBody = ValidityBody()
    profile_id: str = ""
    issuance_profile_id: str = ""
    ca_issuance_profile: ProfileBody | None = None
    ca_issuance_profile_id: str = ""
    engine_id: str = ""
    external_root: str = ""
    metadata: FreeForm = Field(default_factory=dict)
    approvals: ApprovalPolicyBody | None = None

    def value(self) -> CaRequest:
        return CaRequest(
            id=self.id,
            parent_id=self.parent_id,
            subject=self.subject.value(),
            key=KeyRequest(
                algorithm=self.key_metadata.type,
                size=self.key_metadata.bits,
                key_id=self.key_metadata.key_id,
            ),
            validity=self.ca_expiration.value(),
            profile_id=self.profile_id,
            any_profile_id=self.issuance_profile_id,
            own_profile=inline_profile(self.ca_issuance_profile),
            own_profile_id=self.ca_issuance_profile_id,
            engine_id=self.engine_id,
            metadata=self.metadata,
            approvals=self.approvals.value() if self.approvals else None,
        )


class ImportSignedBody(WireModel):
    """What came back from a ceremony: the bundle as it is, or certificates in PEM.

    `root_fingerprint` is the SHA-256 of the root's certificate, in hex, as somebody compared it
    with the transcript; it is needed only while the root is not known here.
    """

    signed: WireBase64
    root_fingerprint: str = Field("", max_length=128)


class StatusBody(WireModel):
    """A change of status; the reason counts only with `REVOKED`."""

    missing_text = MISSING

    status: CertificateStatus
    revocation_reason: Reason = RevocationReason.UNSPECIFIED

    def value(self) -> StatusChange:
        return StatusChange(self.status, self.revocation_reason)


class RevokeBody(WireModel):
    """The seed's revocation."""

    reason: Reason = Field(
        RevocationReason.UNSPECIFIED,
        validation_alias=AliasChoices("reason", "revocation_reason"),
    )


class ProfileIdBody(WireModel):
    """A CA's default profile."""

    missing_text = MISSING

    profile_id: str


class RekeyBody(WireModel):
    """Where a CA's next key is made, and of which kind (the present one's, if left out)."""

    engine_id: str = ""
    key_metadata: KeyMetadataBody = Field(default_factory=KeyMetadataBody)
    dry_run: bool = False

    def value(self) -> RekeyRequest:
        key = self.key_metadata
        if key.key_id:
            raise RuleViolation(
                "a CA's key is made for it alone; leave key_id out",
                code="key_not_usable",
                field="key_metadata.key_id",
            )
        if bool(key.type) != bool(key.bits):
            raise RuleViolation(
                "key_metadata has type and bits, or is left out",
                code="missing_field",
                field="key_metadata",
            )
        return RekeyRequest(self.engine_id, key.type, key.bits)


class SignCsrBody(WireModel):
    """A CSR to certify; the profile inline, by id, or the CA's own."""

    missing_text = MISSING

    csr: WireCsr
    profile: ProfileBody | None = Field(
        None, validation_alias=AliasChoices("profile", "issuance_profile")
    )
    profile_id: str = Field("", validation_alias=AliasChoices("profile_id", "issuance_profile_id"))


class SignMessageBody(WireModel):
    """A message for a CA's key."""

    missing_text = MISSING

    message: WireBase64
    message_type: MessageType
    signature_algorithm: str = Field(
        validation_alias=AliasChoices("signature_algorithm", "signing_algorithm")
    )


class VerifyMessageBody(SignMessageBody):
    """A message and the signature that it is said to have."""

    signature: WireBase64


def _tuple(sizes: list[int] | None) -> tuple[int, ...] | None:
    return None if sizes is None else tuple(sizes)
