"""Which changes of a profile let more be issued than before, and so need approvers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract import (
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
from lamassu.services.ca.rules.approvals import weakened

DAY = timedelta(days=1)
KEYS = CryptoEnforcement(
    enabled=True,
    allow_rsa_keys=True,
    allowed_rsa_key_sizes=(3072, 4096),
    allow_ecdsa_keys=False,
    allowed_ecdsa_key_sizes=None,
)
RULES = SubjectRules(Subject(common_name="{device_id}"), Subject(common_name="[a-z]+"))
NAMES = AlternativeNameRules(
    (NamedValue(NameType.DNS, "a.example"),), (AllowedNames(NameType.DNS, ("a", "b")),)
)
B_EXAMPLE = NamedValue(NameType.DNS, "b.example")
BOUNDS = NameConstraints(
    (NamedValue(NameType.DNS, "a.example"),), (NamedValue(NameType.DNS, "c.a.example"),)
)
BEFORE = IssuanceProfile(
    id="p",
    validity=Validity(duration=90 * DAY),
    key_usage=("DigitalSignature",),
    extended_key_usages=("ClientAuth",),
    honor_subject=False,
    subject=Subject(organization="Acme"),
    crypto_enforcement=KEYS,
    path_length=1,
    ca_id="issuing",
    backdating=DAY,
    at_issuer_end=IssuerEnd.REFUSE,
    subject_rules=RULES,
    alternative_names=NAMES,
    name_constraints=BOUNDS,
    certificate_policies=(CertificatePolicy("1.2.3"),),
)


def keys(**more: Any) -> dict[str, Any]:
    return {"crypto_enforcement": replace(KEYS, **more)}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"sign_as_ca": True}, "sign_as_ca"),
        ({"honor_key_usage": True}, "honor_key_usage"),
        ({"honor_extended_key_usages": True}, "honor_extended_key_usages"),
        ({"honor_subject": True}, "honor_subject"),
        ({"honor_extensions": True}, "honor_extensions"),
        ({"key_usage": ("DigitalSignature", "KeyAgreement")}, "key_usage"),
        ({"extended_key_usages": ("ServerAuth",)}, "extended_key_usages"),
        ({"validity": Validity(duration=91 * DAY)}, "validity"),
        ({"validity": Validity(not_after=datetime(2040, 1, 1, tzinfo=UTC))}, "validity"),
        ({"validity": Validity()}, "validity"),
        ({"path_length": 2}, "path_length"),
        ({"path_length": None}, "path_length"),
        ({"ca_id": None}, "ca_id"),
        ({"ca_id": "other"}, "ca_id"),
        (keys(enabled=False), "crypto_enforcement"),
        (keys(allow_ecdsa_keys=True), "crypto_enforcement"),
        (keys(allowed_rsa_key_sizes=(2048, 3072, 4096)), "crypto_enforcement"),
        (keys(allowed_rsa_key_sizes=None), "crypto_enforcement"),
        (keys(allow_ed25519_keys=True), "crypto_enforcement"),
        (keys(allow_ml_dsa_keys=True), "crypto_enforcement"),
        ({"backdating": 2 * DAY}, "backdating"),
        ({"at_issuer_end": IssuerEnd.CLAMP}, "at_issuer_end"),
        (
            {"subject_rules": SubjectRules(Subject(common_name="{csr.cn}"), RULES.patterns)},
            "subject_rules.template",
        ),
        ({"subject_rules": SubjectRules(None, RULES.patterns)}, "subject_rules.template"),
        (
            {"subject_rules": replace(RULES, patterns=Subject(common_name=".*"))},
            "subject_rules.patterns",
        ),
        ({"subject_rules": replace(RULES, patterns=Subject())}, "subject_rules.patterns"),
        ({"alternative_names": replace(NAMES, allowed=None)}, "alternative_names.allowed"),
        (
            {"alternative_names": replace(NAMES, allowed=(AllowedNames(NameType.DNS),))},
            "alternative_names.allowed",
        ),
        (
            {"alternative_names": replace(NAMES, allowed=(AllowedNames(NameType.URI, ("a",)),))},
            "alternative_names.allowed",
        ),
        (
            {"alternative_names": replace(NAMES, names=(NamedValue(NameType.DNS, "b.example"),))},
            "alternative_names.names",
        ),
        ({"name_constraints": NameConstraints()}, "name_constraints"),
        (
            {"name_constraints": replace(BOUNDS, permitted=(*BOUNDS.permitted, B_EXAMPLE))},
            "name_constraints",
        ),
        ({"name_constraints": replace(BOUNDS, excluded=())}, "name_constraints"),
        ({"certificate_policies": (CertificatePolicy("1.2.4"),)}, "certificate_policies"),
        (
            {"custom_extensions": (CustomExtension("1.2.3", False, b"\x05\x00"),)},
            "custom_extensions",
        ),
        # without the extension a certificate is for every use
        ({"key_usage": ()}, "key_usage"),
        ({"extended_key_usages": ()}, "extended_key_usages"),
        ({"subject": Subject(common_name="gateway", organization="Acme")}, "subject"),
        ({"subject": Subject(organization="Other")}, "subject"),
        ({"subject": Subject()}, "subject"),
        ({"ocsp_servers": ("http://elsewhere.example",)}, "ocsp_servers"),
        ({"crl_distribution_points": ("http://elsewhere.example",)}, "crl_distribution_points"),
    ],
)
def test_more_is_weaker(change: dict[str, Any], field: str) -> None:
    assert weakened(BEFORE, replace(BEFORE, **change)) == (field,)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"name": "another", "description": "text"},
        {"validity": Validity(duration=DAY)},
        {"path_length": 0},
        {"subject": Subject(organization="Acme", country="PT")},
        {"ca_issuers": ("http://certificates.example/1",)},
        keys(allowed_rsa_key_sizes=(4096,)),
        keys(allow_rsa_keys=False, allowed_rsa_key_sizes=None),
        keys(allowed_ecdsa_key_sizes=(256,)),
        {"backdating": timedelta(0)},
        {
            "subject_rules": replace(
                RULES, patterns=replace(RULES.patterns, country="PT", organization="Acme")
            )
        },
        {"alternative_names": replace(NAMES, names=(), allowed=())},
        {"alternative_names": replace(NAMES, allowed=(AllowedNames(NameType.DNS, ("a",)),))},
        {
            "name_constraints": replace(
                BOUNDS, excluded=(*BOUNDS.excluded, NamedValue(NameType.IP, "10.0.0.0/8"))
            )
        },
        {"certificate_policies": ()},
    ],
)
def test_less_or_other_is_not(change: dict[str, Any]) -> None:
    assert weakened(BEFORE, replace(BEFORE, **change)) == ()


def test_what_was_open_cannot_be_opened_further() -> None:
    before = replace(BEFORE, crypto_enforcement=CryptoEnforcement(), path_length=None, ca_id=None)

    assert weakened(before, replace(before, crypto_enforcement=KEYS, path_length=3)) == ()
