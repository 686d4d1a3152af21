"""Which changes of a profile let more be issued than before, and so need approvers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lamassu.kernel.x509.names import Subject
from lamassu.services.ca.contract import CryptoEnforcement, IssuanceProfile, Validity
from lamassu.services.ca.rules.approvals import weakened

DAY = timedelta(days=1)
KEYS = CryptoEnforcement(
    enabled=True,
    allow_rsa_keys=True,
    allowed_rsa_key_sizes=(3072, 4096),
    allow_ecdsa_keys=False,
    allowed_ecdsa_key_sizes=None,
)
BEFORE = IssuanceProfile(
    id="p",
    validity=Validity(duration=90 * DAY),
    key_usage=("DigitalSignature",),
    extended_key_usages=("ClientAuth",),
    honor_subject=False,
    crypto_enforcement=KEYS,
    path_length=1,
    ca_id="issuing",
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
        {"key_usage": (), "extended_key_usages": ()},
        {"path_length": 0},
        {"subject": Subject(organization="Acme")},
        {"crl_distribution_points": ("http://crl.example/1",)},
        keys(allowed_rsa_key_sizes=(4096,)),
        keys(allow_rsa_keys=False, allowed_rsa_key_sizes=None),
        keys(allowed_ecdsa_key_sizes=(256,)),
    ],
)
def test_less_or_other_is_not(change: dict[str, Any]) -> None:
    assert weakened(BEFORE, replace(BEFORE, **change)) == ()


def test_what_was_open_cannot_be_opened_further() -> None:
    before = replace(BEFORE, crypto_enforcement=CryptoEnforcement(), path_length=None, ca_id=None)

    assert weakened(before, replace(before, crypto_enforcement=KEYS, path_length=3)) == ()
