"""DMS bodies as clients write them, in the original's spelling and in the seed's."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AliasChoices, BeforeValidator, Field

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.x509.names import Subject
from lamassu.kernel.x509.usages import parse_extended_key_usage, parse_key_usage
from lamassu.platform.http.wire import (
    FreeForm,
    WireDuration,
    WireModel,
    WireTimeOrZero,
)
from lamassu.services.ca.contract import CryptoEnforcement, IssuanceProfile, Validity
from lamassu.services.dms.model.dms import CertificateExtras, DmsDraft
from lamassu.services.dms.model.settings import (
    AuthMode,
    CaDistributionSettings,
    ClientCertificateSettings,
    DmsSettings,
    EnrollmentProtocol,
    EnrollmentSettings,
    EstAuthentication,
    ProvisioningProfile,
    ReenrollmentSettings,
    RegistrationMode,
    RenewalPolicy,
    RevocationCheck,
    ServerKeygenSettings,
    WebhookSettings,
)

M = TypeVar("M", bound=WireModel)

_PROTOCOLS = {"": EnrollmentProtocol.EST, "EST": EnrollmentProtocol.EST} | {
    protocol.value: protocol for protocol in EnrollmentProtocol
}
_SEED_PROTOCOL = "EST"
_SEED_TYPES = {mode.value.casefold(): mode for mode in AuthMode}
_WEBHOOK_MODES = {
    name: canonical
    for canonical, names in {
        "": ("",),
        "noauth": ("noauth", "NO_AUTH"),
        "jwt": ("jwt", "OIDC"),
        "apikey": ("apikey", "API_KEY"),
        "mtls": ("mtls", "MTLS"),
    }.items()
    for name in names
}
_CHECKS: dict[bool | str, RevocationCheck] = {
    True: RevocationCheck.REQUIRED,
    False: RevocationCheck.OFF,
    "if_available": RevocationCheck.IF_AVAILABLE,
}

Tag = Annotated[str, Field(max_length=256)]  # every device that enrols gets it
Ids = Annotated[list[str], Field(max_length=64)]
Bound = Annotated[int, Field(ge=-(2**31), lt=2**31)]


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


Usages = Annotated[list[str], BeforeValidator(_one_or_many), Field(max_length=32)]


class ClientCertificateBody(WireModel):
    """Which client certificates count."""

    validation_cas: Ids = Field(default_factory=list)
    chain_level_validation: Bound = 0
    allow_expired: bool = False
    # beyond the original; left out by clients that do not know them
    require_valid_chain: bool | None = None
    check_revocation: bool | Literal["if_available"] | None = None
    single_use_bootstrap: bool | None = None

    def extras(self) -> CertificateExtras:
        check = self.check_revocation
        return CertificateExtras(
            require_valid_chain=self.require_valid_chain,
            check_revocation=None if check is None else _CHECKS[check],
            single_use_bootstrap=self.single_use_bootstrap,
        )


class SeedAuthenticationBody(WireModel):
    """The seed's spelling of the authentication."""

    type: str = "client_certificate"
    client_certificate: ClientCertificateBody | None = None


class OidcBody(WireModel):
    """Client credentials of a webhook."""

    client_id: str = ""
    client_secret: str = ""
    well_known: str = ""


class ApiKeyBody(WireModel):
    """The header of a webhook."""

    key: str = ""
    header: str = ""


class MtlsBody(WireModel):
    """The client certificate of a webhook."""

    cert: str = ""
    key: str = ""


class WebhookConfigBody(WireModel):
    """How a webhook is called."""

    validate_server_cert: bool = True
    log_level: str = ""
    auth_mode: str = ""
    call_timeout: WireDuration = timedelta(0)
    oidc: OidcBody = Field(
        default_factory=OidcBody, validation_alias=AliasChoices("oidc", "oidc_auth")
    )
    apikey: ApiKeyBody = Field(
        default_factory=ApiKeyBody, validation_alias=AliasChoices("apikey", "api_key_auth")
    )
    mtls: MtlsBody = Field(
        default_factory=MtlsBody, validation_alias=AliasChoices("mtls", "mtls_auth")
    )


