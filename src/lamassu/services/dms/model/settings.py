"""The settings of a DMS, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import cast

from lamassu.kernel.records import Json
from lamassu.services.ca.contract import IssuanceProfile

DEFAULT_RENEWAL_WINDOW = timedelta(days=30)
DEFAULT_ICON = "Cg/CgSmartphoneChip"
DEFAULT_ICON_COLOR = "#0068D1-#FFFFFF"


class EnrollmentProtocol(StrEnum):
    """What enrolment speaks: there is one."""

    EST = "EST_RFC7030"


class AuthMode(StrEnum):
    """How an enrolling device shows that it may. Only the first is built (decision 28)."""

    CLIENT_CERTIFICATE = "CLIENT_CERTIFICATE"
    EXTERNAL_WEBHOOK = "EXTERNAL_WEBHOOK"
    CLIENT_CERTIFICATE_AND_EXTERNAL_WEBHOOK = "CLIENT_CERTIFICATE_AND_EXTERNAL_WEBHOOK"
    NO_AUTH = "NO_AUTH"


class RegistrationMode(StrEnum):
    """Whether enrolment makes the device, or expects it."""

    JITP = "JITP"
    PRE_REGISTRATION = "PRE_REGISTRATION"


class RevocationCheck(StrEnum):
    """What a certificate is worth whose status none of our CAs knows (decision 22).

    The status of what our own CAs issued is always asked for, in every mode.
    """

    REQUIRED = "true"
    IF_AVAILABLE = "if_available"
    OFF = "false"


@dataclass(frozen=True, slots=True)
class ClientCertificateSettings:
    """Which client certificates enroll.

    `chain_level_validation` keeps that many presented certificates, 0 all of them.
    `single_use_bootstrap` binds a certificate to the first device that it enrolled.
    """

    validation_cas: tuple[str, ...] = ()
    chain_level_validation: int = 0
    allow_expired: bool = False
    require_valid_chain: bool = True
    check_revocation: RevocationCheck = RevocationCheck.REQUIRED
    single_use_bootstrap: bool = False


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Whom to ask about an enrolment, once webhooks are built. No secret is kept here."""

    name: str = ""
    url: str = ""
    method: str = ""
    validate_server_cert: bool = True
    log_level: str = ""
    auth_mode: str = ""
    call_timeout: timedelta = timedelta(0)
    oidc_client_id: str = ""
    oidc_well_known: str = ""
    apikey_header: str = ""


@dataclass(frozen=True, slots=True)
class EstAuthentication:
    """How EST requests are authenticated; no `mode` means by the certificate."""

    mode: AuthMode | None = None
    client_certificate: ClientCertificateSettings = field(default_factory=ClientCertificateSettings)
    external_webhook: WebhookSettings | None = None


@dataclass(frozen=True, slots=True)
class ProvisioningProfile:
    """What a device looks like that enrolment makes."""

    icon: str = ""
    icon_color: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)  # JSON
    tags: tuple[str, ...] = ()

    @property
    def json_metadata(self) -> Mapping[str, Json]:
        """The metadata, as the JSON that it is."""
        return cast("Mapping[str, Json]", self.metadata)


@dataclass(frozen=True, slots=True)
class EnrollmentSettings:
    """The first certificate. `enrollment_ca` issues, and is an anchor of re-enrolment.

    `verify_csr_signature` is kept for its readers; signatures are always verified
    (decision 14).
    """

    protocol: EnrollmentProtocol = EnrollmentProtocol.EST
    authentication: EstAuthentication = field(default_factory=EstAuthentication)
    provisioning_profile: ProvisioningProfile = field(default_factory=ProvisioningProfile)
    enrollment_ca: str = ""
    enable_replaceable_enrollment: bool = False
    registration_mode: RegistrationMode = RegistrationMode.PRE_REGISTRATION
    verify_csr_signature: bool = False


@dataclass(frozen=True, slots=True)
class ReenrollmentSettings:
    """The next certificates. Deltas count back from the current certificate's end."""

    authentication: EstAuthentication = field(default_factory=EstAuthentication)
    additional_validation_cas: tuple[str, ...] = ()
    revoke_on_reenrollment: bool = False
    reenrollment_delta: timedelta = timedelta(0)
    enable_expired_renewal: bool = False
    preventive_delta: timedelta = timedelta(0)
    critical_delta: timedelta = timedelta(0)

    @property
    def renewal_window(self) -> timedelta:
        """How long before its end a certificate may be renewed; unset is 30 days."""
        return self.reenrollment_delta or DEFAULT_RENEWAL_WINDOW


@dataclass(frozen=True, slots=True)
class CaDistributionSettings:
    """What `cacerts` hands out. `include_system_ca` is kept and adds nothing: the platform's
    own TLS is the internal CA's, which no device ought to trust for others (rule 16)."""

    include_system_ca: bool = False
    include_enrollment_ca: bool = True
    managed_cas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerKeygenSettings:
    """Keys made by the server; kept, not served yet."""

    enabled: bool = False
    key_type: str = ""
    key_bits: int = 0


@dataclass(frozen=True, slots=True)
class RenewalPolicy:
    """What the seed's spelling adds to the renewal window: for agents and notifications."""

    auto_renew_enabled: bool = True
    notification_days_before_expiry: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class DmsSettings:
    """The whole tree. An inline `issuance_profile` yields to `issuance_profile_id`; without
    both, the enrolment CA's own default decides."""

    server_keygen: ServerKeygenSettings = field(default_factory=ServerKeygenSettings)
    enrollment: EnrollmentSettings = field(default_factory=EnrollmentSettings)
    reenrollment: ReenrollmentSettings = field(default_factory=ReenrollmentSettings)
    ca_distribution: CaDistributionSettings = field(default_factory=CaDistributionSettings)
    issuance_profile_id: str = ""
    issuance_profile: IssuanceProfile | None = None
    renewal_policy: RenewalPolicy | None = None
