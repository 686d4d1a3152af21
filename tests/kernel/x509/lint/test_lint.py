"""A certificate that breaks RFC 5280 is never signed, and the refusal names the rule."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamassu.kernel.errors import LamassuError, Malformed, RuleViolation, Unavailable
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.lint import LINT_FAILED, linting_key
from lamassu.kernel.x509.lint.pkix import linter_findings
from lamassu.kernel.x509.signing import bit_string

from .drafts import (
    AIA,
    AKI,
    BASIC_CONSTRAINTS,
    CA_NAME,
    CDP,
    COMMON_NAME,
    COUNTRY,
    EKU,
    IA5,
    KEY_USAGE,
    LEAF_SKI,
    NAME_CONSTRAINTS,
    POLICIES,
    PRINTABLE,
    SAN,
    SERVER_AUTH,
    SKI,
    TIME_STAMPING,
    TRUE,
    UTF8,
    Draft,
    access,
    attribute,
    ca_extensions,
    extension,
    generalized,
    key,
    key_usage,
    name,
    names,
    oid,
    points,
    root,
    root_certificate,
    sequence,
    spki,
    sub_ca,
    uri,
    utc,
)

ECDSA = ec.ECDSA(SHA256())
LEAF = Draft()
NO_NAME = sequence()
EMAIL = "2a864886f70d010901"


class CountingKey(ec.EllipticCurvePrivateKey):
    """The CA's key, which counts how often it is used."""

    def __init__(self, inner: ec.EllipticCurvePrivateKey) -> None:
        self.inner = inner
        self.used = 0

    @property
    def curve(self) -> ec.EllipticCurve:
        return self.inner.curve

    @property
    def key_size(self) -> int:
        return self.inner.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self.inner.public_key()

    def exchange(self, algorithm: object, peer_public_key: object) -> bytes:
        raise NotImplementedError

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        raise NotImplementedError

    def private_bytes(self, *_: object) -> bytes:
        raise NotImplementedError

    def __copy__(self) -> CountingKey:
        raise NotImplementedError

    def __deepcopy__(self, memo: object) -> CountingKey:
        raise NotImplementedError

    def sign(self, data: object, signature_algorithm: object) -> bytes:
        self.used += 1
        return self.inner.sign(data, signature_algorithm)  # type: ignore[arg-type]


def judge(draft: Draft | bytes, *path: bytes, self_signed: bool = False) -> LamassuError | None:
    """What is found, while the key counts: it signed only if nothing was."""
    signer = CountingKey(key("ca"))
    octets = draft if isinstance(draft, bytes) else draft.encoded()
    issuers = () if self_signed else (path or (root_certificate(),))
    linting = linting_key(signer, issuer_path=issuers)
    refused: LamassuError | None = None
    try:
        signature = linting.sign(octets, ECDSA)  # type: ignore[call-arg, arg-type]
    except LamassuError as refusal:
        refused = refusal
    if refused is not None:
        assert signer.used == 0
        assert refused.code == LINT_FAILED
        assert refused.field
        return refused
    assert signer.used == 1
    try:
        signer.public_key().verify(signature, octets, ECDSA)
    except InvalidSignature:
        pytest.fail("another message was signed than the one that was judged")
    return None


def rule_of(refusal: LamassuError | None) -> str:
    return "" if refusal is None else str(getattr(refusal, "rule", refusal))


def constrained(*, permitted: bytes = b"", excluded: bytes = b"") -> bytes:
    """The root's certificate with name constraints."""
    value = sequence(
        der.encode(0xA0, permitted) if permitted else b"",
        der.encode(0xA1, excluded) if excluded else b"",
    )
    return root().with_extension(NAME_CONSTRAINTS, value, critical=True).signed_by(key("ca"))


def subtree(tag: int, value: str | bytes) -> bytes:
    return sequence(der.encode(tag, value.encode() if isinstance(value, str) else value))


# --- what is sound is signed ----------------------------------------------------------------

RSA_SPKI_HEADER = bytes.fromhex("30820122300d06092a864886f70d01010105000382010f00")

SOUND = {
    "an end entity": LEAF,
    "one with an alternative name alone": replace(LEAF, subject=NO_NAME).with_extension(
        SAN, names((0x82, "pump-7.plant.example")), critical=True
    ),
    "one beyond 2049": replace(LEAF, validity=sequence(utc("260501000000Z"), utc("451231235959Z"))),
    "a CA": sub_ca(),
    "a server by name, wildcard, address and URI": LEAF.with_extension(
        SAN,
        names(
            (0x82, "*.plant.example"),
            (0x82, "pump"),
            (0x87, bytes([10, 0, 0, 1])),
            (0x87, bytes(16)),
            (0x86, "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
            (0x86, "spiffe://plant.example/pump/7"),
            (0x81, "pump@plant.example"),
        ),
    ),
    "a time stamping authority": LEAF.with_extension(
        EKU, sequence(oid(TIME_STAMPING)), critical=True
    ),
    "one without key usage": LEAF.without(KEY_USAGE),
    "an extension that nobody knows": replace(
        LEAF, more=[extension("2b0601040182f95e01", bytes.fromhex("0500"))]
    ),
}


@pytest.mark.parametrize("draft", SOUND.values(), ids=SOUND)
def test_what_keeps_to_the_rules_is_signed(draft: Draft) -> None:
    assert judge(draft) is None
    assert linter_findings(draft.signed_by(key("ca"))) == []


def test_a_root_is_signed_by_its_own_key_only() -> None:
    assert judge(root(), self_signed=True) is None
    assert rule_of(judge(root(spki=spki(key("leaf"))), self_signed=True)) == "issuer_key"
    # whoever forgets to name the issuer gets nothing signed
    assert rule_of(judge(LEAF, self_signed=True)) == "issuer_name"


# --- every rule refuses what breaks it ------------------------------------------------------

BROKEN = {
    # the platform's own fields
    "version 1": ("version", replace(LEAF, version=bytes.fromhex("a003020100"))),
    "a unique identifier": ("unique_id", replace(LEAF, between=bytes.fromhex("81020001"))),
    "a negative serial number": ("serial_number", replace(LEAF, serial_number=b"\2\1\x80")),
    "the serial number zero": ("serial_number", replace(LEAF, serial_number=b"\2\1\0")),
    "a long serial number": (
        "serial_number",
        replace(LEAF, serial_number=bytes.fromhex("0215") + b"\x41" * 21),
    ),
    "a serial number with a leading zero": (
        "serial_number",
        replace(LEAF, serial_number=bytes.fromhex("02020041")),
    ),
    "another algorithm than the key's": (
        "signature_algorithm",
        replace(LEAF, algorithm=bytes.fromhex("300a06082a8648ce3d040303")),
    ),
    "another issuer": ("issuer_name", replace(LEAF, issuer=name(attribute(COMMON_NAME, "CA")))),
    "the issuer in other string types": (
        "issuer_name",
        replace(
            LEAF,
            issuer=name(
                attribute(COUNTRY, "ES", PRINTABLE),
                attribute("55040a", "Plant", PRINTABLE),
                attribute(COMMON_NAME, "CA"),
            ),
        ),
    ),
    "an empty issuer": ("issuer_name", replace(LEAF, issuer=NO_NAME)),
    "one extension twice": (
        "extension_twice",
        replace(LEAF, more=[LEAF.extensions[EKU]]),
    ),
    "FALSE written out": (
        "extension_encoding",
        replace(
            LEAF,
            more=[sequence(oid("2b0601040182f95e01"), bytes.fromhex("01010004020500"))],
        ),
    ),
    "an extension that is no DER": (
        "extension_encoding",
        replace(LEAF, more=[extension("2b0601040182f95e01", b"\x30\x05")]),
    ),
    "cA FALSE written out": (
        "extension_encoding",
        LEAF.with_extension(BASIC_CONSTRAINTS, sequence(bytes.fromhex("010100")), critical=True),
    ),
    "key usage with zero bits at its end": (
        "extension_encoding",
        LEAF.with_extension(KEY_USAGE, bytes.fromhex("03020080"), critical=True),
    ),
    "no authority key identifier": ("authority_key_id", LEAF.without(AKI)),
    "another authority key identifier": (
        "authority_key_id",
        LEAF.with_extension(AKI, sequence(der.encode(0x80, LEAF_SKI))),
    ),
    "an issuer's serial number without its name": (
        "extension_encoding",
        LEAF.with_extension(AKI, sequence(der.encode(0x82, b"\1"))),
    ),
    "a CA without subject key identifier": ("subject_key_id_missing", sub_ca().without(SKI)),
    # times
    "an end before the start": (
        "validity_order",
        replace(LEAF, validity=sequence(utc("270501000000Z"), utc("260501000000Z"))),
    ),
    "a GeneralizedTime before 2050": (
        "validity_encoding",
        replace(LEAF, validity=sequence(utc("260501000000Z"), generalized("20270501000000Z"))),
    ),
    "a time without seconds": (
        "validity_encoding",
        replace(LEAF, validity=sequence(utc("2605010000Z"), utc("270501000000Z"))),
    ),
    "a time with a zone": (
        "validity_encoding",
        replace(LEAF, validity=sequence(utc("260501000000+0100"), utc("270501000000Z"))),
    ),
    "a day that no month has": (
        "validity_encoding",
        replace(LEAF, validity=sequence(utc("260501000000Z"), utc("270231000000Z"))),
    ),
    "an end after the issuer's": (
        "validity_exceeds_issuer",
        replace(LEAF, validity=sequence(utc("260501000000Z"), utc("460101000001Z"))),
    ),
    "an end before the issuer's start": (
        "validity_before_issuer",
        replace(LEAF, validity=sequence(utc("240501000000Z"), utc("250101000000Z"))),
    ),
    # names
    "no name at all": ("subject_empty", replace(LEAF, subject=NO_NAME).without(SAN)),
    "a CA without a subject": ("subject_empty", sub_ca(subject=NO_NAME)),
    "an alternative name that is not critical though alone": (
        "san_criticality",
        replace(LEAF, subject=NO_NAME),
    ),
    "a critical alternative name beside a subject": (
        "san_criticality",
        LEAF.with_extension(SAN, names((0x82, "a.example")), critical=True),
    ),
    "a country of three letters": (
        "name_country",
        replace(LEAF, subject=name(attribute(COUNTRY, "ESP", PRINTABLE))),
    ),
    "a country in UTF-8": (
        "name_string_type",
        replace(LEAF, subject=name(attribute(COUNTRY, "ES", UTF8))),
    ),
    "a common name that is too long": (
        "name_too_long",
        replace(LEAF, subject=name(attribute(COMMON_NAME, "x" * 65))),
    ),
    "an empty common name": (
        "name_too_long",
        replace(LEAF, subject=name(attribute(COMMON_NAME, ""))),
    ),
    "a common name as IA5String": (
        "name_string_type",
        replace(LEAF, subject=name(attribute(COMMON_NAME, "pump", IA5))),
    ),
    "octets that are no UTF-8": (
        "name_string_octets",
        replace(LEAF, subject=name(attribute(COMMON_NAME, b"\xff\xfe"))),
    ),
    "a PrintableString with an underscore": (
        "name_string_octets",
        replace(LEAF, subject=name(attribute(COMMON_NAME, "pump_7", PRINTABLE))),
    ),
    "two attributes of one type in an RDN": (
        "name_rdn_twice",
        replace(
            LEAF,
            subject=sequence(
                der.encode(der.SET, attribute(COMMON_NAME, "a"), attribute(COMMON_NAME, "b"))
            ),
        ),
    ),
    "an RDN out of order": (
        "name_rdn_order",
        replace(
            LEAF,
            subject=sequence(
                der.encode(
                    der.SET, attribute(COUNTRY, "ES", PRINTABLE), attribute(COMMON_NAME, "b")
                )
            ),
        ),
    ),
    "an empty RDN": ("name_empty_rdn", replace(LEAF, subject=sequence(der.encode(der.SET)))),
    "an e-mail address in the subject alone": (
        "email_not_alternative",
        replace(LEAF, subject=name(attribute(EMAIL, "pump@plant.example", IA5))),
    ),
    "no alternative name in the list": ("general_names", LEAF.with_extension(SAN, sequence())),
    "a domain name with a space": (
        "dns_name",
        LEAF.with_extension(SAN, names((0x82, "pump 7"))),
    ),
    "a domain name with an underscore": (
        "dns_name",
        LEAF.with_extension(SAN, names((0x82, "pump_7.example"))),
    ),
    "a label of 64 characters": (
        "dns_name",
        LEAF.with_extension(SAN, names((0x82, "x" * 64 + ".example"))),
    ),
    "a wildcard within a label": (
        "dns_name",
        LEAF.with_extension(SAN, names((0x82, "pump*.example"))),
    ),
    "an address of five octets": (
        "ip_address",
        LEAF.with_extension(SAN, names((0x87, bytes(5)))),
    ),
    "a relative URI": ("uri", LEAF.with_extension(SAN, names((0x86, "/pump/7")))),
    "a URI with a space": ("uri", LEAF.with_extension(SAN, names((0x86, "urn:a b")))),
    "a mailbox without a domain": (
        "rfc822_name",
        LEAF.with_extension(SAN, names((0x81, "pump"))),
    ),
    "a name beyond ASCII": (
        "ia5_string",
        LEAF.with_extension(SAN, names((0x82, "pumpe-ü.example"))),
    ),
    # the key
    "a key of 1024 bits": (
        "subject_public_key",
        replace(
            LEAF,
            spki=sequence(
                bytes.fromhex("300d06092a864886f70d0101010500"),
                der.encode(
                    der.BIT_STRING,
                    b"\0",
                    sequence(
                        der.encode(der.INTEGER, b"\0" + b"\xf1" * 128),
                        bytes.fromhex("0203010001"),
                    ),
                ),
            ),
        ),
    ),
    # extensions
    "a critical authority key identifier": (
        "critical",
        LEAF.with_extension(AKI, sequence(der.encode(0x80, bytes(32))), critical=True),
    ),
    "a critical subject key identifier": (
        "critical",
        LEAF.with_extension(SKI, der.encode(der.OCTET_STRING, LEAF_SKI), critical=True),
    ),
    "critical access": (
        "critical",
        LEAF.with_extension(AIA, access(uri("http://a.example")), critical=True),
    ),
    "a key usage that is not critical": (
        "not_critical",
        LEAF.with_extension(KEY_USAGE, key_usage(0)),
    ),
    "a CA's basic constraints that are not critical": (
        "not_critical",
        sub_ca().with_extension(BASIC_CONSTRAINTS, sequence(TRUE)),
    ),
    "a path length without a CA": (
        "path_length_without_ca",
        LEAF.with_extension(BASIC_CONSTRAINTS, sequence(b"\2\1\0"), critical=True),
    ),
    "keyCertSign without a CA": (
        "key_cert_sign",
        LEAF.with_extension(KEY_USAGE, key_usage(0, 5), critical=True),
    ),
    "a CA without keyCertSign": (
        "key_cert_sign",
        sub_ca().with_extension(KEY_USAGE, key_usage(6), critical=True),
    ),
    "a CA without key usage": ("key_usage_missing", sub_ca().without(KEY_USAGE)),
    "a key usage without a bit": (
        "key_usage",
        LEAF.with_extension(KEY_USAGE, bytes.fromhex("030100"), critical=True),
    ),
    "encipherOnly without keyAgreement": (
        "key_usage",
        LEAF.with_extension(KEY_USAGE, key_usage(0, 7), critical=True),
    ),
    "encipherOnly beside decipherOnly": (
        "key_usage",
        LEAF.with_extension(KEY_USAGE, key_usage(4, 7, 8), critical=True),
    ),
    "key encipherment with a curve": (
        "key_usage_of_key",
        LEAF.with_extension(KEY_USAGE, key_usage(0, 2), critical=True),
    ),
    "a purpose without a usage for it": (
        "purpose_without_usage",
        LEAF.with_extension(KEY_USAGE, key_usage(1), critical=True),
    ),
    "no purpose": ("extended_key_usage", LEAF.with_extension(EKU, sequence())),
    "a purpose twice": (
        "extended_key_usage",
        LEAF.with_extension(EKU, sequence(oid(SERVER_AUTH), oid(SERVER_AUTH))),
    ),
    "time stamping that is not critical": (
        "time_stamping_not_critical",
        LEAF.with_extension(EKU, sequence(oid(TIME_STAMPING))),
    ),
    "access to nowhere": ("no_address", LEAF.with_extension(AIA, sequence())),
    "access by a relative URI": ("uri", LEAF.with_extension(AIA, access(uri("/ocsp")))),
    "access by a scheme that nobody fetches": (
        "uri_scheme",
        LEAF.with_extension(AIA, access(uri("urn:ocsp"))),
    ),
    "a distribution point without a name": (
        "no_address",
        LEAF.with_extension(CDP, sequence(sequence())),
    ),
    "a distribution point with a relative URI": (
        "uri",
        LEAF.with_extension(CDP, points(uri("crl.pem"))),
    ),
    "a policy twice": (
        "policies",
        LEAF.with_extension(POLICIES, sequence(sequence(oid("2b0601")), sequence(oid("2b0601")))),
    ),
    "name constraints of an end entity": (
        "for_cas_only",
        LEAF.with_extension(
            NAME_CONSTRAINTS,
            sequence(der.encode(0xA0, subtree(0x82, "plant.example"))),
            critical=True,
        ),
    ),
    "name constraints that are not critical": (
        "not_critical",
        sub_ca().with_extension(
            NAME_CONSTRAINTS, sequence(der.encode(0xA0, subtree(0x82, "plant.example")))
        ),
    ),
    "name constraints that constrain nothing": (
        "name_constraints",
        sub_ca().with_extension(NAME_CONSTRAINTS, sequence(), critical=True),
    ),
    "an address constraint without a mask": (
        "name_constraints",
        sub_ca().with_extension(
            NAME_CONSTRAINTS,
            sequence(der.encode(0xA0, subtree(0x87, bytes(4)))),
            critical=True,
        ),
    ),
    "a mask with a gap": (
        "name_constraints",
        sub_ca().with_extension(
            NAME_CONSTRAINTS,
            sequence(der.encode(0xA0, subtree(0x87, bytes([10, 0, 0, 0, 255, 0, 255, 0])))),
            critical=True,
        ),
    ),
}


@pytest.mark.parametrize(("rule", "draft"), BROKEN.values(), ids=BROKEN)
def test_each_rule_refuses_what_breaks_it_and_the_key_signs_nothing(
    rule: str, draft: Draft
) -> None:
    refusal = judge(draft)

    assert rule_of(refusal) == rule
    assert refusal is not None
    assert f"({rule}, " in refusal.text


def test_what_only_the_platform_wrote_is_its_own_fault() -> None:
    assert isinstance(judge(BROKEN["version 1"][1]), Unavailable)
    assert isinstance(judge(BROKEN["a domain name with a space"][1]), RuleViolation)


@pytest.mark.parametrize("octets", [b"", b"\x30\x00", b"\x30\x80\x00\x00", bytes(64)])
def test_what_is_no_certificate_is_not_signed(octets: bytes) -> None:
    signer = CountingKey(key("ca"))

    with pytest.raises(LamassuError, match="structure"):
        linting_key(signer, issuer_path=(root_certificate(),)).sign(octets, ECDSA)  # type: ignore[call-arg, arg-type]

    assert signer.used == 0


# --- what the CAs above decide --------------------------------------------------------------


def below(path_length: int | None) -> bytes:
    return root(extensions=ca_extensions(path_length=path_length)).signed_by(key("ca"))


def test_a_path_length_leaves_room_for_so_many_cas() -> None:
    assert judge(LEAF, below(0)) is None
    assert rule_of(judge(sub_ca(), below(0))) == "path_length"
    assert judge(sub_ca(extensions=ca_extensions(path_length=0, ski=LEAF_SKI)), below(1)) is None
    too_long = sub_ca(extensions=ca_extensions(path_length=1, ski=LEAF_SKI))
    assert rule_of(judge(too_long, below(1))) == "path_length"
    # by the CA above the issuer, too
    issuer = Draft(
        subject=CA_NAME,
        issuer=name(attribute(COMMON_NAME, "Root")),
        spki=spki(key("ca")),
        validity=root().validity,
        extensions=ca_extensions(),
    ).signed_by(key("root"))
    above = root(
        issuer=name(attribute(COMMON_NAME, "Root")),
        subject=name(attribute(COMMON_NAME, "Root")),
        spki=spki(key("root")),
        extensions=ca_extensions(path_length=1),
    ).signed_by(key("root"))
    assert judge(sub_ca(), issuer) is None
    assert rule_of(judge(sub_ca(), issuer, above)) == "path_length"
    # a CA that certifies its own next key is not counted (RFC 5280 §6.1.4 l)
    assert judge(sub_ca(subject=CA_NAME), issuer, above) is None


def test_only_a_ca_issues() -> None:
    no_ca = replace(LEAF, spki=spki(key("ca")), subject=CA_NAME).without(AKI)
    certificate = replace(no_ca, issuer=name(attribute(COMMON_NAME, "Root"))).signed_by(key("ca"))

    assert rule_of(judge(LEAF, certificate)) == "issuer_is_no_ca"


DNS, MAIL, URI, IP, DIRECTORY = 0x82, 0x81, 0x86, 0x87, 0xA4
INSIDE = (
    (DNS, "plant.example", names((DNS, "pump.plant.example"))),
    (DNS, "plant.example", names((DNS, "plant.example"))),
    (DNS, "PLANT.example", names((DNS, "*.plant.EXAMPLE"))),
    (MAIL, "plant.example", names((MAIL, "pump@plant.example"))),
    (MAIL, ".plant.example", names((MAIL, "pump@mail.plant.example"))),
    (URI, ".plant.example", names((URI, "https://pump.plant.example/7"))),
    (IP, bytes([10, 0, 0, 0, 255, 0, 0, 0]), names((IP, bytes([10, 1, 2, 3])))),
    (DIRECTORY, name(attribute(COMMON_NAME, "PUMP-7 ")), names((DNS, "any.example"))),
)
OUTSIDE = (
    (DNS, "plant.example", names((DNS, "pump.other.example"))),
    (DNS, "plant.example", names((DNS, "notplant.example"))),
    (MAIL, "plant.example", names((MAIL, "pump@mail.plant.example"))),
    (MAIL, "chief@plant.example", names((MAIL, "pump@plant.example"))),
    (URI, "plant.example", names((URI, "https://pump.plant.example/7"))),
    (URI, "plant.example", names((URI, "urn:pump:7"))),
    (IP, bytes([10, 0, 0, 0, 255, 0, 0, 0]), names((IP, bytes([11, 1, 2, 3])))),
    (IP, bytes([10, 0, 0, 0, 255, 0, 0, 0]), names((IP, bytes(16)))),
    (DIRECTORY, name(attribute(COMMON_NAME, "another")), names((DNS, "any.example"))),
)


@pytest.mark.parametrize(("tag", "base", "san"), INSIDE)
def test_permitted_names_are_signed_and_excluded_ones_are_not(
    tag: int, base: str | bytes, san: bytes
) -> None:
    draft = LEAF.with_extension(SAN, san)

    assert judge(draft, constrained(permitted=subtree(tag, base))) is None
    refusal = judge(draft, constrained(excluded=subtree(tag, base)))
    assert rule_of(refusal) == "outside_name_constraints"


@pytest.mark.parametrize(("tag", "base", "san"), OUTSIDE)
def test_names_that_no_ca_above_permits_are_not_signed(
    tag: int, base: str | bytes, san: bytes
) -> None:
    refusal = judge(LEAF.with_extension(SAN, san), constrained(permitted=subtree(tag, base)))

    assert rule_of(refusal) == "outside_name_constraints"


def test_a_wildcard_that_may_stand_for_an_excluded_name_is_not_signed() -> None:
    draft = LEAF.with_extension(SAN, names((DNS, "*.plant.example")))

    refusal = judge(draft, constrained(excluded=subtree(DNS, "safe.plant.example")))

    assert rule_of(refusal) == "outside_name_constraints"


# --- beside pkilint -------------------------------------------------------------------------

texts = st.sampled_from(
    ["pump-7", "pump.example", "", "a" * 64, "pump 7", "*.example", "p@q.example", "x" * 65]
)
tags = st.sampled_from([UTF8, PRINTABLE, IA5, 0x1E])
flags = st.booleans()


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    """Certificates in which anything may be wrong."""
    draft = draw(st.sampled_from([LEAF, sub_ca()]))
    changes = draw(st.sets(st.integers(0, 9), max_size=3))
    if 0 in changes:
        octets = draw(st.binary(min_size=1, max_size=22))
        draft = replace(draft, serial_number=der.encode(der.INTEGER, octets))
    if 1 in changes:
        bits = draw(st.sets(st.integers(0, 8), min_size=1))
        draft = draft.with_extension(KEY_USAGE, key_usage(*bits), critical=draw(flags))
    if 2 in changes:
        draft = draft.with_extension(
            SAN, names((draw(st.sampled_from([0x81, 0x82, 0x86])), draw(texts))),
            critical=draw(flags),
        )  # fmt: skip
    if 3 in changes:
        draft = replace(
            draft,
            subject=draw(
                st.one_of(
                    st.just(NO_NAME),
                    st.builds(
                        lambda kind, text, tag: name(attribute(kind, text.encode(), tag)),
                        st.sampled_from([COUNTRY, COMMON_NAME, EMAIL, "550405"]),
                        texts,
                        tags,
                    ),
                )
            ),
        )
    if 4 in changes:
        draft = draft.without(draw(st.sampled_from([SKI, AKI, KEY_USAGE, SAN, EKU])))
    if 5 in changes:
        times = st.sampled_from(
            [utc("260501000000Z"), utc("2605010000Z"), generalized("20270501000000Z"),
             generalized("20510501000000Z"), utc("490501000000Z")]
        )  # fmt: skip
        draft = replace(draft, validity=sequence(draw(times), draw(times)))
    if 6 in changes:
        critical = draw(flags)
        value = sequence(*draw(st.sampled_from([[], [TRUE], [TRUE, b"\2\1\0"], [b"\2\1\0"]])))
        draft = draft.with_extension(BASIC_CONSTRAINTS, value, critical=critical)
    if 7 in changes:
        again = draw(st.sampled_from(list(draft.extensions)))
        draft = replace(draft, more=[draft.extensions[again]])
    if 8 in changes:
        kind = draw(st.sampled_from([SKI, AKI, AIA, CDP]))
        value = draft.extensions.get(kind)
        if value is not None:
            inner = der.children(value, der.sole_element(value))[-1]
            draft = draft.with_extension(kind, value[inner.value : inner.end], critical=True)
    if 9 in changes:
        bases = st.sampled_from(
            [[], [der.encode(0xA0, subtree(DNS, "plant.example"))],
             [der.encode(0xA0, subtree(IP, bytes(5)))]]
        )  # fmt: skip
        draft = draft.with_extension(NAME_CONSTRAINTS, sequence(*draw(bases)), critical=draw(flags))
    return draft


@settings(
    max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(drafts())
def test_what_pkilint_calls_an_error_is_refused_here_too(draft: Draft) -> None:
    findings = linter_findings(draft.signed_by(key("ca")))

    refusal = judge(draft)

    assert refusal is not None or findings == []


def words(octets: bytes) -> list[bytes]:
    """The object identifiers in it, one after the other."""
    found, pending = [], [der.sole_element(octets)]
    while pending:
        element = pending.pop()
        if element.tag == der.OBJECT_IDENTIFIER:
            found.append(octets[element.value : element.end])
        inside = element.tag & 0x20
        if element.tag == der.OCTET_STRING and octets[element.value : element.value + 1] == b"0":
            inside = 1  # an extension's value
        if inside:
            with suppress(Malformed):
                pending += der.children(octets, element)
    return found


@settings(
    max_examples=600, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck)
)
@given(st.integers(0, 10_000), st.integers(1, 255), st.sampled_from([LEAF, sub_ca()]))
def test_no_flipped_octet_makes_what_pkilint_alone_refuses(
    place: int, flip: int, draft: Draft
) -> None:
    octets = bytearray(draft.encoded())
    octets[place % len(octets)] ^= flip

    # an extension or attribute that became another one is nothing that we have rules for
    if judge(bytes(octets)) is None and words(bytes(octets)) == words(draft.encoded()):
        signed = sequence(bytes(octets), draft.algorithm, bit_string(b"none"))
        assert linter_findings(signed) == []
