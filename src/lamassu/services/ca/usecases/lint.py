"""All linters over what is new, before a key signs it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.x509.keys import key_facts
from lamassu.kernel.x509.lint import LINT_FAILED, LintRefusal
from lamassu.kernel.x509.lint.pkix import check_by_linters
from lamassu.kernel.x509.names import Subject, name_of
from lamassu.kernel.x509.serials import new_serial_number
from lamassu.services.ca.contract import IssuanceProfile
from lamassu.services.ca.rules.prepared import prepared
from lamassu.services.ca.rules.template import (
    CertificateTemplate,
    PublicationUrls,
    alternative_names,
    authority_key_identifier,
    basic_constraints,
    publication_extensions,
    subject_key_id,
    subject_key_identifier,
    usage_extensions,
)
from lamassu.services.ca.rules.usages import (
    ca_key_usage,
    extended_key_usages_for,
    key_usage_for,
)
from lamassu.services.ca.rules.validity import DEFAULT_VALIDITY, end_of, is_set

_PRETENDED = name_of(Subject(common_name="A CA for a rehearsal"))
_END_OF_TIME = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
# A number that no key has, odd and of 2048 bits: nothing is ever encrypted or signed with it.
_SOME_RSA_KEY = rsa.RSAPublicNumbers(65537, (1 << 2047) + (1 << 1024) + 1).public_key()


async def lint_whole(*templates: CertificateTemplate) -> None:
    """Hold certificates that will be signed against all of pkilint's PKIX linters, in a thread.

    For a new CA and its cross-certificates; what is cheap is checked at every signature. Raises
    `LintRefusal`.
    """
    for template in templates:
        await asyncio.to_thread(check_by_linters, template.rehearsed())


async def lint_profile(profile: IssuanceProfile, now: datetime) -> None:
    """Refuse a profile whose certificates no key would sign.

    A certificate with all that the profile itself decides is made by a CA that exists for this
    moment only, with a throwaway key, and held against every rule and linter: in a thread, with
    nothing locked. Raises `RuleViolation` (`lint_failed`).
    """
    try:
        await asyncio.to_thread(_rehearse, profile, now)
    except LintRefusal as refusal:
        raise RuleViolation(
            f"no certificate could be issued under this profile: {refusal.text}",
            code=LINT_FAILED,
            field=refusal.field,
        ) from None


def _rehearse(profile: IssuanceProfile, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    start = now.replace(microsecond=0)
    identifier = subject_key_id(_spki(key.public_key()))
    root = CertificateTemplate(
        subject=_PRETENDED,
        issuer=_PRETENDED,
        public_key=key.public_key(),
        serial_number=new_serial_number(),
        not_before=start,
        not_after=_END_OF_TIME,
        extensions=(
            basic_constraints(ca=True),
            *usage_extensions(ca_key_usage(None), ()),
            subject_key_identifier(identifier),
            authority_key_identifier(identifier),
        ),
    )
    issuer = root.signed_with(key)
    for public_key in _sample_keys(profile):
        template = _sample(profile, public_key, identifier, start)
        check_by_linters(replace(template, issuer_path=(issuer,)).signed_with(key))


def _sample_keys(profile: IssuanceProfile) -> Sequence[CertificatePublicKeyTypes]:
    """A key of each kind that the profile takes, whose usages differ."""
    allowed = profile.crypto_enforcement
    found: list[CertificatePublicKeyTypes] = []
    if not allowed.enabled or allowed.allow_ecdsa_keys:
        found.append(ec.generate_private_key(ec.SECP256R1()).public_key())
    if not allowed.enabled or allowed.allow_rsa_keys:
        found.append(_SOME_RSA_KEY)
    return found or [ed25519.Ed25519PrivateKey.generate().public_key()]


def _sample(
    profile: IssuanceProfile, key: CertificatePublicKeyTypes, issuer_key_id: bytes, start: datetime
) -> CertificateTemplate:
    spki = _spki(key)
    ready = prepared(profile)
    if profile.sign_as_ca:
        kind = basic_constraints(ca=True, path_length=profile.path_length)
        usages = usage_extensions(ca_key_usage(profile), profile.extended_key_usages)
    else:
        kind = basic_constraints(ca=False)
        # of what is honoured nothing is known yet
        usages = usage_extensions(
            key_usage_for(profile, (), key_facts(spki)), extended_key_usages_for(profile, ())
        )
    names = None if profile.sign_as_ca else ready.fixed_names()
    urls = PublicationUrls().overridden_by(profile)
    return CertificateTemplate(
        subject=_subject(profile),
        issuer=_PRETENDED,
        public_key=key,
        serial_number=new_serial_number(),
        not_before=start,
        not_after=(
            end_of(profile.validity, start, field="validity")
            if is_set(profile.validity)
            else start + DEFAULT_VALIDITY
        ),
        extensions=(
            kind,
            *usages,
            subject_key_identifier(subject_key_id(spki)),
            authority_key_identifier(issuer_key_id),
            *([alternative_names(names, subject_is_empty=False)] if names is not None else []),
            *publication_extensions(urls),
            *ready.extensions,
        ),
    )


def _subject(profile: IssuanceProfile) -> x509.Name:
    own = profile.subject
    return name_of(own if own.common_name else replace(own, common_name="a rehearsal"))


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
