"""Answer bodies: the original's fields, checked on their way out."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from lamassu.platform.http.wire import WireBase64

T = TypeVar("T")

_Object = dict[str, JsonValue]


class Answer(BaseModel):
    """What is sent is what is documented: another field would be a fault of ours."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PageAnswer(BaseModel, Generic[T]):
    """A page; `next` is the bookmark of the one after it, or empty."""

    next: str
    list: list[T]


class SubjectAnswer(Answer):
    """The six attributes of a name."""

    common_name: str
    organization: str
    organization_unit: str
    country: str
    state: str
    locality: str


class KeyMetadataAnswer(Answer):
    """A subject's key."""

    type: str
    bits: int
    strength: str


class ExtensionsAnswer(Answer):
    """Usages."""

    key_usage: list[str]
    extended_key_usage: list[str]


class IssuerMetadataAnswer(Answer):
    """The CA that signed; a root is its own."""

    serial_number: str
    id: str
    level: int


class CertificateAnswer(Answer):
    """A certificate."""

    serial_number: str
    subject_key_id: str
    authority_key_id: str
    metadata: _Object
    status: str
    certificate: str
    key_metadata: KeyMetadataAnswer
    subject: SubjectAnswer
    issuer: SubjectAnswer
    valid_from: str
    valid_to: str
    extensions: ExtensionsAnswer
    issuer_metadata: IssuerMetadataAnswer
    revocation_timestamp: str
    revocation_reason: str
    type: str
    engine_id: str
    is_ca: bool