class WebhookBody(WireModel):
    """Whom to ask about an enrolment."""

    name: str = ""
    url: str = Field(default="", max_length=2048)
    method: Literal["", "POST", "PUT"] = ""
    config: WebhookConfigBody = Field(default_factory=WebhookConfigBody)


class EstBody(WireModel):
    """EST authentication: the original's members, and `authentication` of the seed."""

    auth_mode: str = ""
    client_certificate_settings: ClientCertificateBody | None = None
    external_webhook_settings: WebhookBody | None = None
    authentication: SeedAuthenticationBody | None = None


class ProvisioningBody(WireModel):
    """What a device looks like that enrolment makes."""

    icon: str = Field(default="", max_length=256)
    icon_color: str = Field(default="", max_length=256)
    metadata: FreeForm = Field(default_factory=dict)
    tags: list[Tag] = Field(default_factory=list, max_length=256)


class EnrollmentBody(WireModel):
    """The first certificate."""

    leftovers = frozenset({"issuance_profile_id"})

    protocol: str = ""
    est_rfc7030_settings: EstBody = Field(default_factory=EstBody)
    device_provisioning_profile: ProvisioningBody = Field(default_factory=ProvisioningBody)
    enrollment_ca: str = ""
    enable_replaceable_enrollment: bool = False
    registration_mode: str = ""
    verify_csr_signature: bool = False


class ReenrollmentBody(WireModel):
    """The next certificates."""

    est_rfc7030_settings: EstBody = Field(default_factory=EstBody)
    additional_validation_cas: Ids = Field(default_factory=list)
    revoke_on_reenrollment: bool = False
    reenrollment_delta: WireDuration = timedelta(0)
    enable_expired_renewal: bool = False
    preventive_delta: WireDuration = timedelta(0)
    critical_delta: WireDuration = timedelta(0)


class CaDistributionBody(WireModel):
    """What `cacerts` hands out."""

    include_system_ca: bool = False
    include_enrollment_ca: bool = True
    managed_cas: Ids = Field(default_factory=list)


class KeygenKeyBody(WireModel):
    """The key that a server makes."""

    type: Literal["", "0", "RSA", "ECDSA", "DSA", "Ed25519"] = ""
    bits: Bound = 0


class KeygenBody(WireModel):
    """Whether and how the server makes keys."""

    enabled: bool = False
    key: KeygenKeyBody = Field(default_factory=KeygenKeyBody)


class ValidityBody(WireModel):
    """How long certificates live."""

    type: Literal["Duration", "Time", ""] = "Duration"
    duration: WireDuration = timedelta(0)
    time: WireTimeOrZero = None


class SubjectBody(WireModel):
    """A subject; the seed's `state_province` is passed over."""

    leftovers = frozenset({"state_province"})

    common_name: str = ""
    organization: str = ""
    organization_unit: str = ""
    country: str = ""
    state: str = ""
    locality: str = ""


class CryptoEnforcementBody(WireModel):
    """Which keys are certified."""

    enabled: bool = False
    allow_rsa_keys: bool = False
    allowed_rsa_key_sizes: list[Bound] | None = None
    allow_ecdsa_keys: bool = False
    allowed_ecdsa_key_sizes: list[Bound] | None = None


class ProfileBody(WireModel):
    """An inline issuance profile."""

    id: str = ""
    name: str = ""
    description: str = ""
    validity: ValidityBody = Field(default_factory=ValidityBody)
    sign_as_ca: bool = False
    honor_key_usage: bool = False
    key_usage: Usages = Field(default_factory=list)
    honor_extended_key_usages: bool = False
    extended_key_usages: Usages = Field(default_factory=list)
    honor_subject: bool = False
    subject: SubjectBody = Field(default_factory=SubjectBody)
    honor_extensions: bool = False
    crypto_enforcement: CryptoEnforcementBody = Field(default_factory=CryptoEnforcementBody)


