"""What `lamassu init` makes inside an installation: the security guide's PKI and a first DMS.

    root-ca                     87600h
     └─ intermediate-ca         43800h
         ├─ manufacturing-ca    17520h
         ├─ fleet-operations-ca 17520h
         └─ development-ca       8760h
    bootstrap-ca                17520h   a root of its own, in no device's trust store

Each part is made only where it is missing, so that an init that was interrupted can be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from lamassu.kernel.errors import Conflict, NotFound
from lamassu.kernel.identity import system_caller
from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract import CryptoEnforcement, IssuanceProfile, Validity
from lamassu.services.ca.model import CaRequest, KeyRequest
from lamassu.services.ca.usecases import CaService
from lamassu.services.dms.model.dms import CertificateExtras, DmsDraft
from lamassu.services.dms.model.settings import (
    CaDistributionSettings,
    ClientCertificateSettings,
    DmsSettings,
    EnrollmentSettings,
    EstAuthentication,
    RegistrationMode,
)
from lamassu.services.dms.usecases import DmsService

CALLER = system_caller("lamassu init")
ORGANIZATION = "Lamassu"

ROOT_CA = "root-ca"
INTERMEDIATE_CA = "intermediate-ca"
MANUFACTURING_CA = "manufacturing-ca"
BOOTSTRAP_CA = "bootstrap-ca"
DEVICE_PROFILE = "device-profile"
BOOTSTRAP_PROFILE = "bootstrap-profile"
FIRST_DMS = "factory-dms"


class KeyType(StrEnum):
    """The keys of CAs, as `init --key-type` takes them."""

    RSA_4096 = "rsa-4096"
    ECDSA_P256 = "ecdsa-p256"
    ECDSA_P384 = "ecdsa-p384"

    @property
    def request(self) -> KeyRequest:
        """What the CA is asked to make."""
        return {
            KeyType.RSA_4096: KeyRequest("RSA", 4096),
            KeyType.ECDSA_P256: KeyRequest("ECDSA", 256),
            KeyType.ECDSA_P384: KeyRequest("ECDSA", 384),
        }[self]


@dataclass(frozen=True, slots=True)
class _Ca:
    """A CA of the hierarchy; `issues` is the profile of its certificates by default."""

    id: str
    common_name: str
    parent: str
    profile: str
    issues: str = DEVICE_PROFILE


def _hours(count: int) -> Validity:
    return Validity(duration=timedelta(hours=count))


_DEVICE_KEYS = CryptoEnforcement(
    enabled=True,
    allow_rsa_keys=True,
    allowed_rsa_key_sizes=(2048, 3072, 4096),
    allow_ecdsa_keys=True,
    allowed_ecdsa_key_sizes=(256, 384),
)


def _ca_profile(profile_id: str, name: str, hours: int, path_length: int) -> IssuanceProfile:
    return IssuanceProfile(
        id=profile_id,
        name=name,
        validity=_hours(hours),
        sign_as_ca=True,
        path_length=path_length,
        key_usage=("CertSign", "CRLSign"),
    )


def _device_profile(profile_id: str, name: str, hours: int) -> IssuanceProfile:
    return IssuanceProfile(
        id=profile_id,
        name=name,
        validity=_hours(hours),
        key_usage=("DigitalSignature",),
        extended_key_usages=("ClientAuth",),
        honor_subject=True,
        honor_extensions=True,
        crypto_enforcement=_DEVICE_KEYS,
    )


# A row of the guide's validity table each; the issuing CAs' two lengths are its hierarchy's.
PROFILES = (
    _ca_profile("root-ca-profile", "Root CA", 87600, 2),
    _ca_profile("bootstrap-ca-profile", "Bootstrap CA (rotate yearly)", 17520, 0),
    _ca_profile("intermediate-ca-profile", "Intermediate CA", 43800, 1),
    _ca_profile("issuing-ca-profile", "Issuing CA", 17520, 0),
    _ca_profile("development-ca-profile", "Issuing CA for development", 8760, 0),
    _device_profile(DEVICE_PROFILE, "Device certificate", 8760),
    _device_profile(BOOTSTRAP_PROFILE, "Bootstrap certificate", 1440),
)

CAS = (
    _Ca(ROOT_CA, "Lamassu Root CA", "", "root-ca-profile"),
    _Ca(BOOTSTRAP_CA, "Lamassu Bootstrap CA", "", "bootstrap-ca-profile", BOOTSTRAP_PROFILE),
    _Ca(INTERMEDIATE_CA, "Lamassu Intermediate CA", ROOT_CA, "intermediate-ca-profile"),
    _Ca(
        MANUFACTURING_CA,
        "Lamassu Issuing CA - Manufacturing",
        INTERMEDIATE_CA,
        "issuing-ca-profile",
    ),
    _Ca(
        "fleet-operations-ca",
        "Lamassu Issuing CA - Fleet Operations",
        INTERMEDIATE_CA,
        "issuing-ca-profile",
    ),
    _Ca(
        "development-ca",
        "Lamassu Issuing CA - Development",
        INTERMEDIATE_CA,
        "development-ca-profile",
    ),
)


async def found_pki(
    ca: CaService, dms: DmsService, *, key_type: KeyType, tell: Callable[[str], None]
) -> None:
    """Make profiles, CAs and the first DMS; `tell` is given a line for each."""
    for profile in PROFILES:
        await _unless_there(ca.create_profile(profile, caller=CALLER))
    tell(f"issuance profiles: {', '.join(profile.id for profile in PROFILES)}")
    # Level by level: the keys of one level (RSA 4096 takes seconds each) are made side by side.
    for parents in ({""}, {ROOT_CA}, {INTERMEDIATE_CA}):
        level = [authority for authority in CAS if authority.parent in parents]
        await asyncio.gather(*(_make_ca(ca, one, key_type, tell) for one in level))
    await _unless_there(dms.create(_first_dms(), caller=CALLER))
    tell(f"DMS: {FIRST_DMS} (pre-registered devices, bootstrap certificates of {BOOTSTRAP_CA})")


async def is_founded(ca: CaService) -> bool:
    """Whether each CA is there, so that `found_pki` would make no key."""
    there = {authority.id for authority in await ca.list_cas()}
    return all(wanted.id in there for wanted in CAS)


async def _make_ca(
    ca: CaService, wanted: _Ca, key_type: KeyType, tell: Callable[[str], None]
) -> None:
    try:
        await ca.get_ca(wanted.id)
    except NotFound:
        authority = await ca.create_ca(_request(wanted, key_type), caller=CALLER)
        tell(f"CA: {authority.id}, until {authority.certificate.not_after:%Y-%m-%d}")


def _request(wanted: _Ca, key_type: KeyType) -> CaRequest:
    return CaRequest(
        id=wanted.id,
        subject=Subject(common_name=wanted.common_name, organization=ORGANIZATION),
        key=key_type.request,
        validity=Validity(),  # the profile's
        parent_id=wanted.parent,
        profile_id=wanted.issues,
        own_profile_id=wanted.profile,
    )


def _first_dms() -> DmsDraft:
    bootstrap = EstAuthentication(
        client_certificate=ClientCertificateSettings(validation_cas=(BOOTSTRAP_CA,))
    )
    settings = DmsSettings(
        enrollment=EnrollmentSettings(
            authentication=bootstrap,
            enrollment_ca=MANUFACTURING_CA,
            registration_mode=RegistrationMode.PRE_REGISTRATION,
            verify_csr_signature=True,
        ),
        ca_distribution=CaDistributionSettings(include_enrollment_ca=True),
        issuance_profile_id=DEVICE_PROFILE,
    )
    return DmsDraft(
        id=FIRST_DMS,
        name="Factory",
        settings=settings,
        # As the security guide asks: a bootstrap certificate enrolls one device.
        enrollment_extras=CertificateExtras(single_use_bootstrap=True),
    )


async def _unless_there(making: Awaitable[object]) -> None:
    with suppress(Conflict):
        await making
