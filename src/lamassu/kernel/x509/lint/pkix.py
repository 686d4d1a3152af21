"""All of pkilint's PKIX linters, for what is new or sampled: a CA, a profile, an issuance.

They know RFC 5280 as people read it who had no part in this platform. A certificate costs them
some ten milliseconds, and their import a fifth of a second, so that they are loaded when first
asked and never on the way of an issuance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from lamassu.kernel.x509 import der
from lamassu.kernel.x509.lint.findings import LintRefusal

# pkilint wants public names with a top-level domain here, which no RFC asks of a plant's hosts;
# the rules for every issuance judge these names by RFC 1034 and RFC 3986.
_JUDGED_HERE = frozenset(
    {
        "pkix.invalid_domain_name_syntax",
        "pkix.invalid_uri_syntax",
        "pkix.invalid_email_address_syntax",
    }
)
# What its decoder cannot read though X.690 §8.19 allows it: 1.2.3, and numbers such as 2.999.
_DECODERS_OWN = ("OID requires minimum of 3 arcs", "OID contains out-of-range arc")
_NO_SIGNATURE = bytes.fromhex("030200ff")


def linter_findings(certificate: bytes) -> Sequence[str]:
    """What is an error for pkilint in a certificate (DER), each with its code first."""
    from pkilint import loader

    try:
        document = loader.RFC5280CertificateDocumentLoader().load_der_document(certificate)
    except ValueError as unread:
        found = [f"pkix.unreadable: {unread}"]
    else:
        found = _findings(document)
    return [one for one in found if not any(limit in one for limit in _DECODERS_OWN)]


def _findings(document: Any) -> list[str]:
    return [
        f"{finding.finding.code} at {result.node.path}"
        f"{': ' + finding.message if finding.message else ''}"
        for result in _validator().validate(document.root)
        for finding in result.finding_descriptions
        if _is_error(finding) and finding.finding.code not in _JUDGED_HERE
    ]


def check_by_linters(certificate: bytes) -> None:
    """Refuse a certificate (DER) that has such a finding. Raises `LintRefusal`."""
    findings = linter_findings(certificate)
    if findings:
        raise LintRefusal("pkilint", "; ".join(findings), section="RFC 5280", part="certificate")


def check_to_be_signed_by_linters(octets: bytes) -> None:
    """The same for a TBSCertificate (DER), before there is a signature."""
    fields = der.children(octets, der.sole_element(octets))
    algorithm = octets[fields[2].start : fields[2].end]
    check_by_linters(der.encode(der.SEQUENCE, octets, algorithm, _NO_SIGNATURE))


def _is_error(finding: Any) -> bool:
    from pkilint.validation import ValidationFindingSeverity

    return bool(finding.finding.severity <= ValidationFindingSeverity.ERROR)


@lru_cache(maxsize=1)
def _validator() -> Any:
    from pkilint.pkix import certificate, extension, name

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
