"""Building the internal CA's certificates: what each says, unsigned."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from lamassu.kernel.x509.keys import key_id, signature_hash
from lamassu.kernel.x509.lint import linting_key
from lamassu.kernel.x509.names import Subject, name_of
from lamassu.kernel.x509.serials import new_serial_number
from lamassu.services.access import rules
from lamassu.services.access.contract import CredentialKind

ORGANIZATION = "Lamassu"
ROOT_NAME = Subject(common_name="Lamassu Internal Root CA", organization=ORGANIZATION)
ISSUING_NAME = Subject(common_name="Lamassu Internal Issuing CA", organization=ORGANIZATION)


def build_authority(
    *,
    subject: Subject,
    issuer: Subject,
    spki: bytes,
    issuer_key_id: str,
    path_length: int,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    """A CA certificate (RFC 5280 §4.2.1.9); `issuer_key_id` is its own key's for a root."""
    usage = _key_usage(key_cert_sign=True, crl_sign=True)
    return (
        _build(
            subject=subject,
            issuer=issuer,
            spki=spki,
            issuer_key_id=issuer_key_id,
            not_before=not_before,
            not_after=not_after,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(usage, critical=True)
    )


def build_credential(
    kind: CredentialKind,
    name: str,
    *,
    spki: bytes,
    hosts: Sequence[x509.GeneralName],
    issuer_key_id: str,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    """An end-entity certificate: a principal's for clientAuth, one with hosts for serverAuth."""
    subject = Subject(common_name=name, organization=ORGANIZATION)
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] if hosts else []
    names = list(hosts)
    if kind is not CredentialKind.SERVER:
        purposes.append(ExtendedKeyUsageOID.CLIENT_AUTH)
        names.append(x509.UniformResourceIdentifier(rules.principal_uri(kind, name)))
    return (
        _build(
            subject=subject,
            issuer=ISSUING_NAME,
            spki=spki,
            issuer_key_id=issuer_key_id,
            not_before=not_before,
            not_after=not_after,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )


def sign_certificate(
    builder: x509.CertificateBuilder,
    key: CertificateIssuerPrivateKeyTypes,
    *,
    issuer_path: Sequence[bytes],
) -> x509.Certificate:
    """Sign what keeps to RFC 5280. Raises as `check_to_be_signed`, which says what the path is."""
    linting = linting_key(key, issuer_path=issuer_path)
    return builder.sign(linting, signature_hash(key))  # type: ignore[arg-type]


def _build(
    *,
    subject: Subject,
    issuer: Subject,
    spki: bytes,
    issuer_key_id: str,
    not_before: datetime,
    not_after: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(name_of(issuer), name_of(subject))
        .public_key(load_der_public_key(spki))  # type: ignore[arg-type]  # P-256 or P-384, ours
        .serial_number(new_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
        .add_extension(
            x509.SubjectKeyIdentifier(bytes.fromhex(key_id(spki))),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier(bytes.fromhex(issuer_key_id), None, None), critical=False
        )
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )
