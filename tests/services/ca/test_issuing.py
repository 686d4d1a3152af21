"""What certificates say, and what never gets into one."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from lamassu.kernel.errors import Conflict, Forbidden, LamassuError, NotFound, RuleViolation
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract import (
    CertificateStatus,
    CryptoEnforcement,
    IssuanceProfile,
    IssueRequest,
    RevocationReason,
    Validity,
)
from lamassu.services.ca.model import StatusChange
from lamassu.services.ca.rules.names import name_from_der
from tests.support.judges import lint_certificate, openssl_verify

from .world import (
    ALICE,
    DEVICE_PROFILE,
    START,
    YEAR,
    World,
    csr,
    device_key,
    named,
    parsed,
    small_rsa_key,
    wire_csr,
)

AT = int(START.timestamp()) + 60
EVERYTHING = x509.KeyUsage(
    digital_signature=True,
    content_commitment=True,
    key_encipherment=True,
    data_encipherment=True,
    key_agreement=True,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


async def test_a_device_certificate_says_what_its_profile_says(world: World) -> None:
    await world.hierarchy()
    san = x509.SubjectAlternativeName(
        [x509.DNSName("d1.example"), x509.IPAddress(ip_address("192.0.2.1"))]
    )

    issued = await world.issue(
        csr_der=csr(named("device-1", organization="Acme"), extensions=[san])
    )

    certificate = parsed(issued)
    issuer = await world.ca.get_ca("issuing")
    extensions = certificate.extensions
    assert certificate.issuer.public_bytes() == parsed(issuer).subject.public_bytes()
    assert certificate.not_valid_before_utc == START - timedelta(minutes=1)
    assert certificate.not_valid_after_utc == START + YEAR
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert issued.key_usage == ("DigitalSignature",)
    assert issued.extended_key_usages == ("ClientAuth",)
    assert extensions.get_extension_for_class(x509.SubjectAlternativeName).value == san
    assert issued.subject_key_id == certificate_facts(issued.der).ski
    assert issued.authority_key_id == issuer.certificate.subject_key_id
    access = extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert [a.access_location.value for a in access] == [
        "http://pki.test:8080/ocsp",
        "http://pki.test:8080/ca/issuing.crt",
    ]
    [point] = extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name is not None
    assert point.full_name[0].value == (
        f"http://pki.test:8080/crl/{issuer.certificate.subject_key_id}"
    )
    assert 100 < certificate.serial_number.bit_length() <= 128
    assert await world.ca.find_certificate(issued.serial_number) == issued
    assert await world.ca.find_certificate_by_der(issued.der) == issued
    assert (await world.event_types())[-1] == "ca.sign.certificate"
    assert (await world.records("audit"))[-1]["type"] == "ca.sign.certificate"


async def test_what_is_stored_is_what_the_certificate_says(world: World) -> None:
    await world.hierarchy()
    everything = replace(
        DEVICE_PROFILE,
        honor_key_usage=True,
        honor_extended_key_usages=True,
    )
    eku = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])

    issued = await world.issue(csr_der=csr(extensions=[EVERYTHING, eku]), profile=everything)

    facts = certificate_facts(issued.der)
    assert facts.serial_number == issued.serial_number
    assert (facts.subject, facts.issuer) == (issued.subject, issued.issuer)
    assert (facts.ski, facts.aki) == (issued.subject_key_id, issued.authority_key_id)
    assert (facts.not_before, facts.not_after) == (issued.not_before, issued.not_after)
    assert facts.key_usage == issued.key_usage
    assert facts.extended_key_usages == issued.extended_key_usages
    assert (facts.key.algorithm, facts.key.size) == (issued.key_algorithm, issued.key_size)


async def test_others_accept_every_certificate_of_the_hierarchy(world: World) -> None:
    await world.hierarchy()
    san = x509.SubjectAlternativeName([x509.DNSName("d1.example")])
    nameless = x509.Name([])
    leaves = [
        await world.issue(),
        await world.issue(csr_der=csr(extensions=[san])),
        await world.issue(csr_der=csr(nameless, extensions=[san])),
        await world.issue(csr_der=csr("rsa", key=small_rsa_key())),
        await world.issue(
            profile=IssuanceProfile(id="", honor_key_usage=True, honor_subject=True),
            csr_der=csr(extensions=[EVERYTHING]),
        ),
    ]
    path = [member.certificate.der for member in await world.ca.path_of("issuing")]

    for leaf in leaves:
        accepted, said = openssl_verify(leaf.der, anchors=path[-1:], intermediates=path[:-1], at=AT)
        assert accepted, said
    for der in [*path, *(leaf.der for leaf in leaves)]:
        assert lint_certificate(der) == []


async def test_honouring_a_request_never_makes_an_authority(world: World) -> None:
    """Attack on security rule 12."""
    await world.hierarchy()
    generous = IssuanceProfile(
        id="generous",
        honor_key_usage=True,
        honor_extended_key_usages=True,
        honor_subject=True,
        honor_extensions=True,
    )
    wishes = [
        EVERYTHING,
        x509.ExtendedKeyUsage(
            [
                ExtendedKeyUsageOID.CLIENT_AUTH,
                ExtendedKeyUsageOID.OCSP_SIGNING,
                ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
                ObjectIdentifier("1.3.6.1.5.5.7.3.28"),
            ]
        ),
        x509.BasicConstraints(ca=True, path_length=None),
        x509.OCSPNoCheck(),
    ]

    issued = await world.issue(csr_der=csr(extensions=wishes), profile=generous)

    assert issued.key_usage == ("DigitalSignature", "ContentCommitment", "KeyAgreement")
    assert issued.extended_key_usages == ("ClientAuth",)
    extensions = parsed(issued).extensions
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    with pytest.raises(x509.ExtensionNotFound):
        extensions.get_extension_for_class(x509.OCSPNoCheck)


@pytest.mark.parametrize("usage", ["OCSPSigning", "Any"])
async def test_no_profile_makes_an_authority_of_a_device(world: World, usage: str) -> None:
    """Attack on security rule 12: a DMS judged its profile, and an admin changed it after."""
    await world.hierarchy()
    granting = replace(DEVICE_PROFILE, extended_key_usages=("ClientAuth", usage))
    before = await world.count()

    with pytest.raises(RuleViolation) as refusal:
        await world.issue(profile=granting, owner="fleet", device_id="device-1")

    assert refusal.value.code == "profile_grants_authority"
    assert await world.count() == before
    # An admin who signs a responder's request knows what it is.
    assert usage in (await world.issue(profile=granting)).extended_key_usages


async def test_a_platform_name_is_refused(world: World) -> None:
    """Attack on security rule 12: a URI of ours would be a principal."""
    await world.hierarchy()
    before = await world.count()

    for uri in ("lamassu://admin/eve", "LAMASSU://service/est", " lamassu://admin/eve"):
        san = x509.SubjectAlternativeName(
            [x509.DNSName("fine.example"), x509.UniformResourceIdentifier(uri)]
        )
        for wish in ({"csr_der": csr(extensions=[san])}, {"san_der": san.public_bytes()}):
            with pytest.raises(RuleViolation) as refusal:
                await world.issue(**wish)
            assert refusal.value.code == "platform_name"

    own = (
        x509.DNSName("pki.test"),
        x509.DNSName("PKI.test."),
        x509.DNSName("*.test"),
        x509.IPAddress(ip_address("192.0.2.7")),
    )
    for host in own:
        with pytest.raises(RuleViolation) as refusal:
            await world.issue(csr_der=csr(extensions=[x509.SubjectAlternativeName([host])]))
        assert refusal.value.code == "platform_name"

    assert await world.count() == before


async def test_a_name_that_two_readers_read_differently_is_refused(world: World) -> None:
    """A NUL, a blank or nothing at all in an alternative name; an address of odd length."""
    await world.hierarchy()

    texts = (b"", b"a\0b", b"a b", b"a\n", "é".encode(), b"\x7f")
    names = [(tag, text) for tag in (0x81, 0x82, 0x86) for text in texts]
    for tag, value in [*names, (0x87, b"\x0a\0\0"), (0x87, b"")]:
        name = bytes((tag, len(value))) + value
        with pytest.raises(RuleViolation) as refusal:
            await world.issue(san_der=bytes((0x30, len(name))) + name)
        assert refusal.value.code == "san_malformed", (tag, value)

    fine = x509.SubjectAlternativeName(
        [
            x509.DNSName("*.other.test"),
            x509.DNSName("sub.pki.test"),
            x509.UniformResourceIdentifier("urn:dev:1"),
            x509.IPAddress(ip_address("2001:db8::7")),
        ]
    )
    assert await world.issue(csr_der=csr(extensions=[fine]))


async def test_a_profile_for_cas_certifies_no_device(world: World) -> None:
    """Attack on security rule 12, by id and inline."""
    await world.hierarchy()
    await world.profile(IssuanceProfile(id="for-cas", sign_as_ca=True))
    before = await world.count()

    for wish in ({"profile_id": "for-cas"}, {"profile": IssuanceProfile(id="", sign_as_ca=True)}):
        with pytest.raises(RuleViolation) as refusal:
            await world.issue(**wish)
        assert refusal.value.code == "profile_signs_as_ca"

    assert await world.count() == before


async def test_a_profile_of_another_ca_is_refused(world: World) -> None:
    await world.hierarchy()
    await world.profile(replace(DEVICE_PROFILE, id="others", ca_id="other"))

    with pytest.raises(Forbidden):
        await world.issue(profile_id="others")

    assert (await world.issue(ca_id="other", profile_id="others")).issuer_ca_id == "other"


async def test_subject_attributes_outside_the_six_are_dropped(world: World) -> None:
    await world.hierarchy()

    issued = await world.issue(
        csr_der=csr(named("device-1", country="PT", email="eve@evil.example", serial="0042"))
    )

    assert parsed(issued).subject.rfc4514_string() == "CN=device-1,C=PT"


async def test_a_profile_may_set_the_subject_itself(world: World) -> None:
    await world.hierarchy()
    own = IssuanceProfile(id="", honor_subject=False, subject=Subject(organization="Fixed"))

    named_by_csr = await world.issue("device-9", profile=own)
    named_by_profile = await world.issue(
        "device-9", profile=replace(own, subject=Subject(common_name="Fixed"))
    )

    assert named_by_csr.subject == Subject(common_name="device-9", organization="Fixed")
    assert named_by_profile.subject == Subject(common_name="Fixed")


NAMES = [
    x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "PT"),
            x509.NameAttribute(NameOID.COMMON_NAME, "a", _ASN1Type.PrintableString),
        ]
    ),
    x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old", _ASN1Type.T61String)]),
    x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "größe", _ASN1Type.BMPString)]),
    x509.Name(
        [
            x509.RelativeDistinguishedName(
                [
                    x509.NameAttribute(NameOID.COMMON_NAME, "two"),
                    x509.NameAttribute(NameOID.SERIAL_NUMBER, "in one"),
                ]
            ),
            x509.RelativeDistinguishedName(
                [x509.NameAttribute(ObjectIdentifier("1.2.3.4"), "own")]
            ),
        ]
    ),
]


async def test_a_renewal_carries_the_subject_byte_for_byte(world: World) -> None:
    await world.hierarchy()

    for name in NAMES:
        issued = await world.issue(subject_der=name.public_bytes())

        assert certificate_facts(issued.der).subject_der == name.public_bytes()


@pytest.mark.parametrize("der", [b"", b"\x30", b"\x30\x02\x31\x00", b"\x04\x00", b"\x30\x80"])
def test_a_subject_that_cannot_be_carried_over_is_refused(der: bytes) -> None:
    with pytest.raises(RuleViolation):
        name_from_der(der)


async def test_a_certificate_ends_with_its_issuer(world: World) -> None:
    await world.hierarchy()
    world.clock.advance(2 * YEAR - timedelta(days=3))
    issuer = await world.ca.get_ca("issuing")

    assert (await world.issue()).not_after == issuer.certificate.not_after

    choosy = replace(DEVICE_PROFILE, id="", minimum_validity=timedelta(days=5))
    with pytest.raises(RuleViolation) as refusal:
        await world.issue(profile=choosy)
    assert refusal.value.code == "validity_below_minimum"
    world.clock.advance(timedelta(days=3, minutes=-10))
    with pytest.raises(RuleViolation) as refusal:
        await world.issue()
    assert refusal.value.code == "validity_below_minimum"
    world.clock.advance(timedelta(hours=1))
    with pytest.raises(RuleViolation) as refusal:
        await world.issue()
    assert refusal.value.text == "CA Status inconsistent"


async def test_small_rsa_keys_live_two_years_at_most(world: World) -> None:
    await world.profile()
    await world.root()
    long = replace(DEVICE_PROFILE, id="", validity=Validity(duration=5 * YEAR))

    rsa = await world.issue(ca_id="root", profile=long, csr_der=csr(key=small_rsa_key()))
    p256 = await world.issue(ca_id="root", profile=long)

    assert rsa.not_after - rsa.not_before == timedelta(hours=17520)
    assert p256.not_after == START + 5 * YEAR


ENFORCEMENTS = [
    (CryptoEnforcement(enabled=False), "rsa", True),
    (CryptoEnforcement(enabled=True), "rsa", False),
    (CryptoEnforcement(enabled=True, allow_rsa_keys=True), "rsa", True),
    (CryptoEnforcement(True, True, (3072,)), "rsa", False),
    (CryptoEnforcement(True, True, (2048,)), "ec", False),
    (CryptoEnforcement(True, False, None, True, (256,)), "ec", True),
    (CryptoEnforcement(True, False, None, True, ()), "ec", False),
]


async def test_crypto_enforcement(world: World) -> None:
    await world.profile()
    await world.root()

    for enforcement, key, taken in ENFORCEMENTS:
        before = await world.count()
        der = csr(key=small_rsa_key() if key == "rsa" else device_key())
        profile = replace(DEVICE_PROFILE, id="", crypto_enforcement=enforcement)
        if taken:
            await world.issue(ca_id="root", csr_der=der, profile=profile)
        else:
            with pytest.raises(RuleViolation) as refusal:
                await world.issue(ca_id="root", csr_der=der, profile=profile)
            assert refusal.value.code == "crypto_enforcement"
            assert await world.count() == before, enforcement


async def test_a_request_key_is_answered_once(world: World) -> None:
    await world.hierarchy()
    request = IssueRequest(
        ca_id="issuing", csr_der=csr(), caller=ALICE, request_key="k", owner="d", device_id="x"
    )
    first = await world.ca.issue(request)
    events = await world.event_types()

    again = await world.ca.issue(request)

    assert (first.repeated, again.repeated) == (False, True)
    assert again.certificate == first.certificate == await world.ca.find_issued("k")
    assert await world.event_types() == events
    with pytest.raises(Conflict):
        await world.ca.issue(replace(request, ca_id="other"))


async def test_the_same_request_at_once_makes_one_certificate(world: World) -> None:
    await world.hierarchy()
    request = IssueRequest(ca_id="issuing", csr_der=csr(), caller=ALICE, request_key="k")

    answers = await asyncio.gather(*(world.ca.issue(request) for _ in range(6)))

    assert len({answer.certificate.serial_number for answer in answers}) == 1
    assert [answer.repeated for answer in answers].count(False) == 1


async def test_only_an_active_certificate_is_replaced(world: World) -> None:
    """Attack on security rule 13."""
    await world.hierarchy()
    current = await world.issue()
    successor = await world.issue(replaces=("issuing", current.serial_number))
    await world.ca.revoke(current.serial_number, RevocationReason.SUPERSEDED, caller=ALICE)
    await world.ca.revoke(successor.serial_number, RevocationReason.KEY_COMPROMISE, caller=ALICE)
    before = await world.count()

    for replaces, kind, code in (
        (("issuing", current.serial_number), Conflict, "certificate_superseded"),
        (("issuing", successor.serial_number), Forbidden, "certificate_revoked"),
        (("other", successor.serial_number), Forbidden, "certificate_unknown"),
        (("issuing", "00"), Forbidden, "certificate_unknown"),
    ):
        with pytest.raises(kind) as refusal:
            await world.issue(replaces=replaces)
        assert refusal.value.code == code

    assert await world.count() == before


async def test_a_certificate_of_a_revoked_ca_is_not_replaced_under_another(world: World) -> None:
    await world.hierarchy()
    current = await world.issue()
    await world.ca.change_ca_status(
        "issuing",
        StatusChange(CertificateStatus.REVOKED, RevocationReason.CERTIFICATE_HOLD),
        caller=ALICE,
    )

    with pytest.raises(Forbidden):
        await world.issue(ca_id="other", replaces=("issuing", current.serial_number))


async def test_a_revocation_between_signing_and_storing_wins(world: World) -> None:
    """Attack on security rule 13: what was judged is judged again under lock."""
    await world.hierarchy()
    await world.issue()  # issuer and profile are prepared now
    use = world.kms.use

    async def revoke_then_use(*arguments: object, **named: object) -> object:
        world.kms.use = use  # type: ignore[method-assign]
        signed = await use(*arguments, **named)  # type: ignore[arg-type]
        await world.ca.change_ca_status(
            "root", StatusChange(CertificateStatus.REVOKED), caller=ALICE
        )
        return signed

    world.kms.use = revoke_then_use  # type: ignore[method-assign, assignment]
    before = (await world.count())["ca_certificates"]

    with pytest.raises(RuleViolation) as refusal:
        await world.issue()

    assert refusal.value.text == "CA Status inconsistent"
    assert (await world.count())["ca_certificates"] == before


async def test_a_changed_profile_holds_at_once(world: World) -> None:
    await world.hierarchy()
    await world.issue()
    strict = replace(DEVICE_PROFILE, crypto_enforcement=CryptoEnforcement(enabled=True))

    await world.ca.update_profile(strict, caller=ALICE)
    with pytest.raises(RuleViolation):
        await world.issue()

    await world.ca.update_profile(
        replace(DEVICE_PROFILE, validity=Validity(duration=timedelta(days=29))), caller=ALICE
    )
    assert (await world.issue()).not_after == START + timedelta(days=29)


async def test_a_device_certificate_waits_to_be_reconciled(world: World) -> None:
    await world.hierarchy()
    bound = await world.issue(owner="line-1", device_id="device-1")
    unbound = await world.issue(owner="line-1", device_id="device-2")
    await world.issue("no device")
    await world.ca.reconcile([bound.serial_number])

    early = await world.ca.unreconciled(older_than=START, limit=10)
    world.clock.advance(timedelta(minutes=11))
    late = await world.ca.unreconciled(
        older_than=world.clock.now() - timedelta(minutes=10), limit=10
    )

    assert list(early) == []
    assert [found.serial_number for found in late] == [unbound.serial_number]
    assert late[0].metadata == {
        "lamassu.io/ra/attached-to": {
            "authorized_by": {"ra_id": "line-1"},
            "device_id": "device-2",
        }
    }


async def test_a_csr_is_certified_by_the_api(world: World) -> None:
    await world.hierarchy()

    answer = await world.api.post(
        "/v1/cas/issuing/certificates/sign", json={"csr": wire_csr(csr()), "profile": {}}
    )

    assert answer.status_code == 201, answer.text
    certificate = answer.json()
    assert set(certificate) == {
        *("serial_number", "subject_key_id", "authority_key_id", "metadata", "status"),
        *("certificate", "key_metadata", "subject", "issuer", "valid_from", "valid_to"),
        *("extensions", "issuer_metadata", "revocation_timestamp", "revocation_reason"),
        *("type", "engine_id", "is_ca"),
    }
    assert certificate["status"] == "ACTIVE"
    assert certificate["key_metadata"] == {"type": "ECDSA", "bits": 256, "strength": "HIGH"}
    assert certificate["extensions"] == {
        "key_usage": ["DigitalSignature"],
        "extended_key_usage": ["ClientAuth"],
    }
    assert certificate["issuer"]["common_name"] == "The issuing CA"
    assert certificate["issuer_metadata"]["id"] == "issuing"
    assert certificate["revocation_timestamp"] == "0001-01-01T00:00:00Z"
    assert certificate["revocation_reason"] == "Unspecified"
    assert certificate["valid_to"] == "2027-05-01T12:00:00Z"
    same = await world.api.get(f"/v1/cas/issuing/certificates/{certificate['serial_number']}")
    assert same.json() == certificate
    elsewhere = await world.api.get(f"/v1/cas/root/certificates/{certificate['serial_number']}")
    assert elsewhere.status_code == 404


def _tampered(der: bytes) -> bytes:
    return der[:-6] + bytes([der[-6] ^ 1]) + der[-5:]


BAD_REQUESTS: list[tuple[dict[str, object], int, str]] = [
    ({}, 400, "missing_field"),
    ({"csr": "!"}, 400, "invalid_base64"),
    ({"csr": "MTIz"}, 400, "invalid_pem"),
    ({"csr": wire_csr(_tampered(csr()))}, 400, "csr_signature_invalid"),
    ({"csr": wire_csr(csr()), "profile_id": "none"}, 404, "profile_not_found"),
    ({"csr": wire_csr(csr()), "profile": {"sign_as_ca": True}}, 400, "profile_signs_as_ca"),
    ({"csr": wire_csr(csr()), "profile": {"key_usage": ["Everything"]}}, 400, "invalid_value"),
    (
        {"csr": wire_csr(csr()), "profile": {"validity": {"type": "x", "duration": "1h"}}},
        400,
        "invalid_value",
    ),
    (
        {
            "csr": wire_csr(csr()),
            "profile": {"validity": {"type": "Duration", "duration": "-1h"}},
        },
        400,
        "validity_out_of_range",
    ),
    ({"csr": wire_csr(csr(x509.Name([])))}, 400, "subject_empty"),
    ({"csr": wire_csr(csr()), "surprise": 1}, 400, "unknown_field"),
]


async def test_a_bad_request_is_refused_and_stores_nothing(world: World) -> None:
    await world.profile()
    await world.root()
    before = await world.count()

    for body, status, code in BAD_REQUESTS:
        answer = await world.api.post("/v1/cas/root/certificates/sign", json=body)

        found = (answer.status_code, answer.json()["code"])
        assert found == (status, code), f"{body}: {answer.text}"
        assert await world.count() == before, body


async def test_an_unknown_ca_is_not_found(world: World) -> None:
    answer = await world.api.post("/v1/cas/none/certificates/sign", json={"csr": wire_csr(csr())})

    assert (answer.status_code, answer.json()["err"]) == (404, "CA not found")
    with pytest.raises(NotFound):
        await world.issue(ca_id="none")


async def test_a_csr_that_its_caller_verified_is_not_verified_again(world: World) -> None:
    await world.hierarchy()
    from lamassu.kernel.x509.csr import parse_csr

    tampered = _tampered(csr())

    assert await world.issue(csr_der=tampered, verified_csr=parse_csr(tampered))
    with pytest.raises(LamassuError):
        await world.issue(csr_der=tampered, verified_csr=parse_csr(csr()))
