"""What the parts of a certificate say together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from lamassu.kernel.x509.keys import NEWER_KEYS, KeyFacts
from lamassu.kernel.x509.lint import extensions as ext
from lamassu.kernel.x509.lint.extensions import Extension, Facts
from lamassu.kernel.x509.lint.findings import LintRefusal, breach, fault
from lamassu.kernel.x509.lint.general_names import RFC822
from lamassu.kernel.x509.lint.names import EMAIL_ADDRESS, Rdn

F = TypeVar("F", bound=Facts)
Extensions = Mapping[bytes, Extension]

_USAGE = "extensions.key_usage"
# Which key usages a purpose can do something with (RFC 5280 §4.2.1.12, RFC 3161 §2.3).
_SIGNS = frozenset({ext.DIGITAL_SIGNATURE})
_COMMITS = frozenset({ext.DIGITAL_SIGNATURE, ext.CONTENT_COMMITMENT})
_CONSISTENT = {
    bytes.fromhex("2b06010505070301"): (
        "serverAuth",
        frozenset({ext.DIGITAL_SIGNATURE, ext.KEY_ENCIPHERMENT, ext.KEY_AGREEMENT}),
    ),
    bytes.fromhex("2b06010505070302"): (
        "clientAuth",
        frozenset({ext.DIGITAL_SIGNATURE, ext.KEY_AGREEMENT}),
    ),
    bytes.fromhex("2b06010505070303"): ("codeSigning", _SIGNS),
    bytes.fromhex("2b06010505070304"): (
        "emailProtection",
        _COMMITS | {ext.KEY_ENCIPHERMENT, ext.KEY_AGREEMENT},
    ),
    ext.TIME_STAMPING: ("timeStamping", _COMMITS),
    bytes.fromhex("2b06010505070309"): ("OCSPSigning", _COMMITS),
}
# What keys of a kind cannot do (RFC 3279 §2.3.1, RFC 5480 §3 with RFC 8813 §3, RFC 8410 §5,
# RFC 9881 §5).
_SIGNATURES_ONLY = frozenset(
    {ext.KEY_ENCIPHERMENT, ext.DATA_ENCIPHERMENT, ext.KEY_AGREEMENT}
    | {ext.ENCIPHER_ONLY, ext.DECIPHER_ONLY}
)
_IMPOSSIBLE = {
    **dict.fromkeys(NEWER_KEYS, _SIGNATURES_ONLY),
    "RSA": frozenset({ext.KEY_AGREEMENT, ext.ENCIPHER_ONLY, ext.DECIPHER_ONLY}),
    "ECDSA": frozenset({ext.KEY_ENCIPHERMENT, ext.DATA_ENCIPHERMENT}),
}
_FOR_CAS_ONLY = {
    ext.NAME_CONSTRAINTS: ("name_constraints", "4.2.1.10"),
    ext.POLICY_MAPPINGS: ("policy_mappings", "4.2.1.5"),
    ext.POLICY_CONSTRAINTS: ("policy_constraints", "4.2.1.11"),
    ext.INHIBIT_ANY_POLICY: ("inhibit_any_policy", "4.2.1.14"),
}


def facts_of(found: Extensions, oid: bytes, kind: type[F]) -> F | None:
    """What the extension says; `None` if it is absent."""
    extension = found.get(oid)
    if extension is None:
        return None
    assert isinstance(extension.facts, kind)
    return extension.facts


def basic_constraints(found: Extensions) -> ext.BasicConstraints:
    """Those of the certificate; absent ones mean no CA."""
    constraints = facts_of(found, ext.BASIC_CONSTRAINTS, ext.BasicConstraints)
    return constraints or ext.BasicConstraints(False, None)


def check_usages(found: Extensions, *, ca: bool, key: KeyFacts) -> None:
    """RFC 5280 §4.2.1.3 and §4.2.1.9: a CA has a key usage with keyCertSign, and nobody else
    has that; RFC 3279 §2.3.1 and RFC 8813 §3: what a key of the kind can do."""
    bits = facts_of(found, ext.KEY_USAGE, frozenset)
    if bits is None:
        if ca:
            raise _usage("key_usage_missing", "a CA needs a key usage")
        return
    if ca != (ext.KEY_CERT_SIGN in bits):
        raise _usage(
            "key_cert_sign",
            "a CA's key usage has keyCertSign" if ca else "keyCertSign is a CA's alone",
        )
    if bits & _IMPOSSIBLE.get(key.algorithm, frozenset()):
        raise _usage(
            "key_usage_of_key", f"a key of the kind {key.algorithm} cannot do what it says"
        )


def _usage(rule: str, text: str) -> LintRefusal:
    return breach(rule, f"of its key usage: {text}", section="4.2.1.3", part=_USAGE)


def check_purposes(found: Extensions, *, ca: bool) -> None:
    """RFC 5280 §4.2.1.12: a purpose that no key usage is consistent with could never be used;
    RFC 3161 §2.3: timeStamping is critical. A CA's purposes bound those below it."""
    part = "extensions.extended_key_usage"
    extension = found.get(ext.EXTENDED_KEY_USAGE)
    if extension is None or ca:
        return
    purposes = facts_of(found, ext.EXTENDED_KEY_USAGE, tuple) or ()
    if ext.TIME_STAMPING in purposes and not extension.critical:
        raise breach(
            "time_stamping_not_critical",
            "the purpose timeStamping is critical",
            section="RFC 3161 §2.3",
            part=part,
        )
    bits = facts_of(found, ext.KEY_USAGE, frozenset)
    if bits is None:
        return
    for purpose in purposes:
        name, consistent = _CONSISTENT.get(purpose, ("", bits))
        if not bits & consistent:
            raise breach(
                "purpose_without_usage",
                f"its key usage leaves nothing that the purpose {name} could be used for",
                section="4.2.1.12",
                part=part,
            )


