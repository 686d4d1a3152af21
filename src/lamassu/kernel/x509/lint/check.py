"""The whole judgement, in the order of the fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from lamassu.kernel.x509 import der
from lamassu.kernel.x509.facts import CertificateFacts, certificate_facts
from lamassu.kernel.x509.lint import extensions as ext
from lamassu.kernel.x509.lint import together
from lamassu.kernel.x509.lint.constraints import check_constraints
from lamassu.kernel.x509.lint.extensions import Extension, Subtrees, check_extension
from lamassu.kernel.x509.lint.fields import (
    check_algorithm,
    check_key,
    check_serial_number,
    check_validity,
    check_version,
)
from lamassu.kernel.x509.lint.findings import breach, fault
from lamassu.kernel.x509.lint.names import check_name
from lamassu.kernel.x509.lint.reading import ToBeSigned, read_to_be_signed


@dataclass(frozen=True, slots=True)
class _Issuer:
    """What the CAs above decide. `longest_path` is how many CAs, self-issued ones apart, may
    yet follow below the issuer; `None` is no limit."""

    subject: bytes
    spki: bytes
    key_id: bytes | None
    starts: datetime
    ends: datetime
    longest_path: int | None
    constraints: tuple[Subtrees, ...]


def check_to_be_signed(octets: bytes, *, signer: bytes, issuer_path: Sequence[bytes]) -> None:
    """Refuse a TBSCertificate (DER) that breaks RFC 5280.

    `signer` is the SubjectPublicKeyInfo of the key that would sign; `issuer_path` are the
    certificates (DER) of the issuer, first, and of the CAs above it as far as they are known.
    Without any the certificate is self-signed. Raises `LintRefusal` or `PlatformLintRefusal`.
    """
    tbs = read_to_be_signed(octets)
    issuer = _issuer(tuple(issuer_path)) if issuer_path else None
    check_version(tbs)
    check_serial_number(tbs)
    check_algorithm(tbs, signer)
    _check_issuer(tbs, issuer, signer)
    check_validity(
        tbs,
        issuer_starts=issuer.starts if issuer else None,
        issuer_ends=issuer.ends if issuer else None,
    )
    subject = check_name(tbs.subject, part="subject")
    key = check_key(tbs)
    found = _extensions(tbs)
    constraints = together.basic_constraints(found)
    ca = constraints.ca
    together.check_only_for_cas(found, ca=ca)
    together.check_usages(found, ca=ca, key=key)
    together.check_purposes(found, ca=ca)
    together.check_subject(found, subject, ca=ca)
    together.check_identifiers(
        found,
        ca=ca,
        issuer_key_id=issuer.key_id if issuer else None,
        self_signed=issuer is None,
    )
    if issuer is None or (ca and tbs.subject == tbs.issuer):
        return  # self-issued: neither counted nor constrained (RFC 5280 §6.1.3 b, §6.1.4 l)
    if ca:
        _check_path_length(issuer, constraints.path_length)
    if issuer.constraints:
        names = together.facts_of(found, ext.SUBJECT_ALT_NAME, tuple) or ()
        check_constraints(issuer.constraints, subject, tbs.subject, names)


def _extensions(tbs: ToBeSigned) -> dict[bytes, Extension]:
    """RFC 5280 §4.2: each extension once."""
    found: dict[bytes, Extension] = {}
    for octets in tbs.extensions:
        extension = check_extension(octets)
        if extension.oid in found:
            raise fault(
                "extension_twice", "an extension stands twice", section="4.2", part="extensions"
            )
        found[extension.oid] = extension
    return found


def _check_issuer(tbs: ToBeSigned, issuer: _Issuer | None, signer: bytes) -> None:
    """RFC 5280 §4.1.2.4 and §6.1.3 (a): it names the CA whose key signs, by the very octets of
    that CA's subject; a self-signed certificate names itself and carries the signing key."""
    name, key = (issuer.subject, issuer.spki) if issuer else (tbs.subject, tbs.spki)
    if tbs.issuer != name or len(name) <= 2:
        raise fault(
            "issuer_name", "its issuer is not the CA that would sign", section="4.1.2.4",
            part="issuer",
        )  # fmt: skip
    if signer != key:
        raise fault(
            "issuer_key", "the key that would sign is not the issuer's", section="6.1.3",
            part="issuer",
        )  # fmt: skip


def _check_path_length(issuer: _Issuer, wanted: int | None) -> None:
    """RFC 5280 §4.2.1.9 and §6.1.4 (l, m): the CAs above leave room for one more."""
    if issuer.longest_path is None:
        return
    if issuer.longest_path == 0:
        raise breach(
            "path_length",
            "the CAs above allow no CA below the issuer",
            section="4.2.1.9",
            part="extensions.basic_constraints",
        )
    if wanted is not None and wanted >= issuer.longest_path:
        raise breach(
            "path_length",
            f"the CAs above leave it a path length of at most {issuer.longest_path - 1}",
            section="4.2.1.9",
            part="extensions.basic_constraints",
        )


@lru_cache(maxsize=256)
def _issuer(path: tuple[bytes, ...]) -> _Issuer:
    facts = [certificate_facts(one) for one in path]
    direct = facts[0]
    if direct.subject_der != direct.issuer_der and not _is_ca(direct):
        raise breach(
            "issuer_is_no_ca",
            "the issuer's certificate is not a CA's",
            section="4.2.1.9",
            part="issuer",
        )
    return _Issuer(
        subject=direct.subject_der,
        spki=direct.spki,
        key_id=bytes.fromhex(direct.ski) if direct.ski else None,
        starts=direct.not_before,
        ends=direct.not_after,
        longest_path=_longest_path(facts),
        constraints=tuple(subtrees for one in path if (subtrees := _subtrees(one)) is not None),
    )


def _is_ca(facts: CertificateFacts) -> bool:
    return facts.is_ca and (not facts.key_usage or "CertSign" in facts.key_usage)


def _longest_path(facts: Sequence[CertificateFacts]) -> int | None:
    longest: int | None = None
    for one in reversed(facts):
        if longest is not None and one.subject_der != one.issuer_der:
            longest = max(0, longest - 1)
        if one.path_length is not None:
            longest = one.path_length if longest is None else min(longest, one.path_length)
    return longest


def _subtrees(certificate: bytes) -> Subtrees | None:
    """The name constraints of a CA above, who need not be one of ours."""
    fields = der.children(certificate, der.children(certificate, der.sole_element(certificate))[0])
    if fields[-1].tag != 0xA3:  # version 1 has no extensions
        return None
    (listed,) = der.children(certificate, fields[-1])
    for extension in der.children(certificate, listed):
        oid, *_, value = der.children(certificate, extension)
        if certificate[oid.value : oid.end] == ext.NAME_CONSTRAINTS:
            return ext.read_name_constraints(certificate[value.value : value.end])
    return None