class RenewalPolicyBody(WireModel):
    """The seed's renewal policy."""

    renewal_window_days: int | None = Field(default=None, ge=1, le=36_500)
    auto_renew_enabled: bool = True
    notification_days_before_expiry: list[Annotated[int, Field(ge=0, le=36_500)]] = Field(
        default_factory=list, max_length=32
    )


class SettingsBody(WireModel):
    """The settings tree."""

    server_keygen_settings: KeygenBody = Field(default_factory=KeygenBody)
    enrollment_settings: EnrollmentBody = Field(default_factory=EnrollmentBody)
    reenrollment_settings: ReenrollmentBody = Field(default_factory=ReenrollmentBody)
    ca_distribution_settings: CaDistributionBody = Field(default_factory=CaDistributionBody)
    issuance_profile_id: str = ""
    issuance_profile: ProfileBody | None = None
    renewal_policy: RenewalPolicyBody | None = None


class DmsBody(WireModel):
    """A DMS to be made or replaced; in the seed's spelling the id is also the name."""

    leftovers = frozenset({"creation_ts"})
    missing_text = "struct validation error"

    id: str = ""
    name: str = ""
    metadata: FreeForm | None = None
    settings: SettingsBody = Field(default_factory=SettingsBody)
    renewal_policy: RenewalPolicyBody | None = None


def draft_of(body: DmsBody, *, dms_id: str | None = None) -> DmsDraft:
    """The draft that the body means; `dms_id` is the path's, which decides.

    Raises `Malformed`, `RuleViolation`.
    """
    if dms_id is not None and body.id not in ("", dms_id):
        raise Malformed(
            f"the path says {dms_id[:64]}, the body another id", code="id_mismatch", field="id"
        )
    identifier = body.id if dms_id is None else dms_id
    settings = body.settings
    policy = _same(settings.renewal_policy, body.renewal_policy, field="settings.renewal_policy")
    enrollment = settings.enrollment_settings
    seed = _is_seed_spelling(enrollment)
    est, again = enrollment.est_rfc7030_settings, settings.reenrollment_settings
    return DmsDraft(
        id=identifier,
        name=body.name or (identifier if seed else ""),
        settings=_settings(settings, policy),
        metadata=body.metadata,
        seed_spelling=seed,
        enrollment_extras=_certificate_body(
            est, "settings.enrollment_settings.est_rfc7030_settings"
        ).extras(),
        reenrollment_extras=_certificate_body(
            again.est_rfc7030_settings, "settings.reenrollment_settings.est_rfc7030_settings"
        ).extras(),
    )


def _is_seed_spelling(enrollment: EnrollmentBody) -> bool:
    seed_protocol = enrollment.protocol.upper() == _SEED_PROTOCOL
    return seed_protocol or enrollment.est_rfc7030_settings.authentication is not None


def _settings(body: SettingsBody, policy: RenewalPolicyBody | None) -> DmsSettings:
    keygen, distribution = body.server_keygen_settings, body.ca_distribution_settings
    profile = body.issuance_profile
    return DmsSettings(
        server_keygen=ServerKeygenSettings(keygen.enabled, keygen.key.type, keygen.key.bits),
        enrollment=_enrollment(body.enrollment_settings),
        reenrollment=_reenrollment(body.reenrollment_settings, policy),
        ca_distribution=CaDistributionSettings(
            include_system_ca=distribution.include_system_ca,
            include_enrollment_ca=distribution.include_enrollment_ca,
            managed_cas=tuple(distribution.managed_cas),
        ),
        issuance_profile_id=body.issuance_profile_id,
        issuance_profile=_profile(profile) if profile is not None else None,
        renewal_policy=None
        if policy is None
        else RenewalPolicy(
            auto_renew_enabled=policy.auto_renew_enabled,
            notification_days_before_expiry=tuple(policy.notification_days_before_expiry),
        ),
    )


