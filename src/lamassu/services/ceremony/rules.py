"""What a root may sign, and how that looks. Values in, verdict out."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.x509.crls import CrlEntry, parse_crl
from lamassu.kernel.x509.csr import CertificateRequest, verify_csr_signature
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.keys import key_id, load_public_key, signature_hash
from lamassu.kernel.x509.lint import linting_key
from lamassu.kernel.x509.lint.pkix import check_to_be_signed_by_linters
from lamassu.kernel.x509.names import name_of, same_name
from lamassu.services.ceremony.contract import (
    KEY_CUSTODIAN,
    Answers,
    Person,
    RequestWish,
    RevocationOrder,
    RootWish,
    Signed,
    Transcript,
    parse_order,
    read_request,
)
from lamassu.services.ceremony.model import AgreedRequest, AgreedRoot, Plan, Publication

BACKDATING = timedelta(minutes=1)
LONGEST_CRL = timedelta(days=366)
LONGEST_RESPONDER = timedelta(days=366)
# A responder's certificate that nobody can revoke lives no longer (security rule 25).
LONGEST_UNREVOCABLE = timedelta(days=14)
_SMALLEST_RSA_CA = 3072
_HOLD = 6
_MOST_URLS = 8
_LONGEST_URL = 512


def check_people(people: Sequence[Person]) -> None:
    """At least a key custodian is there. Raises `RuleViolation` (`custodian_missing`)."""
    for person in people:
        texts = (person.role, person.name)
        if not all(text.strip() and text.isprintable() and len(text) <= 128 for text in texts):
            raise RuleViolation(
                "each person has a role and a name, of at most 128 characters",
                code="person_malformed",
                field="people",
            )
    if not any(person.role.strip().casefold() == KEY_CUSTODIAN for person in people):
        raise RuleViolation(
            f'nobody is the {KEY_CUSTODIAN}: name who holds the token, as "{KEY_CUSTODIAN}: NAME"',
            code="custodian_missing",
            field="people",
        )


def check_clock(now: datetime, transcript: Transcript) -> None:
    """Refuse a clock that stands before the last deed. Raises `RuleViolation` (`clock_wrong`)."""
    if transcript.lines and now < transcript.lines[-1].at:
        raise RuleViolation(
            f"the clock says {now:%Y-%m-%d %H:%M} UTC, but the ceremony's last deed was at"
            f" {transcript.lines[-1].at:%Y-%m-%d %H:%M}; set the clock",
            code="clock_wrong",
            field="date",
        )


def check_date(told: date, now: datetime) -> None:
    """Refuse another day than the clock's. Raises `RuleViolation` (`date_differs`)."""
    if told != now.date():
        raise RuleViolation(
            f"the clock says {now:%Y-%m-%d}, the people say {told:%Y-%m-%d}: set the clock"
            " before anything is signed",
            code="date_differs",
            field="date",
        )


