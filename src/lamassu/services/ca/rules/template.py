"""What a certificate will say, complete but for its signature."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import (
    CertificateIssuerPrivateKeyTypes,
    CertificatePublicKeyTypes,
)
from cryptography.x509.oid import (
    AuthorityInformationAccessOID,
    ExtendedKeyUsageOID,
    ExtensionOID,
)

from lamassu.kernel.x509 import der
from lamassu.kernel.x509.keys import KeyFacts, signature_hash
from lamassu.kernel.x509.lint import linting_key
from lamassu.kernel.x509.signing import signature_algorithm
from lamassu.kernel.x509.usages import extended_key_usage_extension, key_usage_extension
from lamassu.services.ca.contract import IssuanceProfile


@dataclass(frozen=True, slots=True)
class EncodedExtension:
    """An extension as it will stand; `value` is the DER inside it."""

    oid: x509.ObjectIdentifier
    critical: bool
    value: bytes


@dataclass(frozen=True, slots=True)
class CertificateTemplate:
    """A to-be-signed certificate.

    `issuer_path` are the certificates (DER) of the issuer, first, and of the CAs above it, which
    it is held against before the key signs; without any it is self-signed. `also` judge its
    octets after that.
    """

    subject: x509.Name
    issuer: x509.Name
    public_key: CertificatePublicKeyTypes
    serial_number: int
    not_before: datetime
    not_after: datetime
    extensions: Sequence[EncodedExtension]
    issuer_path: Sequence[bytes] = ()
    also: Sequence[Callable[[bytes], None]] = ()

    def signed_with(self, key: CertificateIssuerPrivateKeyTypes) -> bytes:
        """The certificate (DER), signed with the hash that befits the issuer's key.

        Raises `LintRefusal` or `PlatformLintRefusal`, and the key signed nothing, where it would
        break RFC 5280.
        """
        return self._signed(linting_key(key, issuer_path=self.issuer_path, also=self.also))

    def rehearsed(self) -> bytes:
        """The certificate (DER) but for its signature, which a throwaway key makes: something
        for linters to read, and for people to see."""
        return self._signed(ec.generate_private_key(ec.SECP256R1()))

    def to_be_signed(self, issuer: KeyFacts) -> bytes:
        """The TBSCertificate (DER) that the issuer's key would sign. Raises `RuleViolation` for
        a key that signs no certificates."""
        octets = x509.load_der_x509_certificate(self.rehearsed()).tbs_certificate_bytes
        parts = [
            octets[one.start : one.end] for one in der.children(octets, der.sole_element(octets))
        ]
        parts[2] = signature_algorithm(issuer)  # after version and serial number
        return der.encode(der.SEQUENCE, *parts)

    def _signed(self, key: CertificateIssuerPrivateKeyTypes) -> bytes:
        builder = x509.CertificateBuilder(
            issuer_name=self.issuer,
            subject_name=self.subject,
            public_key=self.public_key,
            serial_number=self.serial_number,
        )
        builder = builder.not_valid_before(self.not_before).not_valid_after(self.not_after)
        for extension in self.extensions:
            builder = builder.add_extension(
                x509.UnrecognizedExtension(extension.oid, extension.value),
                critical=extension.critical,
            )
        certificate = builder.sign(key, signature_hash(key))  # type: ignore[arg-type]
        return certificate.public_bytes(serialization.Encoding.DER)


def subject_key_id(spki: bytes) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo (RFC 7093 §2, method 4), as the original has it."""
    return hashlib.sha256(spki).digest()


def basic_constraints(*, ca: bool, path_length: int | None = None) -> EncodedExtension:
    """Critical, in every certificate that we issue."""
    return encoded(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)


def usage_extensions(
    key_usage: Sequence[str], extended_key_usages: Sequence[str]
) -> list[EncodedExtension]:
    """Key usage (critical) and extended key usage (critical for a time stamping authority,
    RFC 3161 §2.3), each only if it names something."""
    found: list[EncodedExtension] = []
    usage = key_usage_extension(key_usage)
    if usage is not None:
        found.append(encoded(usage, critical=True))
    extended = extended_key_usage_extension(extended_key_usages)
    if extended is not None:
        stamps = ExtendedKeyUsageOID.TIME_STAMPING in extended
        found.append(encoded(extended, critical=stamps))
    return found


def subject_key_identifier(digest: bytes) -> EncodedExtension:
    return encoded(x509.SubjectKeyIdentifier(digest), critical=False)


def authority_key_identifier(digest: bytes) -> EncodedExtension:
    return encoded(x509.AuthorityKeyIdentifier(digest, None, None), critical=False)


def alternative_names(san_der: bytes, *, subject_is_empty: bool) -> EncodedExtension:
    """The names as they stand; critical where the subject says nothing (RFC 5280 §4.2.1.6)."""
    return EncodedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, subject_is_empty, san_der)


# What each certificate of a CA says anew; all else its profile made it say.
_OWN = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.FRESHEST_CRL,
    }
)


def carried_extensions(certificate: bytes) -> list[EncodedExtension]:
    """What a next certificate of the same CA says as this one (DER) does: name constraints,
    policies, extensions that we do not know."""
    return [
        EncodedExtension(one.oid, one.critical, one.value.public_bytes())
        for one in x509.load_der_x509_certificate(certificate).extensions
        if one.oid not in _OWN
    ]


@dataclass(frozen=True, slots=True)
class PublicationUrls:
    """Where relying parties find an issuer's OCSP responder, certificate and CRL."""

    ocsp: Sequence[str] = ()
    ca_issuers: Sequence[str] = ()
    crl: Sequence[str] = ()

    def overridden_by(self, profile: IssuanceProfile | None) -> PublicationUrls:
        """A profile's own addresses win, each kind for itself (decision 18)."""
        if profile is None:
            return self
        return PublicationUrls(
            ocsp=profile.ocsp_servers or self.ocsp,
            ca_issuers=profile.ca_issuers or self.ca_issuers,
            crl=profile.crl_distribution_points or self.crl,
        )


def publication_urls(bases: Sequence[str], *, ca_id: str, ski: str) -> PublicationUrls:
    """The addresses under each of the configured validation bases."""
    roots = [base.rstrip("/") for base in bases]
    return PublicationUrls(
        ocsp=tuple(f"{root}/ocsp" for root in roots),
        ca_issuers=tuple(f"{root}/ca/{quote(ca_id, safe='')}.crt" for root in roots),
        crl=tuple(f"{root}/crl/{ski}" for root in roots),
    )


def publication_extensions(urls: PublicationUrls) -> list[EncodedExtension]:
    """Authority information access and CRL distribution points, each only if it has a URL."""
    found: list[EncodedExtension] = []
    access = [
        *(_access(AuthorityInformationAccessOID.OCSP, url) for url in urls.ocsp),
        *(_access(AuthorityInformationAccessOID.CA_ISSUERS, url) for url in urls.ca_issuers),
    ]
    if access:
        found.append(encoded(x509.AuthorityInformationAccess(access), critical=False))
    if urls.crl:
        points = [
            x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
            for url in urls.crl
        ]
        found.append(encoded(x509.CRLDistributionPoints(points), critical=False))
    return found


def _access(method: x509.ObjectIdentifier, url: str) -> x509.AccessDescription:
    return x509.AccessDescription(method, x509.UniformResourceIdentifier(url))


def encoded(value: x509.ExtensionType, *, critical: bool) -> EncodedExtension:
    """An extension that the library knows."""
    return EncodedExtension(value.oid, critical, value.public_bytes())