def _enrollment(body: EnrollmentBody) -> EnrollmentSettings:
    path = "settings.enrollment_settings"
    protocol = _PROTOCOLS.get(body.protocol.upper())
    if protocol is None:
        raise RuleViolation(
            "unknown protocol; enrolment speaks EST_RFC7030",
            code="invalid_value",
            field=f"{path}.protocol",
        )
    looks = body.device_provisioning_profile
    return EnrollmentSettings(
        protocol=protocol,
        authentication=_authentication(body.est_rfc7030_settings, f"{path}.est_rfc7030_settings"),
        provisioning_profile=ProvisioningProfile(
            icon=looks.icon,
            icon_color=looks.icon_color,
            metadata=looks.metadata,
            tags=tuple(looks.tags),
        ),
        enrollment_ca=body.enrollment_ca,
        enable_replaceable_enrollment=body.enable_replaceable_enrollment,
        registration_mode=_registration_mode(body.registration_mode, f"{path}.registration_mode"),
        verify_csr_signature=body.verify_csr_signature,
    )


def _registration_mode(text: str, field: str) -> RegistrationMode:
    if not text:
        return RegistrationMode.PRE_REGISTRATION
    try:
        return RegistrationMode(text)
    except ValueError:
        raise RuleViolation(
            f"unknown registration mode; known are {', '.join(RegistrationMode)}",
            code="invalid_value",
            field=field,
        ) from None


def _reenrollment(body: ReenrollmentBody, policy: RenewalPolicyBody | None) -> ReenrollmentSettings:
    delta = body.reenrollment_delta
    if policy is not None and policy.renewal_window_days is not None:
        window = timedelta(days=policy.renewal_window_days)
        if delta not in (timedelta(0), window):
            raise _two_spellings("settings.renewal_policy.renewal_window_days")
        delta = window
    return ReenrollmentSettings(
        authentication=_authentication(
            body.est_rfc7030_settings, "settings.reenrollment_settings.est_rfc7030_settings"
        ),
        additional_validation_cas=tuple(body.additional_validation_cas),
        revoke_on_reenrollment=body.revoke_on_reenrollment,
        reenrollment_delta=delta,
        enable_expired_renewal=body.enable_expired_renewal,
        preventive_delta=body.preventive_delta,
        critical_delta=body.critical_delta,
    )


def _authentication(body: EstBody, path: str) -> EstAuthentication:
    certificate = _certificate_body(body, path)
    webhook = body.external_webhook_settings
    return EstAuthentication(
        mode=_auth_mode(body, path),
        client_certificate=ClientCertificateSettings(
            validation_cas=tuple(certificate.validation_cas),
            chain_level_validation=certificate.chain_level_validation,
            allow_expired=certificate.allow_expired,
        ),
        external_webhook=None
        if webhook is None
        else _webhook(webhook, f"{path}.external_webhook_settings"),
    )


def _auth_mode(body: EstBody, path: str) -> AuthMode | None:
    modes = {mode.value: mode for mode in AuthMode}
    if body.auth_mode and body.auth_mode not in modes:
        raise RuleViolation(
            f"unknown authentication mode; known are {', '.join(modes)}",
            code="invalid_value",
            field=f"{path}.auth_mode",
        )
    original = modes.get(body.auth_mode)
    if body.authentication is None:
        return original
    seed = _SEED_TYPES.get(body.authentication.type.casefold())
    if seed is None:
        raise RuleViolation(
            f"unknown authentication type; known are {', '.join(_SEED_TYPES)}",
            code="invalid_value",
            field=f"{path}.authentication.type",
        )
    if original not in (None, seed):
        raise _two_spellings(f"{path}.authentication.type")
    return seed


def _certificate_body(body: EstBody, path: str) -> ClientCertificateBody:
    seed = body.authentication.client_certificate if body.authentication else None
    stated = _same(
        body.client_certificate_settings, seed, field=f"{path}.authentication.client_certificate"
    )
    return stated or ClientCertificateBody()


