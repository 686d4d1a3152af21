"""CAs and certificates that callers bring: what is read of them, and which are taken in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NoReturn

from asn1crypto import pkcs12 as asn1
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)

from lamassu.kernel.errors import Conflict, Forbidden, LamassuError, Malformed, RuleViolation
from lamassu.kernel.x509.facts import CertificateFacts, certificate_facts
from lamassu.kernel.x509.keys import load_public_key
from lamassu.services.ca.contract import CertificationAuthority
from lamassu.services.ca.rules.adoption import IssuerTable, check_authority, is_signed_by
from lamassu.services.kms.contract import Key, KeyPurpose

LARGEST_PKCS12 = 256 * 1024
# openssl makes 2048 iterations, careful people a million; a second of a processor at most
MOST_ITERATIONS = 2_000_000
# of a processor, for all of a PKCS #12 file: what is encrypted in it may ask for more iterations
MOST_SECONDS = 10
MOST_KEY_ID_OCTETS = 64  # it stands in paths of URLs
MOST_MOVED = 1000
_NO_NAME = b"\x30\x00"


@dataclass(frozen=True, slots=True)
class BroughtCa:
    """A CA that a caller brings: its certificate (DER), perhaps with its private key (PEM or
    DER), or both in PKCS #12."""

    id: str = ""
    profile_id: str = ""
    certificate: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    pkcs12: bytes | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Material:
    """What of a CA was brought, read."""

    certificate: bytes
    private_key: bytes | None = field(default=None, repr=False)


def material_of(brought: BroughtCa) -> Material:
    """Certificate and key, out of whatever they came in. Slow for PKCS #12: leave the loop.

    Raises `Malformed` (`missing_field`, `pkcs12_malformed`) and `RuleViolation` (`key_twice`,
    `certificate_differs`, `pkcs12_not_opened`).
    """
    if brought.password and not brought.pkcs12:
        raise RuleViolation(
            "the password is for pkcs12, which is missing", code="missing_field", field="pkcs12"
        )
    if not brought.pkcs12:
        if brought.certificate is None:
            raise Malformed("ca is missing", code="missing_field", field="ca")
        return Material(brought.certificate, brought.private_key or None)
    if brought.private_key:
        raise RuleViolation(
            "send the key once: private_key, or within pkcs12", code="key_twice", field="pkcs12"
        )
    opened = _opened(brought.pkcs12, brought.password)
    if brought.certificate is not None and brought.certificate != opened.certificate:
        raise RuleViolation(
            "ca and pkcs12 hold different certificates; send one of them",
            code="certificate_differs",
            field="ca",
        )
    return opened