def plan_of(answers: Answers, transcript: Transcript, now: datetime) -> Plan:
    """What the session will do, if every rule allows it. Raises `RuleViolation`, `Malformed`."""
    check_date(answers.date, now)
    at = now.replace(microsecond=0)
    root = _root_of(answers.root, transcript, at)
    bounds = _bounds_of(root, transcript)
    requests = tuple(_request_of(wish, bounds, at) for wish in answers.requests)
    _check_twice(requests)
    return Plan(
        at=at,
        root=root,
        requests=requests,
        entries=_entries(answers.revocations, transcript, at),
        next_update=_crl_end(answers.crl_validity, bounds, at),
    )


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What the root lets it sign."""

    name: x509.Name
    not_after: datetime
    path_length: int | None


def _bounds_of(root: AgreedRoot | None, transcript: Transcript) -> _Bounds:
    if root is not None:
        return _Bounds(name_of(root.subject), root.not_after, root.path_length)
    assert transcript.root is not None  # _root_of refuses
    facts = certificate_facts(transcript.root)
    name = x509.load_der_x509_certificate(transcript.root).subject
    return _Bounds(name, facts.not_after, facts.path_length)


def _root_of(wish: RootWish | None, transcript: Transcript, at: datetime) -> AgreedRoot | None:
    if (wish is None) == (transcript.root is None):
        raise RuleViolation(
            "this ceremony has its root already; leave root out"
            if wish is not None
            else "this ceremony has no root yet; describe it under root",
            code="root_exists" if wish is not None else "root_missing",
            field="root",
        )
    if wish is None:
        return None
    if not name_of(wish.subject).rdns:
        raise RuleViolation("a root needs a name", code="subject_empty", field="root.common_name")
    return AgreedRoot(
        wish.subject, wish.key, _end(wish.validity, at, "root.validity"), wish.path_length
    )


def _end(validity: timedelta, at: datetime, field: str) -> datetime:
    try:
        end = at + validity
    except OverflowError:
        end = at
    if end <= at or end.year > 9999:
        raise RuleViolation(
            "the validity is too short or too long", code="validity_out_of_range", field=field
        )
    return end.replace(microsecond=0)


def _request_of(wish: RequestWish, root: _Bounds, at: datetime) -> AgreedRequest:
    try:
        csr = read_request(wish.csr)
        verify_csr_signature(csr)
    except (Malformed, RuleViolation) as fault:
        raise _refused(wish, fault.text, code=fault.code) from None
    _check_subject(csr, root.name, wish)
    fingerprint = key_id(csr.spki)
    wanted = wish.fingerprint.replace(":", "").replace(" ", "").casefold()
    if wanted and wanted != fingerprint:
        raise _refused(wish, f"its key is {fingerprint}, not the one that was read out")
    not_after = _end(wish.validity, at, "requests")
    if not_after > root.not_after:
        raise _refused(
            wish, f"it would outlive the root (until {root.not_after:%Y-%m-%d}); shorten it"
        )
    is_ca = wish.kind is Signed.CA
    if is_ca and csr.key.algorithm == "RSA" and csr.key.size < _SMALLEST_RSA_CA:
        raise _refused(wish, f"a CA's RSA key has at least {_SMALLEST_RSA_CA} bits")
    if not is_ca and wish.validity > LONGEST_RESPONDER:
        raise _refused(wish, f"a responder lives at most {LONGEST_RESPONDER.days} days")
    publication = _publication_of(csr, wish)
    if not is_ca and wish.validity > LONGEST_UNREVOCABLE and not publication.crl:
        raise _refused(
            wish,
            f"beyond {LONGEST_UNREVOCABLE.days} days a responder must be revocable, and the"
            " request names no CRL; shorten its validity",
        )
    return AgreedRequest(
        kind=wish.kind,
        csr=csr,
        key_fingerprint=fingerprint,
        not_after=not_after,
        path_length=_path_length(csr, wish, root) if is_ca else None,
        publication=publication,
    )


def _check_subject(csr: CertificateRequest, root: x509.Name, wish: RequestWish) -> None:
    name = x509.load_der_x509_csr(csr.der).subject
    if not name.rdns:
        raise _refused(wish, "it has no subject")
    if same_name(name, root):
        raise _refused(wish, "it has the root's own name")


def _check_twice(requests: Sequence[AgreedRequest]) -> None:
    keys = [request.key_fingerprint for request in requests]
    if len(set(keys)) < len(keys):
        raise RuleViolation(
            "two requests of this session have the same key; sign one of them",
            code="request_twice",
            field="requests",
        )


def _path_length(csr: CertificateRequest, wish: RequestWish, root: _Bounds) -> int | None:
    asked = wish.path_length
    if asked is None:
        asked = _asked_path_length(csr)
    if root.path_length is None:
        return asked
    if root.path_length == 0:
        raise _refused(wish, "the root has path length 0 and signs no CA")
    if asked is None:
        return root.path_length - 1
    if asked >= root.path_length:
        raise _refused(wish, f"its path length is at most {root.path_length - 1}, not {asked}")
    return asked


def _asked_path_length(csr: CertificateRequest) -> int | None:
    for extension in x509.load_der_x509_csr(csr.der).extensions:
        if isinstance(extension.value, x509.BasicConstraints):
            return extension.value.path_length
    return None


def _publication_of(csr: CertificateRequest, wish: RequestWish) -> Publication:
    """The only extensions of a request that are honoured: where status and issuer are found."""
    crl: list[str] = []
    ocsp: list[str] = []
    issuers: list[str] = []
    for extension in x509.load_der_x509_csr(csr.der).extensions:
        value = extension.value
        if isinstance(value, x509.CRLDistributionPoints):
            for point in value:
                crl += [_url(name, wish) for name in point.full_name or ()]
        elif isinstance(value, x509.AuthorityInformationAccess):
            for access in value:
                is_ocsp = access.access_method == AuthorityInformationAccessOID.OCSP
                (ocsp if is_ocsp else issuers).append(_url(access.access_location, wish))
    if len(crl) + len(ocsp) + len(issuers) > _MOST_URLS:
        raise _refused(wish, f"it names more than {_MOST_URLS} addresses")
    return Publication(tuple(crl), tuple(ocsp), tuple(issuers))


def _url(name: x509.GeneralName, wish: RequestWish) -> str:
    text = name.value if isinstance(name, x509.UniformResourceIdentifier) else ""
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        fine = parts.scheme == "http" and bool(host) and len(text) <= _LONGEST_URL
        fine = fine and text.isascii() and text.isprintable() and " " not in text
        if ":" in host:
            ipaddress.ip_address(host)
    except ValueError:
        fine = False
    if not fine:
        raise _refused(wish, "it names an address that is not http://")
    return text


def _refused(wish: RequestWish, fault: str, *, code: str = "request_refused") -> RuleViolation:
    where = f" {wish.source}" if wish.source else ""
    return RuleViolation(f"the request{where} is refused: {fault}", code=code, field="requests")


def _crl_end(validity: timedelta, root: _Bounds, at: datetime) -> datetime:
    end = _end(validity, at, "crl.validity")
    if validity > LONGEST_CRL:
        raise RuleViolation(
            f"a CRL is valid for at most {LONGEST_CRL.days} days",
            code="validity_out_of_range",
            field="crl.validity",
        )
    return min(end, root.not_after)


def _entries(order: bytes | None, transcript: Transcript, at: datetime) -> Sequence[CrlEntry]:
    """What the next CRL lists: all that is ordered, and all that was listed before.

    A certificate leaves the list when it has expired, or when it was on hold and is ordered no
    more. Only what this root signed is listed.
    """
    issued = {
        int(facts.serial_number, 16): facts
        for kind in (Signed.CA, Signed.RESPONDER)
        for facts in (certificate_facts(der) for der in transcript.certificates(kind))
    }
    listed: dict[int, CrlEntry] = {}
    latest = transcript.latest_crl()
    for entry in parse_crl(latest).entries if latest is not None else ():
        if entry.reason != _HOLD and issued[entry.serial_number].not_after >= at:
            listed[entry.serial_number] = entry
    if order is not None:
        for entry in _ordered(order, transcript).entries:
            if entry.serial_number not in issued:
                raise RuleViolation(
                    f"{entry.serial_number:x} is ordered to be revoked, but this root never"
                    " signed it",
                    code="revocation_unknown",
                    field="revocations",
                )
            if entry.revoked_at > at:
                raise RuleViolation(
                    "a revocation in the order is of a later date than today: which clock is"
                    " wrong?",
                    code="clock_wrong",
                    field="revocations",
                )
            listed.setdefault(entry.serial_number, entry)
    return tuple(listed[serial] for serial in sorted(listed))


def _ordered(order: bytes, transcript: Transcript) -> RevocationOrder:
    parsed = parse_order(order)
    if transcript.root is None or parsed.subject_key_id != certificate_facts(transcript.root).ski:
        raise RuleViolation(
            f"the revocations are of another CA ({parsed.ca_id})",
            code="revocations_of_another_ca",
            field="revocations",
        )
    return parsed


# --- what is signed -------------------------------------------------------------------------


def sign_root(
    key: CertificateIssuerPrivateKeyTypes, root: AgreedRoot, at: datetime, spki: bytes, serial: int
) -> bytes:
    """The root's certificate (DER)."""
    name = name_of(root.subject)
    period = (at - BACKDATING, root.not_after)
    builder = _builder(name, issuer=name, spki=spki, serial=serial, period=period)
    builder = builder.add_extension(x509.BasicConstraints(True, root.path_length), True)
    builder = builder.add_extension(_CA_USAGE, True)
    return _signed(builder.add_extension(_aki(spki), False), key, ())