def _webhook(body: WebhookBody, path: str) -> WebhookSettings:
    config = body.config
    for name, secret in (
        ("oidc.client_secret", config.oidc.client_secret),
        ("apikey.key", config.apikey.key),
        ("mtls.key", config.mtls.key),
        ("mtls.cert", config.mtls.cert),
    ):
        if secret:
            raise RuleViolation(
                "secrets of webhooks cannot be kept yet; leave it out until webhooks are built",
                code="secret_storage_not_available",
                field=f"{path}.config.{name}",
            )
    if config.auth_mode not in _WEBHOOK_MODES:
        raise RuleViolation(
            "unknown authentication mode of a webhook; known are noauth, jwt, apikey, mtls",
            code="invalid_value",
            field=f"{path}.config.auth_mode",
        )
    _check_url(body.url, f"{path}.url")
    return WebhookSettings(
        name=body.name,
        url=body.url,
        method=body.method,
        validate_server_cert=config.validate_server_cert,
        log_level=config.log_level,
        auth_mode=_WEBHOOK_MODES[config.auth_mode],
        call_timeout=config.call_timeout,
        oidc_client_id=config.oidc.client_id,
        oidc_well_known=config.oidc.well_known,
        apikey_header=config.apikey.header,
    )


def _check_url(url: str, field: str) -> None:
    """http(s) to a host; a password in it would be a secret kept in clear."""
    if not url:
        return
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        sound = False
    if not sound or "@" in parts.netloc:
        raise RuleViolation(
            "url must be http(s)://host..., without a user or password in it",
            code="invalid_value",
            field=field,
        )


def _profile(body: ProfileBody) -> IssuanceProfile:
    path, validity, keys = "settings.issuance_profile", body.validity, body.crypto_enforcement
    by_time = validity.type == "Time"
    if (validity.time is None) if by_time else validity.duration <= timedelta(0):
        raise RuleViolation(
            "validity needs a duration above zero, or a time with type Time",
            code="invalid_value",
            field=f"{path}.validity",
        )
    return IssuanceProfile(
        id=body.id,
        name=body.name,
        description=body.description,
        validity=Validity(
            duration=None if by_time else validity.duration,
            not_after=validity.time if by_time else None,
        ),
        sign_as_ca=body.sign_as_ca,
        honor_key_usage=body.honor_key_usage,
        key_usage=tuple(
            parse_key_usage(name, field=f"{path}.key_usage") for name in body.key_usage
        ),
        honor_extended_key_usages=body.honor_extended_key_usages,
        extended_key_usages=tuple(
            parse_extended_key_usage(name, field=f"{path}.extended_key_usages")
            for name in body.extended_key_usages
        ),
        honor_subject=body.honor_subject,
        subject=Subject(**body.subject.model_dump()),
        honor_extensions=body.honor_extensions,
        crypto_enforcement=CryptoEnforcement(
            enabled=keys.enabled,
            allow_rsa_keys=keys.allow_rsa_keys,
            allowed_rsa_key_sizes=_sizes(keys.allowed_rsa_key_sizes),
            allow_ecdsa_keys=keys.allow_ecdsa_keys,
            allowed_ecdsa_key_sizes=_sizes(keys.allowed_ecdsa_key_sizes),
        ),
    )


def _sizes(sizes: list[int] | None) -> tuple[int, ...] | None:
    return None if sizes is None else tuple(sizes)


def _same(one: M | None, other: M | None, *, field: str) -> M | None:
    """What either spelling says; both must say the same (rule 31)."""
    if one is not None and other is not None and one != other:
        raise _two_spellings(field)
    return one if one is not None else other


def _two_spellings(field: str) -> Malformed:
    return Malformed(
        f"{field} says something else than its other spelling; send one of them",
        code="conflicting_fields",
        field=field,
    )
