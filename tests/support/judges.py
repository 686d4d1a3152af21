"""Judges that nobody here wrote: pkilint's PKIX linters and openssl.

`lint_*` return findings in words (none is what we want); the `openssl` functions run the
program of the machine on files in a directory of their own and return what it said.
"""

from __future__ import annotations

import base64
import subprocess
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from pkilint import loader, pkix
from pkilint.pkix import certificate, crl, extension, name, ocsp
from pkilint.validation import ValidationFindingSeverity


@lru_cache(maxsize=1)
def _certificate_validator() -> Any:
    return certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(
            name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS
        ),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )


@lru_cache(maxsize=1)
def _crl_validator() -> Any:
    return crl.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            crl.create_issuer_validator_container([]),
            crl.create_validity_validator_container([]),
            crl.create_extensions_validator_container([]),
        ],
    )


@lru_cache(maxsize=1)
def _ocsp_validator() -> Any:
    return ocsp.create_pkix_ocsp_response_validator_container(
        [
            ocsp.create_response_decoder(),
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [],
    )


def _findings(
    validator: Any, document: Any, least: ValidationFindingSeverity, allowed: Sequence[str]
) -> list[str]:
    return [
        f"{finding.finding.severity.name} {finding.finding.code} at {result.node.path}"
        f"{': ' + finding.message if finding.message else ''}"
        for result in validator.validate(document.root)
        for finding in result.finding_descriptions
        if finding.finding.severity <= least and finding.finding.code not in allowed
    ]


def lint_certificate(
    der: bytes,
    *,
    least: ValidationFindingSeverity = ValidationFindingSeverity.WARNING,
    allowed: Sequence[str] = (),
) -> list[str]:
    """Findings of at least this severity of RFC 5280's linter; `allowed` names codes to pass."""
    document = loader.RFC5280CertificateDocumentLoader().load_der_document(der)
    return _findings(_certificate_validator(), document, least, allowed)


def lint_crl(
    der: bytes,
    *,
    least: ValidationFindingSeverity = ValidationFindingSeverity.WARNING,
    allowed: Sequence[str] = (),
) -> list[str]:
    """The same for a CRL."""
    document = loader.RFC5280CertificateListDocumentLoader().load_der_document(der)
    return _findings(_crl_validator(), document, least, allowed)


def lint_ocsp(
    der: bytes,
    *,
    least: ValidationFindingSeverity = ValidationFindingSeverity.WARNING,
    allowed: Sequence[str] = (),
) -> list[str]:
    """The same for an OCSP response (RFC 6960)."""
    document = loader.RFC6960OCSPResponseDocumentLoader().load_der_document(der)
    return _findings(_ocsp_validator(), document, least, allowed)


def _pem(der: bytes, label: str) -> bytes:
    return (
        f"-----BEGIN {label}-----\n".encode()
        + base64.encodebytes(der)
        + f"-----END {label}-----\n".encode()
    )


def _openssl(arguments: Sequence[str], directory: str, stdin: bytes = b"") -> tuple[int, str]:
    done = subprocess.run(
        ["openssl", *arguments], cwd=directory, input=stdin, capture_output=True, check=False
    )
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


def openssl_verify(
    leaf: bytes,
    *,
    anchors: Sequence[bytes],
    intermediates: Sequence[bytes] = (),
    crls: Sequence[bytes] = (),
    at: int | None = None,
    options: Sequence[str] = (),
) -> tuple[bool, str]:
    """`openssl verify`; with `crls` also `-crl_check`. `at` is a POSIX time."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "leaf.pem").write_bytes(_pem(leaf, "CERTIFICATE"))
        (place / "anchors.pem").write_bytes(b"".join(_pem(a, "CERTIFICATE") for a in anchors))
        arguments = ["verify", "-x509_strict", "-CAfile", "anchors.pem", *options]
        if intermediates:
            (place / "between.pem").write_bytes(
                b"".join(_pem(i, "CERTIFICATE") for i in intermediates)
            )
            arguments += ["-untrusted", "between.pem"]
        if crls:
            (place / "crls.pem").write_bytes(b"".join(_pem(c, "X509 CRL") for c in crls))
            arguments += ["-crl_check", "-CRLfile", "crls.pem"]
        if at is not None:
            arguments += ["-attime", str(at)]
        status, text = _openssl([*arguments, "leaf.pem"], directory)
        return status == 0, text


def openssl_crl(der: bytes, *, issuer: bytes) -> tuple[bool, str]:
    """`openssl crl -text`, its signature verified with the issuer's certificate."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "crl.der").write_bytes(der)
        (place / "ca.pem").write_bytes(_pem(issuer, "CERTIFICATE"))
        arguments = ["crl", "-inform", "DER", "-in", "crl.der", "-text", "-noout"]
        status, text = _openssl([*arguments, "-CAfile", "ca.pem"], directory)
        return status == 0 and "verify OK" in text, text


def openssl_ocsp_request(
    *, issuer: bytes, certificates: Sequence[bytes], digest: str = "sha1", nonce: bool = False
) -> bytes:
    """A request as `openssl ocsp -reqout` writes it."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "ca.pem").write_bytes(_pem(issuer, "CERTIFICATE"))
        arguments = ["ocsp", "-issuer", "ca.pem"]
        for number, certificate_der in enumerate(certificates):
            (place / f"{number}.pem").write_bytes(_pem(certificate_der, "CERTIFICATE"))
            # the digest holds for the next certificate only
            arguments += [f"-{digest}", "-cert", f"{number}.pem"]
        arguments += ["-nonce" if nonce else "-no_nonce", "-reqout", "request.der"]
        status, text = _openssl(arguments, directory)
        assert status == 0, text
        return (place / "request.der").read_bytes()


def openssl_ocsp_verify(
    response: bytes,
    *,
    issuer: bytes,
    certificate_der: bytes,
    anchors: Sequence[bytes],
    digest: str = "sha1",
    at: int | None = None,
    request: bytes | None = None,
) -> tuple[bool, str]:
    """`openssl ocsp -respin`: whether the response verifies, and the status line it prints.

    With `request` it compares the nonces instead, and prints no status line. With `at` the
    answer's own times are not judged: openssl knows them by the machine's clock only.
    """
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        (place / "response.der").write_bytes(response)
        (place / "ca.pem").write_bytes(_pem(issuer, "CERTIFICATE"))
        (place / "leaf.pem").write_bytes(_pem(certificate_der, "CERTIFICATE"))
        (place / "anchors.pem").write_bytes(b"".join(_pem(a, "CERTIFICATE") for a in anchors))
        arguments = ["ocsp", "-issuer", "ca.pem", "-no_nonce"]
        if request is not None:
            (place / "request.der").write_bytes(request)
            arguments += ["-reqin", "request.der"]
        else:
            arguments += [f"-{digest}", "-cert", "leaf.pem"]
        arguments += ["-respin", "response.der", "-CAfile", "anchors.pem", "-resp_text"]
        arguments += ["-verify_other", "ca.pem"]
        if at is not None:
            # -attime moves only the certificates' clock
            arguments += ["-attime", str(at), "-validity_period", str(1 << 30)]
        status, text = _openssl(arguments, directory)
        return status == 0 and "Response verify OK" in text, text