def sign_request(
    key: CertificateIssuerPrivateKeyTypes,
    request: AgreedRequest,
    at: datetime,
    issuer: bytes,
    serial: int,
) -> bytes:
    """The certificate (DER) for a request, its issuer's name and key as they stand."""
    csr = request.csr
    root = x509.load_der_x509_certificate(issuer)
    subject = x509.load_der_x509_csr(csr.der).subject
    start = max(at - BACKDATING, root.not_valid_before_utc)
    period = (start, request.not_after)
    builder = _builder(subject, issuer=root.subject, spki=csr.spki, serial=serial, period=period)
    if request.kind is Signed.CA:
        builder = builder.add_extension(x509.BasicConstraints(True, request.path_length), True)
        builder = builder.add_extension(_CA_USAGE, True)
    else:
        builder = builder.add_extension(x509.BasicConstraints(False, None), True)
        builder = builder.add_extension(_RESPONDER_USAGE, True)
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
        builder = builder.add_extension(purpose, False)
        if request.not_after - at <= LONGEST_UNREVOCABLE:
            builder = builder.add_extension(x509.OCSPNoCheck(), False)
    ski = bytes.fromhex(certificate_facts(issuer).ski)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier(ski, None, None), False)
    return _signed(_published(builder, request.publication), key, (issuer,))


