"""A DMS, and the certificates that let devices in through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lamassu.kernel.records import Json
from lamassu.services.dms.model.settings import DmsSettings, RevocationCheck


@dataclass(frozen=True, slots=True)
class Dms:
    """A device manufacturing system; `version` counts its changes."""

    id: str
    name: str
    created_at: datetime
    settings: DmsSettings = field(default_factory=DmsSettings)
    metadata: Mapping[str, Json] = field(default_factory=dict)
    version: int = 1


@dataclass(frozen=True, slots=True)
class CertificateExtras:
    """What the original's `client_certificate_settings` have no members for.

    `None` is what a client left out: those that do not know a setting write back without it.
    """

    require_valid_chain: bool | None = None
    check_revocation: RevocationCheck | None = None
    single_use_bootstrap: bool | None = None


@dataclass(frozen=True, slots=True)
class DmsDraft:
    """A DMS as a client wrote it, before it was judged.

    `seed_spelling` marks the body of the seed, for which missing parts have configured
    defaults and bootstrap certificates count as single use (decisions 17, 27). In the
    original's spelling, what the extras leave out stays as it is stored.
    """

    id: str
    name: str
    settings: DmsSettings
    metadata: Mapping[str, Json] | None = None
    seed_spelling: bool = False
    enrollment_extras: CertificateExtras = CertificateExtras()
    reenrollment_extras: CertificateExtras = CertificateExtras()


@dataclass(frozen=True, slots=True)
class BootstrapUse:
    """The first device that a single-use bootstrap certificate enrolled.

    A certificate is named by its verified issuer (SHA-256 of the issuer's public key, hex) and
    serial number, over all DMSs (rule 18).
    """

    issuer_sha256: str
    serial_number: str
    dms_id: str
    device_id: str
    at: datetime