def check_only_for_cas(found: Extensions, *, ca: bool) -> None:
    """RFC 5280 §4.2.1.5, §4.2.1.10, §4.2.1.11, §4.2.1.14: what a CA's certificates alone have;
    §4.2.1.9: a CA's basic constraints are critical."""
    if ca:
        if not found[ext.BASIC_CONSTRAINTS].critical:
            raise breach(
                "not_critical",
                "a CA's basic_constraints are not critical",
                section="4.2.1.9",
                part="extensions.basic_constraints",
            )
        return
    for oid in found.keys() & _FOR_CAS_ONLY.keys():
        name, section = _FOR_CAS_ONLY[oid]
        raise breach(
            "for_cas_only", f"{name} is for CAs alone", section=section, part=f"extensions.{name}"
        )


def check_identifiers(
    found: Extensions, *, ca: bool, issuer_key_id: bytes | None, self_signed: bool
) -> None:
    """RFC 5280 §4.2.1.1: the authority key identifier is the issuer's subject key identifier,
    and only who is self-signed may leave it out; §4.2.1.2: a CA has a subject key identifier."""
    own = facts_of(found, ext.SUBJECT_KEY_ID, bytes)
    if ca and own is None:
        raise fault(
            "subject_key_id_missing",
            "a CA needs a subject key identifier",
            section="4.2.1.2",
            part="extensions.subject_key_identifier",
        )
    named = facts_of(found, ext.AUTHORITY_KEY_ID, bytes)
    wanted = own if self_signed else issuer_key_id
    if (named is None and not self_signed) or (
        named is not None and wanted is not None and named != wanted
    ):
        raise fault(
            "authority_key_id",
            "its authority key identifier is not the issuer's subject key identifier",
            section="4.2.1.1",
            part="extensions.authority_key_identifier",
        )


def check_subject(found: Extensions, subject: tuple[Rdn, ...], *, ca: bool) -> None:
    """RFC 5280 §4.1.2.6 and §4.2.1.6: a CA has a name; who has none has an alternative name,
    which is critical then and only then; an e-mail address stands in that, too."""
    names = found.get(ext.SUBJECT_ALT_NAME)
    if not subject and ca:
        raise breach("subject_empty", "a CA has no subject", section="4.1.2.6", part="subject")
    if not subject and names is None:
        raise breach(
            "subject_empty",
            "it has neither a subject nor an alternative name",
            section="4.1.2.6",
            part="subject",
        )
    if names is not None and names.critical != (not subject):
        raise breach(
            "san_criticality",
            "its alternative name is critical exactly where there is no subject",
            section="4.2.1.6",
            part="extensions.subject_alternative_name",
        )
    alternative = facts_of(found, ext.SUBJECT_ALT_NAME, tuple) or ()
    mailboxes = {name.value for name in alternative if name.tag == RFC822}
    for rdn in subject:
        for attribute in rdn:
            if attribute.oid == EMAIL_ADDRESS and attribute.value not in mailboxes:
                raise breach(
                    "email_not_alternative",
                    "an e-mail address of the subject is not among the alternative names",
                    section="4.1.2.6",
                    part="subject",
                )
