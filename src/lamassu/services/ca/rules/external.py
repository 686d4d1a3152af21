"""Certificates that an offline root signed: which of them are taken in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from lamassu.kernel.errors import Conflict, LamassuError, Malformed, RuleViolation
from lamassu.kernel.x509.crls import parse_crl
from lamassu.kernel.x509.csr import CertificateRequest
from lamassu.kernel.x509.facts import CertificateFacts, certificate_facts
from lamassu.kernel.x509.keys import check_key_facts
from lamassu.kernel.x509.pem import ders_of
from lamassu.services.ca.contract import CertificationAuthority
from lamassu.services.ceremony.contract import is_bundle, parse_bundle

# Two hosts' clocks differ a little, and the air-gapped one's is set by hand.
CLOCK_SKEW = timedelta(minutes=5)
_CA_USAGE = {"CertSign", "CRLSign"}


@dataclass(frozen=True, slots=True)
class Delivery:
    """What came back from a ceremony (DER each). `root` may be missing from a plain file.

    `sha256` is that of the file; a ceremony's transcript has its bundle's.
    """

    root: bytes | None
    certificates: Sequence[bytes]
    sha256: str
    crl: bytes | None = None


def parse_delivery(content: bytes, *, production: bool) -> Delivery:
    """Read a ceremony's bundle, verified whole, or certificates as PEM or DER.

    Raises `Malformed`, `RuleViolation` (`bundle_tampered` and the like; `bundle_of_rehearsal`
    in production).
    """
    digest = hashlib.sha256(content).hexdigest()
    if is_bundle(content):
        bundle = parse_bundle(content)
        if production and bundle.is_rehearsal:
            raise RuleViolation(
                "this bundle is of a rehearsal, whose root may be in anybody's hands; production"
                " takes in real ceremonies only",
                code="bundle_of_rehearsal",
                field="signed",
            )
        return Delivery(bundle.root, bundle.certificates, digest, bundle.crl)
    ders = ders_of(content) if b"-----BEGIN" in content else [content]
    facts = [certificate_facts(der) for der in ders]
    roots = [
        der
        for der, found in zip(ders, facts, strict=True)
        if found.subject_der == found.issuer_der and found.is_ca
    ]
    if len(roots) > 1:
        raise Malformed(
            "the file has more than one root", code="certificate_malformed", field="signed"
        )
    others = [der for der in ders if der not in roots]
    return Delivery(roots[0] if roots else None, others, digest)


def check_root(root: bytes, now: datetime) -> CertificateFacts:
    """Refuse what is no root CA in force. Raises `RuleViolation` (`root_refused`)."""
    facts = certificate_facts(root)
    if not is_signed_by(root, root):
        _root_refused("it is not self-signed")
    _check_ca(facts, now, _root_refused)
    return facts


def is_signed_by(certificate: bytes, issuer: bytes) -> bool:
    """By name and signature."""
    try:
        x509.load_der_x509_certificate(certificate).verify_directly_issued_by(
            x509.load_der_x509_certificate(issuer)
        )
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def check_root_is_known(root: bytes, known: CertificationAuthority | None, told: str) -> None:
    """The root is the one of that id, or, when there is none yet, the one whose fingerprint a
    person compared (hex SHA-256 of the certificate).

    Raises `Conflict` (`root_differs`), `RuleViolation` (`root_unconfirmed`).
    """
    facts = certificate_facts(root)
    if known is not None:
        if known.certificate.der != root:
            raise Conflict(
                f"the CA {known.id} has another certificate than the root in this delivery",
                code="root_differs",
                field="signed",
            )
        return
    if told.replace(":", "").replace(" ", "").casefold() != facts.sha256:
        text = (
            "this is not the root that was meant: the fingerprint given is another; if the one"
            " on paper is that, this delivery is forged or of another ceremony"
            if told
            else "this root is not known here yet: compare its fingerprint with the one that was"
            " noted at the ceremony, and give it as root_fingerprint"
        )
        raise RuleViolation(
            f"{text}. The delivery's root has {facts.sha256}",
            code="root_unconfirmed",
            field="root_fingerprint",
        )


def check_answers(
    certificate: bytes, csr: CertificateRequest, root: bytes, delivery: Delivery, now: datetime
) -> CertificateFacts:
    """Refuse a certificate that is not what the CA asked this root for.

    Raises `RuleViolation` (`certificate_refused`).
    """
    facts, above = certificate_facts(certificate), certificate_facts(root)
    if facts.spki != csr.spki:
        _refused("it carries another key than the one that waits for it")
    if facts.subject_der != csr.subject_der:
        _refused("it carries another subject than the one asked for")
    if not is_signed_by(certificate, root):
        _refused("the external root did not sign it")
    _check_ca(facts, now, _refused)
    if facts.not_after > above.not_after:
        _refused("it outlives its root")
    if above.path_length is not None and (
        facts.path_length is None or facts.path_length >= above.path_length
    ):
        _refused(
            f"its path length does not fit: the root's is {above.path_length}, so it has to be"
            " a smaller one"
        )
    if delivery.crl is not None:
        serial = x509.load_der_x509_certificate(certificate).serial_number
        if any(entry.serial_number == serial for entry in parse_crl(delivery.crl).entries):
            _refused("the root's CRL lists it as revoked")
    return facts


def _check_ca(facts: CertificateFacts, now: datetime, refuse: Callable[[str], NoReturn]) -> None:
    if not facts.is_ca or not set(facts.key_usage) >= _CA_USAGE:
        refuse("it is no CA certificate: basicConstraints, keyCertSign and cRLSign are needed")
    if not facts.ski:
        refuse("it has no subject key identifier")
    if now > facts.not_after:
        refuse(f"it expired on {facts.not_after:%Y-%m-%d}")
    if now + CLOCK_SKEW < facts.not_before:
        refuse(f"it is not valid before {facts.not_before:%Y-%m-%d %H:%M} UTC")
    try:
        check_key_facts(facts.key, field="signed")
    except LamassuError as fault:
        refuse(fault.text)


def _refused(fault: str) -> NoReturn:
    raise RuleViolation(
        f"the certificate is refused: {fault}", code="certificate_refused", field="signed"
    )


def _root_refused(fault: str) -> NoReturn:
    raise RuleViolation(f"the root is refused: {fault}", code="root_refused", field="signed")
