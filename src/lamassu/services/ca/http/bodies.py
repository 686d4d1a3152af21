"""Request bodies, in the spellings of the original and of the seed (decisions 8, 16)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from lamassu.kernel.errors import RuleViolation
from lamassu.platform.http import WireModel
from lamassu.platform.http.wire import (
    FreeForm,
    WireBase64,
    WireCsr,
    WireDuration,
)
from lamassu.services.ca.contract import (
    ApprovalPolicy,
    CertificateStatus,
    RevocationReason,
)
from lamassu.services.ca.contract.approvals import DEFAULT_LIFETIME
from lamassu.services.ca.http.profile_bodies import (
    ProfileBody,
    SubjectBody,
    ValidityBody,
    choice,
    inline_profile,
)
from lamassu.services.ca.model import CaRequest, KeyRequest, RekeyRequest, StatusChange
from lamassu.services.kms.contract import MessageType

MISSING = "struct validation error"

_REASONS = {reason.value.casefold(): reason for reason in RevocationReason}


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


Reason = Annotated[RevocationReason, BeforeValidator(_reason)]


class KeyMetadataBody(WireModel):
    """The key that a CA is to have."""

    leftovers = frozenset({"strength"})

    key_id: str = ""
    type: str = ""
    bits: int = 0


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
    type: Annotated[Literal["MANAGED", ""], choice("MANAGED")] = ""
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
