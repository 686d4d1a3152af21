"""What each rule of a profile makes of a certificate, before outside judges, and refuses."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, mldsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

from lamassu.kernel.errors import Forbidden, RuleViolation
from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract import (
    NO_EXPIRY,
    AllowedNames,
    AlternativeNameRules,
    CertificatePolicy,
    CryptoEnforcement,
    CustomExtension,
    IssuanceProfile,
    IssuerEnd,
    NameConstraints,
    NamedValue,
    NameType,
    SubjectRules,
    Validity,
)
from lamassu.services.ca.model import CaRequest, KeyRequest, RekeyRequest
from tests.support.judges import lint_certificate, openssl_verify

from .world import ALICE, DEVICE_PROFILE, YEAR, World, csr, named, parsed, small_rsa_key, wire_csr

SAN = x509.SubjectAlternativeName([x509.DNSName("D1.devices.example")])
NAMES = AlternativeNameRules(
    names=(
        NamedValue(NameType.DNS, "{csr.cn}.devices.example"),
        NamedValue(NameType.URI, "https://devices.example/{csr.cn}/{csr.ou?}"),
        NamedValue(NameType.EMAIL, "{csr.cn}@devices.example"),
        NamedValue(NameType.IP, "192.0.2.9"),
        NamedValue(NameType.DIRECTORY, "O=Acme,C=PT"),
        NamedValue(NameType.REGISTERED_ID, "1.2.3.4"),
    )
)
POLICIES = (
    CertificatePolicy("1.3.6.1.4.1.99999.2", "https://example.com/cps"),
    CertificatePolicy("1.3.6.1.4.1.99999.4"),
)
CUSTOM = (CustomExtension("1.3.6.1.4.1.99999.3", False, bytes.fromhex("0c0568656c6c6f")),)


def profile(**changes: Any) -> IssuanceProfile:
    return replace(DEVICE_PROFILE, id="", **changes)


async def issued(world: World, changed: IssuanceProfile, **more: Any) -> x509.Certificate:
    """A certificate under an inline profile; pkilint and openssl find nothing."""
    certificate = parsed(await world.issue(profile=changed, **more))
    der = certificate.public_bytes(Encoding.DER)
    assert lint_certificate(der) == []
    path = [parsed(one).public_bytes(Encoding.DER) for one in await world.ca.path_of("issuing")]
    at = int(certificate.not_valid_before_utc.timestamp()) + 120
    accepted, text = openssl_verify(der, anchors=path[-1:], intermediates=path[:-1], at=at)
    assert accepted, text
    return certificate


async def refused(world: World, changed: IssuanceProfile, **more: Any) -> RuleViolation:
    before = await world.count()
    with pytest.raises(RuleViolation) as caught:
        await world.issue(profile=changed, **more)
    assert await world.count() == before
    return caught.value


def alternative(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


async def test_names_are_made_from_templates(world: World) -> None:
    await world.hierarchy()
    made = profile(
        honor_subject=False,
        honor_extensions=False,
        subject_rules=SubjectRules(
            template=Subject(common_name="{csr.cn}-{ca_id}", organization="{{Acme}}", country="PT")
        ),
        alternative_names=NAMES,
    )

    certificate = await issued(world, made, csr_der=csr("d1", extensions=[SAN]))

    assert certificate.subject.rfc4514_string() == "CN=d1-issuing,O={Acme},C=PT"
    names = alternative(certificate)
    assert names.get_values_for_type(x509.DNSName) == ["d1.devices.example"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "https://devices.example/d1/"
    ]
    assert names.get_values_for_type(x509.RFC822Name) == ["d1@devices.example"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.9"]
    assert len(names) == 6


async def test_a_template_cannot_be_broken_out_of(world: World) -> None:
    await world.hierarchy()
    made = profile(honor_extensions=False, alternative_names=NAMES)

    for name in ("a.example/x", "a b", "a@evil.example", "{device_id}", "*", "ü"):
        refusal = await refused(world, made, csr_der=csr(name))
        assert (refusal.code, refusal.field) == ("san_malformed", "csr")
    only_uri = profile(
        honor_extensions=False,
        alternative_names=AlternativeNameRules(
            names=(NamedValue(NameType.URI, "https://a.example/{csr.cn}"),)
        ),
    )
    certificate = await issued(world, only_uri, csr_der=csr("../b?c#d{csr.ou}"))
    assert alternative(certificate).get_values_for_type(x509.UniformResourceIdentifier) == [
        "https://a.example/..%2Fb%3Fc%23d%7Bcsr.ou%7D"
    ]


async def test_a_template_makes_no_name_of_the_platform(world: World) -> None:
    await world.hierarchy()
    for type_, value, name in (
        (NameType.DNS, "{csr.cn}.test", "pki"),
        (NameType.URI, "{csr.cn}://admin/eve", "lamassu"),
        (NameType.IP, "{csr.cn}", "192.0.2.7"),
    ):
        made = profile(
            honor_extensions=False,
            alternative_names=AlternativeNameRules(names=(NamedValue(type_, value),)),
        )
        assert (await refused(world, made, csr_der=csr(name))).code == "platform_name"


async def test_what_a_request_does_not_say_is_not_made_up(world: World) -> None:
    await world.hierarchy()
    template = SubjectRules(template=Subject(common_name="{device_id}"))

    refusal = await refused(world, profile(honor_subject=False, subject_rules=template))

    assert refusal.code == "template_value_missing"
    assert "{device_id}" in refusal.text


@pytest.mark.parametrize(
    ("patterns", "name", "taken"),
    [
        (Subject(common_name="device-[0-9]+"), named("device-7"), True),
        (Subject(common_name="device-[0-9]+"), named("device-7x"), False),
        (Subject(common_name="device-[0-9]+"), named("xdevice-7"), False),
        (Subject(organization="Acme"), named("a", organization="Acme"), True),
        (Subject(organization="Acme"), named("a"), False),
        (Subject(organization="(Acme)?"), named("a"), True),
        (Subject(country="PT|ES"), named("a", country="FR"), False),
    ],
)
async def test_subjects_match_their_patterns_as_a_whole(
    world: World, patterns: Subject, name: x509.Name, taken: bool
) -> None:
    await world.hierarchy()
    bounded = profile(subject_rules=SubjectRules(patterns=patterns))

    if taken:
        await issued(world, bounded, csr_der=csr(name))
    else:
        refusal = await refused(world, bounded, csr_der=csr(name))
        assert (refusal.code, refusal.field) == ("subject_not_allowed", "csr")


async def test_a_carried_subject_matches_with_all_its_values(world: World) -> None:
    await world.hierarchy()
    two = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, "device-1"),
            x509.NameAttribute(NameOID.COMMON_NAME, "root"),
        ]
    )
    bounded = profile(subject_rules=SubjectRules(patterns=Subject(common_name="device-[0-9]+")))

    refusal = await refused(world, bounded, subject_der=two.public_bytes())

    assert refusal.code == "subject_not_allowed"


ALLOWED = AlternativeNameRules(
    allowed=(
        AllowedNames(NameType.DNS, (r"[a-z0-9]+\.devices\.example", r"[a-z]+\.other\.example")),
        AllowedNames(NameType.IP, ("10.0.0.0/8", "2001:db8::/32")),
        AllowedNames(NameType.REGISTERED_ID),
    )
)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ([x509.DNSName("D1.devices.example")], True),
        (
            [x509.DNSName("x.other.example"), x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4"))],
            True,
        ),
        ([x509.DNSName("a.b.devices.example")], False),
        ([x509.DNSName("d1.devices.example.evil.example")], False),
        ([x509.DNSName("d1.devices.example"), x509.DNSName("evil.example")], False),
        ([x509.IPAddress(ip_address("10.9.8.7"))], True),
        ([x509.IPAddress(ip_address("2001:db8::1"))], True),
        ([x509.IPAddress(ip_address("11.0.0.1"))], False),
        ([x509.RFC822Name("a@devices.example")], False),
        ([x509.UniformResourceIdentifier("https://d1.devices.example")], False),
    ],
)
async def test_honoured_names_stay_in_their_bounds(
    world: World, names: list[x509.GeneralName], taken: bool
) -> None:
    await world.hierarchy()
    request = csr("d1", extensions=[x509.SubjectAlternativeName(names)])

    if taken:
        certificate = await issued(world, profile(alternative_names=ALLOWED), csr_der=request)
        assert list(alternative(certificate)) == names
    else:
        refusal = await refused(world, profile(alternative_names=ALLOWED), csr_der=request)
        assert (refusal.code, refusal.field) == ("san_not_allowed", "csr")


async def test_carried_names_stay_in_their_bounds_too(world: World) -> None:
    await world.hierarchy()
    evil = x509.SubjectAlternativeName([x509.DNSName("evil.example")]).public_bytes()

    refusal = await refused(world, profile(alternative_names=ALLOWED), san_der=evil)

    assert refusal.code == "san_not_allowed"


async def test_policies_and_further_extensions_stand_in_the_certificate(world: World) -> None:
    await world.hierarchy()

    certificate = await issued(
        world, profile(certificate_policies=POLICIES, custom_extensions=CUSTOM)
    )

    found = certificate.extensions.get_extension_for_class(x509.CertificatePolicies)
    assert [one.policy_identifier.dotted_string for one in found.value] == [
        one.oid for one in POLICIES
    ]
    assert found.value[0].policy_qualifiers == ["https://example.com/cps"]
    own = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(CUSTOM[0].oid))
    assert (own.critical, own.value.public_bytes()) == (False, CUSTOM[0].value)


async def test_periods_are_the_profiles(world: World) -> None:
    await world.hierarchy()
    now = world.clock.now()

    old = await issued(world, profile(backdating=timedelta(hours=5)))
    exact = await issued(world, profile(backdating=timedelta(0)))
    until = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    fixed = await issued(world, profile(validity=Validity(not_after=until)))
    endless = await issued(world, profile(validity=Validity(not_after=NO_EXPIRY)))
    strict = await refused(
        world,
        profile(validity=Validity(not_after=NO_EXPIRY), at_issuer_end=IssuerEnd.REFUSE),
    )

    assert old.not_valid_before_utc == now - timedelta(hours=5) or (
        old.not_valid_before_utc == parsed(await world.ca.get_ca("issuing")).not_valid_before_utc
    )
    assert exact.not_valid_before_utc == now
    assert fixed.not_valid_after_utc == until
    issuing = parsed(await world.ca.get_ca("issuing"))
    assert endless.not_valid_after_utc == issuing.not_valid_after_utc
    assert (strict.code, strict.field) == ("validity_exceeds_issuer", "validity")


async def test_a_ca_without_end_says_so(world: World) -> None:
    await world.profile()
    own = IssuanceProfile(id="", sign_as_ca=True, validity=Validity(not_after=NO_EXPIRY))
    authority = await world.ca.create_ca(ca_request("endless", own), caller=ALICE)
    der = authority.certificate.der

    assert b"\x18\x0f99991231235959Z" in der
    assert lint_certificate(der) == []
    world.clock.advance(YEAR * 20)
    certificate = await world.issue(ca_id="endless")
    assert certificate.not_after == world.clock.now() + YEAR


async def test_extended_key_usages_by_oid_are_fixed_or_honoured_if_listed(world: World) -> None:
    await world.hierarchy()
    own, other = "1.3.6.1.4.1.99999.1", "1.3.6.1.4.1.99999.9"
    asked = x509.ExtendedKeyUsage(
        [x509.ObjectIdentifier(oid) for oid in (own, other, "1.3.6.1.5.5.7.3.28")]
    )
    request = csr("d1", extensions=[asked])

    fixed = await issued(world, profile(extended_key_usages=("ClientAuth", own)))
    honoured = await issued(
        world,
        profile(honor_extended_key_usages=True, extended_key_usages=(own, "1.3.6.1.5.5.7.3.28")),
        csr_der=request,
    )

    def usages(certificate: x509.Certificate) -> list[str]:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        return [oid.dotted_string for oid in found.value]

    assert usages(fixed) == ["1.3.6.1.5.5.7.3.2", own]
    assert usages(honoured) == [own]  # never cmcRA, whoever lists it


@pytest.mark.parametrize("oid", ["1.3.6.1.5.5.7.3.28", "1.3.6.1.5.5.7.3.9", "2.5.29.37.0"])
async def test_no_profile_of_a_dms_grants_authority_by_oid(world: World, oid: str) -> None:
    await world.hierarchy()

    refusal = await refused(
        world, profile(extended_key_usages=(oid,)), owner="dms", device_id="device-1"
    )

    assert refusal.code == "profile_grants_authority"


@pytest.mark.parametrize(
    ("key", "kind", "size"),
    [
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519", 256),
        (mldsa.MLDSA44PrivateKey.generate(), "ML-DSA", 44),
        (mldsa.MLDSA65PrivateKey.generate(), "ML-DSA", 65),
        (mldsa.MLDSA87PrivateKey.generate(), "ML-DSA", 87),
    ],
)
async def test_newer_keys_are_certified_where_the_profile_allows_them(
    world: World, key: Any, kind: str, size: int
) -> None:
    await world.hierarchy()
    builder = x509.CertificateSigningRequestBuilder().subject_name(named("d1"))
    request = builder.sign(key, None).public_bytes(Encoding.DER)
    forged = bytearray(request)
    forged[-1] ^= 1
    keys = CryptoEnforcement(
        enabled=True,
        allow_ed25519_keys=True,
        allow_ml_dsa_keys=True,
        allowed_ml_dsa_key_sizes=(44, 65, 87),
    )
    usages = ("DigitalSignature", "KeyAgreement", "KeyEncipherment")

    certificate = await world.issue(
        csr_der=request, profile=profile(crypto_enforcement=keys, key_usage=usages)
    )

    assert (certificate.key_algorithm, certificate.key_size) == (kind, size)
    assert certificate.key_usage == ("DigitalSignature",)
    assert parsed(certificate).public_key() == key.public_key()
    assert (await refused(world, profile(), csr_der=request)).code == "key_not_allowed"
    assert (
        await refused(world, profile(crypto_enforcement=keys), csr_der=bytes(forged))
    ).code == "csr_signature_invalid"
    fewer = replace(keys, allow_ed25519_keys=False, allowed_ml_dsa_key_sizes=())
    assert (
        await refused(world, profile(crypto_enforcement=fewer), csr_der=request)
    ).code == "crypto_enforcement"
    device = await refused(
        world, profile(crypto_enforcement=keys), csr_der=request, owner="dms", device_id="d1"
    )
    assert device.code == "key_not_allowed"


# --- CAs ------------------------------------------------------------------------------------


def ca_request(ca_id: str, own: IssuanceProfile, **more: Any) -> CaRequest:
    return CaRequest(
        id=ca_id,
        subject=more.pop("subject", Subject(common_name=f"The {ca_id} CA", organization="Acme")),
        key=KeyRequest("ECDSA", 256),
        validity=Validity(duration=YEAR),
        profile_id="device",
        own_profile=own,
        **more,
    )


CONSTRAINED = IssuanceProfile(
    id="",
    sign_as_ca=True,
    path_length=0,
    extended_key_usages=("ClientAuth",),
    name_constraints=NameConstraints(
        permitted=(
            NamedValue(NameType.DNS, "devices.example"),
            NamedValue(NameType.IP, "10.0.0.0/8"),
            NamedValue(NameType.EMAIL, "devices.example"),
            NamedValue(NameType.URI, ".devices.example"),
        ),
        excluded=(NamedValue(NameType.DNS, "secret.devices.example"),),
    ),
    certificate_policies=POLICIES,
    custom_extensions=CUSTOM,
    backdating=timedelta(hours=1),
    subject_rules=SubjectRules(
        template=Subject(common_name="{csr.cn} below {ca_id}", organization="Acme")
    ),
    honor_subject=False,
)


async def test_a_cas_own_profile_stands_in_its_certificate_and_in_the_next(world: World) -> None:
    await world.hierarchy()

    tight = ca_request("tight", CONSTRAINED, parent_id="root")
    made = await world.ca.create_ca(tight, caller=ALICE)

    rekeyed = await world.ca.rekey_ca("tight", RekeyRequest(), caller=ALICE)

    for authority in (made, rekeyed):
        certificate = parsed(authority)
        assert lint_certificate(authority.certificate.der) == []
        found = {one.oid: one for one in certificate.extensions}
        assert found[ExtensionOID.NAME_CONSTRAINTS].critical
        assert len(found[ExtensionOID.NAME_CONSTRAINTS].value.permitted_subtrees) == 4
        assert ExtensionOID.CERTIFICATE_POLICIES in found
        assert x509.ObjectIdentifier(CUSTOM[0].oid) in found
        assert certificate.subject.rfc4514_string() == ("CN=The tight CA below root,O=Acme")
    assert made.certificate.not_before == parsed(await world.ca.get_ca("root")).not_valid_before_utc


async def test_a_cas_subject_is_held_against_its_profile(world: World) -> None:
    await world.hierarchy()
    own = IssuanceProfile(
        id="",
        sign_as_ca=True,
        honor_subject=False,
        subject=Subject(organization="Acme"),
        subject_rules=SubjectRules(patterns=Subject(common_name="Plant [0-9]+")),
    )
    before = await world.count()

    with pytest.raises(RuleViolation) as caught:
        await world.ca.create_ca(ca_request("plant", own), caller=ALICE)

    assert (caught.value.code, caught.value.field) == ("subject_not_allowed", "subject")
    assert await world.count() == before
    plant = Subject(common_name="Plant 7", organization="Other", country="PT")
    made = await world.ca.create_ca(ca_request("plant", own, subject=plant), caller=ALICE)
    assert made.certificate.subject == replace(plant, organization="Acme")


# --- what is refused, or told, when it is written ------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"backdating": "31d"}, "validity_out_of_range", "backdating"),
        ({"backdating": "-1m"}, "validity_out_of_range", "backdating"),
        ({"at_issuer_end": "ignore"}, "invalid_value", "at_issuer_end"),
        (
            {"minimum_validity": "2d", "validity": {"type": "Duration", "duration": "1d"}},
            "validity_out_of_range",
            "minimum_validity",
        ),
        (
            {"subject_rules": {"template": {"common_name": "{csr.cn}"}}, "honor_subject": True},
            "rules_contradict",
            "subject_rules.template",
        ),
        (
            {"subject_rules": {"template": {"common_name": "{nobody}"}}},
            "template_malformed",
            "subject_rules.template.common_name",
        ),
        (
            {"subject_rules": {"patterns": {"state": r"(a)\1"}}},
            "pattern_malformed",
            "subject_rules.patterns.state",
        ),
        (
            {"alternative_names": {"names": [{"type": "dns", "value": "a b"}]}},
            "name_malformed",
            "alternative_names.names.0.value",
        ),
        (
            {"alternative_names": {"names": [{"type": "other", "value": "x"}]}},
            "name_malformed",
            "alternative_names.names.0.value",
        ),
        (
            {"alternative_names": {"names": [{"type": "fax", "value": "x"}]}},
            "invalid_value",
            "alternative_names.names.0.type",
        ),
        (
            {
                "alternative_names": {"names": [{"type": "dns", "value": "a.example"}]},
                "honor_extensions": True,
            },
            "rules_contradict",
            "alternative_names.names",
        ),
        (
            {"alternative_names": {"allowed": [{"type": "ip", "patterns": ["10.0.0.1/8"]}]}},
            "pattern_malformed",
            "alternative_names.allowed.0.patterns.0",
        ),
        (
            {"alternative_names": {"allowed": [{"type": "dns"}, {"type": "DNS"}]}},
            "name_type_twice",
            "alternative_names.allowed.1.type",
        ),
        (
            {"name_constraints": {"permitted": [{"type": "dns", "value": "a.example"}]}},
            "for_cas_only",
            "name_constraints",
        ),
        (
            {
                "sign_as_ca": True,
                "name_constraints": {"excluded": [{"type": "dns", "value": ".a.example"}]},
            },
            "name_malformed",
            "name_constraints.excluded.0.value",
        ),
        (
            {"certificate_policies": [{"oid": "1.2.3"}, {"oid": "1.2.3"}]},
            "oid_malformed",
            "certificate_policies.1.oid",
        ),
        (
            {"certificate_policies": [{"oid": "1.2.3", "cps_uri": "ftp://a"}]},
            "url_malformed",
            "certificate_policies.0.cps_uri",
        ),
        (
            {"custom_extensions": [{"oid": "2.5.29.19", "value": "MAMBAf8="}]},
            "extension_controlled",
            "custom_extensions.0.oid",
        ),
        (
            {"custom_extensions": [{"oid": "1.3.6.1.5.5.7.48.1.5", "value": "BQA="}]},
            "extension_controlled",
            "custom_extensions.0.oid",
        ),
        (  # alternative names, as X.509 had them first
            {"custom_extensions": [{"oid": "2.5.29.7", "value": "MAA="}]},
            "extension_controlled",
            "custom_extensions.0.oid",
        ),
        (  # to Microsoft's software an extended key usage
            {"custom_extensions": [{"oid": "1.3.6.1.4.1.311.21.10", "value": "MAA="}]},
            "extension_controlled",
            "custom_extensions.0.oid",
        ),
        (
            {"custom_extensions": [{"oid": "1.2.3.4", "value": "BQAA"}]},
            "der_malformed",
            "custom_extensions.0.value",
        ),
        (
            {"custom_extensions": [{"oid": "1.2.3.4", "value": "!"}]},
            "invalid_base64",
            "custom_extensions.0.value",
        ),
    ],
)
async def test_what_makes_no_sense_is_refused_with_its_field(
    world: World, change: dict[str, Any], code: str, field: str
) -> None:
    before = await world.count()

    answer = await world.api.post("/v1/profiles", json=change)

    assert answer.status_code == 400, answer.text
    assert (answer.json()["code"], answer.json()["field"]) == (code, field)
    assert await world.count() == before


async def test_the_whole_model_goes_over_the_wire_and_the_database(world: World) -> None:
    whole: dict[str, Any] = {
        "name": "All",
        "validity": {"type": "NoExpiry"},
        "minimum_validity": "1d",
        "backdating": "2h",
        "at_issuer_end": "refuse",
        "honor_subject": False,
        "extended_key_usages": ["clientauth", "1.3.6.1.4.1.99999.1"],
        "subject_rules": {
            "template": {"common_name": "{csr.cn}"},
            "patterns": {"common_name": "[a-z]+"},
        },
        "alternative_names": {
            "names": [{"type": "DNS", "value": "{device_id}.a.example"}],
            "allowed": [{"type": "dns", "patterns": ["[a-z.]+"]}, {"type": "ip"}],
        },
        "certificate_policies": [{"oid": "1.2.3", "cps_uri": "http://a.example"}],
        "custom_extensions": [{"oid": "1.2.3.4", "critical": True, "value": "BQA="}],
        "crypto_enforcement": {
            "enabled": True,
            "allow_ed25519_keys": True,
            "allow_ml_dsa_keys": True,
            "allowed_ml_dsa_key_sizes": [65],
        },
    }
    created = await world.api.post("/v1/profiles", json=whole)

    assert created.status_code == 201, created.text
    path = f"/v1/profiles/{created.json()['id']}"
    shown = (await world.api.get(path)).json()
    assert shown["validity"] == {"type": "Time", "time": "9999-12-31T23:59:59Z"}
    assert shown["extended_key_usages"] == ["ClientAuth", "1.3.6.1.4.1.99999.1"]
    assert shown["alternative_names"]["allowed"][1] == {"type": "ip", "patterns": []}
    assert shown["custom_extensions"] == whole["custom_extensions"]
    assert (await world.api.put(path, json=shown)).status_code == 200
    assert (await world.api.get(path)).json() == shown
    # a client of the original replaces what it knows and nothing else
    old = {"name": "Other", "crypto_enforcement": {"enabled": True, "allow_rsa_keys": True}}
    await world.api.put(path, json=old)
    kept = (await world.api.get(path)).json()
    assert kept["name"] == "Other"
    for name in ("backdating", "subject_rules", "alternative_names", "custom_extensions"):
        assert kept[name] == shown[name]
    assert kept["crypto_enforcement"]["allowed_ml_dsa_key_sizes"] == [65]
    assert kept["crypto_enforcement"]["allow_rsa_keys"] is True


async def test_a_profile_that_no_ca_of_its_can_serve_is_refused(world: World) -> None:
    await world.hierarchy()
    await world.ca.create_ca(ca_request("tight", CONSTRAINED, parent_id="root"), caller=ALICE)
    base = {"validity": {"type": "Duration", "duration": "1h"}, "ca_id": "tight"}
    for change, code, field in (
        (
            {"validity": {"type": "Duration", "duration": "30y"}, "at_issuer_end": "refuse"},
            "validity_exceeds_issuer",
            "validity",
        ),
        (
            {"validity": {"type": "Duration", "duration": "30y"}, "minimum_validity": "20y"},
            "validity_below_minimum",
            "validity",
        ),
        (
            {"extended_key_usages": ["ServerAuth"]},
            "extended_key_usage_not_of_issuer",
            "extended_key_usages",
        ),
        ({"sign_as_ca": True}, "path_length_exceeded", "path_length"),
        (
            {"alternative_names": {"names": [{"type": "dns", "value": "a.other.example"}]}},
            "name_not_permitted",
            "alternative_names.names",
        ),
        (
            {"alternative_names": {"names": [{"type": "dns", "value": "secret.devices.example"}]}},
            "name_not_permitted",
            "alternative_names.names",
        ),
    ):
        before = await world.count()
        answer = await world.api.post("/v1/profiles", json={**base, **change})
        assert answer.status_code == 400, (change, answer.text)
        assert (answer.json()["code"], answer.json()["field"]) == (code, field)
        assert await world.count() == before
    fine = {
        **base,
        "extended_key_usages": ["ClientAuth"],
        "alternative_names": {"names": [{"type": "dns", "value": "a.devices.example"}]},
    }
    assert (await world.api.post("/v1/profiles", json=fine)).status_code == 201


async def test_a_ca_takes_no_default_profile_that_it_cannot_serve(world: World) -> None:
    await world.hierarchy()
    too_long = profile(
        validity=Validity(duration=YEAR * 30), minimum_validity=timedelta(hours=8760 * 20)
    )
    await world.profile(replace(too_long, id="long"))
    before = await world.count()

    answer = await world.api.post("/v1/cas/issuing/profile", json={"profile_id": "long"})

    assert (answer.status_code, answer.json()["field"]) == (400, "validity")
    assert await world.count() == before


async def test_what_should_be_known_is_told(world: World) -> None:
    await world.hierarchy()
    longer = {
        "validity": {"type": "Duration", "duration": "3y"},
        "honor_subject": True,
        "honor_extensions": True,
        "custom_extensions": [{"oid": "1.2.3.4", "critical": True, "value": "BQA="}],
    }

    written = await world.api.put("/v1/profiles/device", json=longer)

    assert written.status_code == 200, written.text
    codes = {one["code"] for one in written.json()["warnings"]}
    assert codes == {
        *("san_unpatterned", "outlives_issuer", "small_rsa_shortened", "critical_extension"),
    }
    found = (await world.api.get("/v1/profiles/device/findings")).json()["findings"]
    assert found == written.json()["warnings"]
    assert "warnings" not in (await world.api.get("/v1/profiles/device")).json()
    bounded = {
        **longer,
        "validity": {"type": "Duration", "duration": "30d"},
        "custom_extensions": [],
        "alternative_names": {"allowed": [{"type": "dns", "patterns": ["[a-z]+"]}]},
    }
    assert "warnings" not in (await world.api.put("/v1/profiles/device", json=bounded)).json()


async def test_a_profile_of_another_ca_is_refused_in_a_preview_too(world: World) -> None:
    await world.hierarchy()
    await world.profile(replace(DEVICE_PROFILE, id="mine", ca_id="other"))

    with pytest.raises(Forbidden):
        await world.issue(profile_id="mine")
    shown = await world.api.post(
        "/v1/profiles/mine/preview", json={"csr": wire_csr(csr("a")), "ca_id": "issuing"}
    )

    assert shown.status_code == 403


def test_the_fixtures_are_what_they_say() -> None:
    assert base64.b64encode(CUSTOM[0].value) == b"DAVoZWxsbw=="
    assert small_rsa_key().key_size == 2048