def _builder(
    subject: x509.Name,
    *,
    issuer: x509.Name,
    spki: bytes,
    serial: int,
    period: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(
            issuer_name=issuer,
            subject_name=subject,
            public_key=load_public_key(spki),  # type: ignore[arg-type]
            serial_number=serial,
        )
        .not_valid_before(period[0])
        .not_valid_after(period[1])
        .add_extension(x509.SubjectKeyIdentifier(bytes.fromhex(key_id(spki))), False)
    )


def _published(
    builder: x509.CertificateBuilder, publication: Publication
) -> x509.CertificateBuilder:
    access = [
        x509.AccessDescription(method, x509.UniformResourceIdentifier(url))
        for method, urls in (
            (AuthorityInformationAccessOID.OCSP, publication.ocsp),
            (AuthorityInformationAccessOID.CA_ISSUERS, publication.ca_issuers),
        )
        for url in urls
    ]
    if access:
        builder = builder.add_extension(x509.AuthorityInformationAccess(access), False)
    if publication.crl:
        points = [
            x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)
            for url in publication.crl
        ]
        builder = builder.add_extension(x509.CRLDistributionPoints(points), False)
    return builder


def _signed(
    builder: x509.CertificateBuilder,
    key: CertificateIssuerPrivateKeyTypes,
    issuer_path: Sequence[bytes],
) -> bytes:
    linting = linting_key(key, issuer_path=issuer_path, also=(check_to_be_signed_by_linters,))
    certificate = builder.sign(linting, signature_hash(key))  # type: ignore[arg-type]
    return certificate.public_bytes(serialization.Encoding.DER)


def _aki(spki: bytes) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(bytes.fromhex(key_id(spki)), None, None)


def _usage(*bits: str) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: name in bits for name in names})


_CA_USAGE = _usage("key_cert_sign", "crl_sign")
_RESPONDER_USAGE = _usage("digital_signature")