def _opened(content: bytes, password: str) -> Material:
    if len(content) > LARGEST_PKCS12:
        _unreadable(f"pkcs12 has at most {LARGEST_PKCS12 // 1024} KiB")
    try:
        work = sum(_iterations(content))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        _unreadable("pkcs12 is no PKCS #12 file (base64 of it)")
    if work > MOST_ITERATIONS:
        _unreadable(
            f"opening pkcs12 takes {work} iterations, over {MOST_ITERATIONS}; write it anew"
        )
    try:
        found = pkcs12.load_pkcs12(content, password.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise RuleViolation(
            "pkcs12 cannot be opened: the password is wrong, or it is encrypted in a way that is"
            " not supported here",
            code="pkcs12_not_opened",
            field="password",
        ) from None
    certificates = [found.cert] if found.cert else found.additional_certs
    if len(certificates) != 1:
        _unreadable(
            "pkcs12 has no certificate of its key"
            if found.key
            else "pkcs12 has no key, so it has to have one certificate"
        )
    der = certificates[0].certificate.public_bytes(Encoding.DER)
    if found.key is None:
        return Material(der)
    form = (Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return Material(der, found.key.private_bytes(*form))


def _iterations(content: bytes) -> Iterator[int]:
    """What the key derivations of a PKCS #12 file that stand in the open cost."""
    pfx = asn1.Pfx.load(content, strict=True)
    if pfx["mac_data"].native is not None:
        yield pfx["mac_data"]["iterations"].native
    for info in pfx.authenticated_safe:
        kind = info["content_type"].native
        if kind == "encrypted_data":
            inner = info["content"]["encrypted_content_info"]
            yield inner["content_encryption_algorithm"].kdf_iterations
        elif kind == "data":
            for bag in asn1.SafeContents.load(info["content"].native):
                if bag["bag_id"].native == "pkcs8_shrouded_key_bag":
                    yield bag["bag_value"]["encryption_algorithm"].kdf_iterations


def _unreadable(text: str) -> NoReturn:
    raise Malformed(text, code="pkcs12_malformed", field="pkcs12")


def endless_work() -> Malformed:
    """What is told of a PKCS #12 file that did not open in time."""
    return Malformed(
        f"opening pkcs12 takes over {MOST_SECONDS} seconds; write it anew with fewer iterations",
        code="pkcs12_malformed",
        field="pkcs12",
    )


def check_brought_ca(der: bytes, now: datetime) -> CertificateFacts:
    """Refuse what cannot be a CA here.

    Raises `Malformed`, `RuleViolation` (`not_a_ca`, `key_not_allowed`, `certificate_expired`,
    `subject_empty`, `key_id_malformed`, `serial_number_malformed`), field `ca`.
    """
    try:
        facts = certificate_facts(der)
        check_authority(facts)
    except LamassuError as error:
        error.field = "ca"
        raise
    # without the extension a key is for everything (RFC 5280 §4.2.1.3)
    if facts.key_usage and "CertSign" not in facts.key_usage:
        _refused("its key usage lacks keyCertSign: it is no CA certificate", "not_a_ca")
    if now > facts.not_after:
        _refused(f"the CA certificate expired on {facts.not_after:%Y-%m-%d}", "certificate_expired")
    if facts.subject_der == _NO_NAME:
        _refused("a CA needs a subject", "subject_empty")
    if len(facts.ski) > 2 * MOST_KEY_ID_OCTETS:
        _refused(
            f"its subject key identifier has over {MOST_KEY_ID_OCTETS} octets", "key_id_malformed"
        )
    return facts


def check_can_issue(der: bytes, facts: CertificateFacts) -> None:
    """What a CA issues carries its subject as it stands, so it has to be written back alike.

    Raises `RuleViolation` (`subject_malformed`).
    """
    if x509.load_der_x509_certificate(der).subject.public_bytes() != facts.subject_der:
        _refused("its subject cannot be carried over as it stands", "subject_malformed")


def is_self_signed(der: bytes, facts: CertificateFacts) -> bool:
    """Raises `RuleViolation` (`signature_invalid`) for what only looks like a root."""
    if facts.subject_der != facts.issuer_der:
        return False
    certificate = x509.load_der_x509_certificate(der)
    own = is_signed_by(certificate, certificate)
    # else another generation of the same name may have signed it
    if not own and facts.aki in ("", facts.ski):
        _refused(
            "it names itself as its issuer, and its own key did not sign it", "signature_invalid"
        )
    return own


def issuer_among(
    issuers: IssuerTable, der: bytes, facts: CertificateFacts
) -> CertificationAuthority | None:
    """The CA of ours whose key signed this; a name alone makes none its issuer (rule 14)."""
    try:
        return issuers.issuer_of(der, facts)
    except RuleViolation:
        return None


def canonical_key(facts: CertificateFacts) -> bytes:
    """The SubjectPublicKeyInfo as the library writes it, by which the KMS knows keys."""
    key = load_public_key(facts.spki, field="ca")
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def check_key_usable(key: Key | None) -> Key | None:
    """Which key of the KMS may be an imported CA's without having been sent (security rule 9).

    Raises `Forbidden` (`key_not_usable`), `Conflict` (`key_is_general`).
    """
    if key is None:
        return None
    if key.purpose is KeyPurpose.GENERAL:
        raise Conflict(
            "the certificate's key is here as a general key, and a key's purpose never changes:"
            " delete it (lamassu key delete) and send the private key along; for a CA with a new"
            " key under a CA of elsewhere: lamassu ca create --external-root",
            code="key_is_general",
            field="ca",
        )
    if key.purpose is not KeyPurpose.CA:
        raise platform_ca()
    if key.has_signed:
        raise Forbidden(
            "the certificate's key has signed messages of callers, any of which may have been a"
            " certificate: it becomes no CA's",
            code="key_not_usable",
            field="ca",
        )
    return key


def platform_ca() -> Forbidden:
    """The internal CA is no CA of the API's, nor one that a DMS lets in by (decision 2)."""
    return Forbidden(
        "this is the platform's own CA for its admins and services; it cannot be a CA here",
        code="platform_ca",
        field="ca",
    )


def signed_by(
    orphans: Sequence[CertificationAuthority],
    issuer: CertificationAuthority,
    *,
    above: Sequence[str],
) -> list[CertificationAuthority]:
    """Those of these CAs that `issuer` signed; none of `above`, which would be a ring."""
    certificate = x509.load_der_x509_certificate(issuer.certificate.der)
    name = certificate_facts(issuer.certificate.der).subject_der
    return [
        one
        for one in orphans
        if one.id not in above
        and certificate_facts(one.certificate.der).issuer_der == name
        and is_signed_by(x509.load_der_x509_certificate(one.certificate.der), certificate)
    ]


def relinked(
    child: CertificationAuthority, parent: CertificationAuthority
) -> CertificationAuthority:
    """The child below its parent, whose place in the hierarchy may have changed; revoked with it,
    if it is."""
    certificate = replace(
        child.certificate,
        issuer_ca_id=parent.id,
        issuer_serial_number=parent.certificate.serial_number,
        issuer_level=parent.level,
        version=child.certificate.version + 1,
    )
    return replace(
        child,
        certificate=certificate,
        parent_id=parent.id,
        level=parent.level + 1,
        revoked_by=child.revoked_by or parent.revoked_by,
        version=child.version + 1,
    )


def _refused(text: str, code: str) -> NoReturn:
    raise RuleViolation(text, code=code, field="ca")
