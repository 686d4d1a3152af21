"""What an end-entity certificate will say, if all rules allow it: for signing, and for showing."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial

from cryptography import x509

from lamassu.kernel.x509.csr import CertificateRequest
from lamassu.kernel.x509.keys import key_id
from lamassu.kernel.x509.serials import new_serial_number
from lamassu.services.ca.rules.kept_profile import check_profile_kept
from lamassu.services.ca.rules.names import (
    check_alternative_names,
    check_named,
    name_for,
    name_from_der,
    subject_for,
)
from lamassu.services.ca.rules.naming_templates import Variables
from lamassu.services.ca.rules.prepared import PreparedProfile
from lamassu.services.ca.rules.profiles import (
    check_for_devices,
    check_for_end_entities,
    check_key,
)
from lamassu.services.ca.rules.template import (
    CertificateTemplate,
    EncodedExtension,
    alternative_names,
    basic_constraints,
    subject_key_id,
    subject_key_identifier,
    usage_extensions,
)
from lamassu.services.ca.rules.usages import extended_key_usages_for, key_usage_for
from lamassu.services.ca.rules.validity import end_entity_period
from lamassu.services.ca.usecases.issuers import Issuer

_NOT_A_CA = basic_constraints(ca=False)

_usage_extensions = lru_cache(maxsize=256)(usage_extensions)


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for beside the CSR: the fields of an `IssueRequest` that shape a certificate.

    `owner` is the DMS through which a device asks.
    """

    owner: str = ""
    device_id: str = ""
    subject_der: bytes | None = None
    san_der: bytes | None = None


def draft(
    issuer: Issuer,
    prepared: PreparedProfile,
    csr: CertificateRequest,
    wish: Wish,
    *,
    now: datetime,
    own_hosts: Collection[str],
) -> CertificateTemplate:
    """The certificate to sign. Raises `RuleViolation`, `Forbidden`."""
    profile = prepared.profile
    check_for_end_entities(profile, issuer.authority.first_generation)
    if wish.owner:
        check_for_devices(profile)
    check_key(profile, csr.key, field="csr", for_device=bool(wish.owner))
    not_before, not_after = end_entity_period(profile, issuer.authority.certificate, csr.key, now)
    name, san_der = _names(issuer, prepared, csr, wish)
    extensions: list[EncodedExtension] = [
        _NOT_A_CA,
        *_usage_extensions(
            key_usage_for(profile, csr.key_usage, csr.key),
            extended_key_usages_for(profile, csr.extended_key_usages),
        ),
        subject_key_identifier(subject_key_id(csr.spki)),
        issuer.key_identifier,
    ]
    if san_der is not None:
        check_alternative_names(san_der, own_hosts=own_hosts)
        prepared.check_alternative_names(san_der)
        extensions.append(alternative_names(san_der, subject_is_empty=not name.rdns))
    extensions.extend(issuer.publication_under(profile))
    extensions.extend(prepared.extensions)
    return CertificateTemplate(
        subject=name,
        issuer=issuer.name,
        public_key=csr.public_key,
        serial_number=new_serial_number(),
        not_before=not_before,
        not_after=not_after,
        extensions=extensions,
        issuer_path=issuer.path,
        also=(partial(check_profile_kept, profile=profile),),
    )


def _names(
    issuer: Issuer, prepared: PreparedProfile, csr: CertificateRequest, wish: Wish
) -> tuple[x509.Name, bytes | None]:
    """Subject and alternative names (DER). What is carried over from the certificate that is
    renewed goes before what the profile makes, and both are held against its patterns."""
    profile = prepared.profile
    known = _known(issuer, csr, wish) if prepared.needs_variables else None
    if wish.subject_der is not None:
        name = name_from_der(wish.subject_der)
    else:
        made = prepared.subject_from(known) if known is not None else None
        name = name_for(made if made is not None else subject_for(profile, csr.subject))
    prepared.check_subject(name)
    san_der = wish.san_der
    if san_der is None and profile.honor_extensions:
        san_der = csr.san_der
    elif san_der is None and known is not None:
        san_der = prepared.names_from(known)
    check_named(name, san_der)
    return name, san_der


def _known(issuer: Issuer, csr: CertificateRequest, wish: Wish) -> Variables:
    return Variables(
        csr=csr.subject,
        key_id=key_id(csr.spki),
        ca_id=issuer.authority.first_generation,
        device_id=wish.device_id,
        dms_id=wish.owner,
    )
