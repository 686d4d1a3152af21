"""Key usages and extended key usages: wire names and extensions."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cryptography import x509
from cryptography.x509.oid import ObjectIdentifier

from lamassu.kernel.errors import RuleViolation

_KEY_USAGES = {
    "DigitalSignature": "digital_signature",
    "ContentCommitment": "content_commitment",
    "KeyEncipherment": "key_encipherment",
    "DataEncipherment": "data_encipherment",
    "KeyAgreement": "key_agreement",
    "CertSign": "key_cert_sign",
    "CRLSign": "crl_sign",
    "EncipherOnly": "encipher_only",
    "DecipherOnly": "decipher_only",
}
KEY_USAGE_NAMES = tuple(_KEY_USAGES)

_EXTENDED = {
    "Any": "2.5.29.37.0",
    "ServerAuth": "1.3.6.1.5.5.7.3.1",
    "ClientAuth": "1.3.6.1.5.5.7.3.2",
    "CodeSigning": "1.3.6.1.5.5.7.3.3",
    "EmailProtection": "1.3.6.1.5.5.7.3.4",
    "IPSECEndSystem": "1.3.6.1.5.5.7.3.5",
    "IPSECTunnel": "1.3.6.1.5.5.7.3.6",
    "IPSECUser": "1.3.6.1.5.5.7.3.7",
    "TimeStamping": "1.3.6.1.5.5.7.3.8",
    "OCSPSigning": "1.3.6.1.5.5.7.3.9",
    "MicrosoftServerGatedCrypto": "1.3.6.1.4.1.311.10.3.3",
    "NetscapeServerGatedCrypto": "2.16.840.1.113730.4.1",
    "MicrosoftCommercialCodeSigning": "1.3.6.1.4.1.311.2.1.22",
    "MicrosoftKernelCodeSigning": "1.3.6.1.4.1.311.61.1.1",
}
EXTENDED_KEY_USAGE_NAMES = tuple(_EXTENDED)
# What turns an end entity into an authority or a responder (security rule 12): beside the named
# ones cmcCA, cmcRA and cmcArchive (RFC 6402 §2.10), cmKGA (RFC 9483), and Microsoft's enrolment
# and key recovery agents.
AUTHORITY_USAGES = frozenset(
    {
        "Any",
        "OCSPSigning",
        *(f"1.3.6.1.5.5.7.3.{last}" for last in (27, 28, 29, 32)),
        *("1.3.6.1.4.1.311.20.2.1", "1.3.6.1.4.1.311.21.6", "1.3.6.1.4.1.311.10.3.11"),
    }
)
_EXTENDED_OIDS = {name: ObjectIdentifier(oid) for name, oid in _EXTENDED.items()}
_EXTENDED_BY_OID = {oid: name for name, oid in _EXTENDED_OIDS.items()}
_OID = re.compile(r"[0-2](\.(0|[1-9]\d{0,18})){2,24}", re.ASCII)
_EXTENDED_BY_FOLDED = {name.casefold(): name for name in _EXTENDED}


def parse_key_usage(name: str, *, field: str = "key_usage") -> str:
    """The wire name, which is case-sensitive. Raises `RuleViolation` (`unknown_key_usage`)."""
    if name not in _KEY_USAGES:
        raise RuleViolation(
            f"unknown key usage {name[:40]!r}; known are {', '.join(_KEY_USAGES)}",
            code="unknown_key_usage",
            field=field,
        )
    return name


def parse_extended_key_usage(name: str, *, field: str = "extended_key_usages") -> str:
    """The canonical wire name of one given in any case, or a dotted OID that has none.

    Raises `RuleViolation` (`unknown_extended_key_usage`).
    """
    canonical = _EXTENDED_BY_FOLDED.get(name.casefold())
    if canonical is None and is_oid(name):
        return _EXTENDED_BY_OID.get(ObjectIdentifier(name), name)
    if canonical is None:
        raise RuleViolation(
            f"unknown extended key usage {name[:40]!r}; known are {', '.join(_EXTENDED)}, and "
            "any other by its OID (1.2.3)",
            code="unknown_extended_key_usage",
            field=field,
        )
    return canonical


def is_oid(text: str) -> bool:
    """Whether this is a dotted object identifier that DER can encode."""
    if _OID.fullmatch(text) is None:
        return False
    try:
        ObjectIdentifier(text)
    except ValueError:
        return False
    return True


def authority_usages(names: Sequence[str]) -> frozenset[str]:
    """Those of the extended key usages that no device may have."""
    return frozenset(map(parse_extended_key_usage, names)) & AUTHORITY_USAGES


def key_usage_extension(names: Sequence[str]) -> x509.KeyUsage | None:
    """The extension's value, `None` for no usages (RFC 5280 §4.2.1.3: at least one bit).

    Raises `RuleViolation`, also for `EncipherOnly` or `DecipherOnly` without `KeyAgreement`,
    which have no meaning alone.
    """
    if not names:
        return None
    chosen = {_KEY_USAGES[parse_key_usage(name)] for name in names}
    if chosen & {"encipher_only", "decipher_only"} and "key_agreement" not in chosen:
        raise RuleViolation(
            "EncipherOnly and DecipherOnly need KeyAgreement",
            code="key_usage_inconsistent",
            field="key_usage",
        )
    return x509.KeyUsage(**{bit: bit in chosen for bit in _KEY_USAGES.values()})


def key_usage_names(extension: x509.KeyUsage) -> tuple[str, ...]:
    """Wire names of the set bits, in the RFC's order."""
    names: list[str] = []
    for name, bit in _KEY_USAGES.items():
        if bit in ("encipher_only", "decipher_only") and not extension.key_agreement:
            continue  # undefined then, and the library refuses to be asked
        if getattr(extension, bit):
            names.append(name)
    return tuple(names)


def extended_key_usage_extension(names: Sequence[str]) -> x509.ExtendedKeyUsage | None:
    """The extension's value, `None` for no usages. Raises `RuleViolation`."""
    if not names:
        return None
    canonical = dict.fromkeys(parse_extended_key_usage(name) for name in names)
    return x509.ExtendedKeyUsage(
        [_EXTENDED_OIDS.get(name) or ObjectIdentifier(name) for name in canonical]
    )


def extended_key_usage_names(extension: x509.ExtendedKeyUsage) -> tuple[str, ...]:
    """Wire names of the usages, in the extension's order; unknown ones as dotted OIDs."""
    return tuple(_EXTENDED_BY_OID.get(oid, oid.dotted_string) for oid in extension)