class _WithoutUnset(Answer):
    """Fields that are not set are not sent."""

    @model_serializer(mode="wrap")
    def _without_unset(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        written: dict[str, object] = write(self)
        return {name: value for name, value in written.items() if value is not None}


class ApprovalPolicyAnswer(Answer):
    """Who has to agree to what is dangerous for a CA."""

    required: int
    of: list[str]
    lifetime: str


class CaApprovalPolicyAnswer(ApprovalPolicyAnswer):
    """The policy that a request has to meet, and whose it is."""

    ca_id: str


class VoteAnswer(Answer):
    """One person's word."""

    approver: str
    verdict: str
    comment: str
    time: str


class ApprovalAnswer(Answer):
    """A request that waits or waited for approvals; `digest` binds them to it and its
    requester, `basis` to the content of what it names."""

    id: str
    status: str
    operation: str
    ca_id: str
    requester: str
    request: _Object
    digest: str
    basis: dict[str, str]
    policies: list[CaApprovalPolicyAnswer]
    excluded: list[str]
    votes: list[VoteAnswer]
    creation_ts: str
    expires_at: str
    closed_at: str


class CaAnswer(_WithoutUnset):
    """A CA; level 0 is a root. `key_status` is `OFFLINE` where the key is not here,
    and absent elsewhere; `approvals` only where it has such a policy; `successor_id` where it
    got a new key, `generation_of` where it is such a successor."""

    id: str
    certificate: CertificateAnswer
    serial_number: str
    metadata: _Object
    creation_ts: str
    level: int
    profile_id: str
    key_status: str | None = None
    approvals: ApprovalPolicyAnswer | None = None
    successor_id: str | None = None
    generation_of: str | None = None


class KeySpecAnswer(Answer):
    """A key that was made."""

    type: str
    bits: int


class AwaitedCaAnswer(Answer):
    """A CA that waits for an offline root's signature; `csr` is for the ceremony."""

    id: str
    status: str
    csr: str
    external_root: str
    subject: SubjectAnswer
    key_metadata: KeySpecAnswer
    engine_id: str
    profile_id: str
    metadata: _Object
    creation_ts: str


class ImportedAnswer(Answer):
    """What an offline root signed, now here."""

    root: CaAnswer
    imported: list[CaAnswer]


class CryptoEnforcementAnswer(Answer):
    """Which keys a profile takes; the fields from `allow_ed25519_keys` on only where they say
    something."""

    enabled: bool
    allow_rsa_keys: bool
    allowed_rsa_key_sizes: list[int] | None
    allow_ecdsa_keys: bool
    allowed_ecdsa_key_sizes: list[int] | None
    allow_ed25519_keys: bool = False
    allow_ml_dsa_keys: bool = False
    allowed_ml_dsa_key_sizes: list[int] | None = None

    @model_serializer(mode="wrap")
    def _without_unsaid(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        written: dict[str, object] = write(self)
        return {name: value for name, value in written.items() if name in self.model_fields_set}


class SubjectRulesAnswer(_WithoutUnset):
    """A subject's template, and the patterns that every subject has to match."""

    template: SubjectAnswer | None = None
    patterns: SubjectAnswer | None = None


class NamedValueAnswer(Answer):
    """A general name, or a subtree of names."""

    type: str
    value: str


class AllowedNamesAnswer(Answer):
    """Names of one type that are allowed; any, without patterns."""

    type: str
    patterns: list[str]


class AlternativeNamesAnswer(_WithoutUnset):
    """Names that every certificate gets, and bounds of what any may carry."""

    names: list[NamedValueAnswer] | None = None
    allowed: list[AllowedNamesAnswer] | None = None


class NameConstraintsAnswer(Answer):
    """Within which names a CA may issue."""

    permitted: list[NamedValueAnswer]
    excluded: list[NamedValueAnswer]


class CertificatePolicyAnswer(Answer):
    """A certificate policy."""

    oid: str
    cps_uri: str


class CustomExtensionAnswer(Answer):
    """An extension that the CA knows nothing of; `value` is its DER in base64."""

    oid: str
    critical: bool
    value: str


class FindingAnswer(Answer):
    """Something about a profile that somebody should know; it forbids nothing."""

    code: str
    field: str
    text: str


class FindingsAnswer(Answer):
    """What should be known of a profile."""

    findings: list[FindingAnswer]


class ProfileAnswer(_WithoutUnset):
    """An issuance profile; the fields from `minimum_validity` on only where they are set, and
    `warnings` only when it was written."""

    id: str
    name: str
    description: str
    validity: _Object
    sign_as_ca: bool
    honor_key_usage: bool
    key_usage: list[str]
    honor_extended_key_usages: bool
    extended_key_usages: list[str]
    honor_subject: bool
    subject: SubjectAnswer
    honor_extensions: bool
    crypto_enforcement: CryptoEnforcementAnswer
    minimum_validity: str | None = None
    backdating: str | None = None
    at_issuer_end: str | None = None
    path_length: int | None = None
    subject_rules: SubjectRulesAnswer | None = None
    alternative_names: AlternativeNamesAnswer | None = None
    name_constraints: NameConstraintsAnswer | None = None
    certificate_policies: list[CertificatePolicyAnswer] | None = None
    custom_extensions: list[CustomExtensionAnswer] | None = None
    ca_id: str | None = None
    extensions: _Object | None = None
    crl_distribution_points: list[str] | None = None
    warnings: list[FindingAnswer] | None = None


class SignedDataAnswer(Answer):
    """A signature."""

    signed_data: WireBase64


class ValidAnswer(Answer):
    """Whether a signature is right."""

    valid: bool


class RekeyPlanAnswer(Answer):
    """What a rekey would make: a CA `new_id` and two certificates across, nothing of it yet."""

    old_id: str
    new_id: str
    engine_id: str
    key_metadata: KeySpecAnswer
    signed_by: str
    valid_to: str
    cross_certificates_valid_to: str


class StatusCountsAnswer(Answer):
    """Certificates by status; those INACTIVE are not counted."""

    ACTIVE: int
    EXPIRED: int
    REVOKED: int


class CasStatsAnswer(Answer):
    """Counts of CAs."""

    total: int
    engine_distribution: dict[str, int]
    status_distribution: dict[str, int]


class CertificatesStatsAnswer(Answer):
    """Counts of certificates."""

    total: int
    ca_distribution: dict[str, int]
    status_distribution: dict[str, int]


class StatsAnswer(Answer):
    """Counts."""

    cas: CasStatsAnswer
    certificates: CertificatesStatsAnswer
