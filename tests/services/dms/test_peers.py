"""Who may enroll at all: decided before anything of the request is looked at."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from lamassu.kernel.identity import Peer
from lamassu.services.dms.contract import CsrPayload
from lamassu.services.dms.model.settings import AuthMode, RevocationCheck
from lamassu.services.dms.rules import csr_payload
from tests.services.dms.refusals import refusal, refused
from tests.services.dms.world import Identity, World
from tests.support.pki import SERVER_AUTH, make

BROKEN = CsrPayload(fault_text="not base64", fault_code="base64_malformed", fault_field="csr")


async def assert_untouched(world: World) -> None:
    assert world.authorities.requests == []
    assert await world.devices.find("dev-1") is None


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The CSRs whose signature was verified."""
    seen: list[object] = []
    original = csr_payload.verify_csr_signature

    def spy(request: Any) -> None:
        seen.append(request)
        original(request)

    monkeypatch.setattr(csr_payload, "verify_csr_signature", spy)
    return seen


async def test_an_unknown_dms_is_not_found_before_anything_else(world: World) -> None:
    assert await refusal(world.enroll(None, dms="nowhere", payload=BROKEN)) == (
        "NotFound",
        "dms_not_found",
    )


async def test_no_certificate_is_unauthenticated_before_the_csr_is_read(
    world: World, verified: list[object]
) -> None:
    await world.dms()

    assert await refusal(world.enroll(None, payload=BROKEN)) == (
        "Unauthenticated",
        "certificate_missing",
    )
    assert await refusal(world.enroll(None)) == ("Unauthenticated", "certificate_missing")
    assert verified == []
    await assert_untouched(world)


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"ca": "stranger-ca", "stored": False}, "certificate_unknown"),
        ({"ca": "fleet-ca"}, "certificate_unknown"),
        ({"extended": SERVER_AUTH}, "certificate_purpose"),
        ({"past": True}, "certificate_expired"),
        ({"future": True}, "certificate_not_yet_valid"),
        ({"stored": False}, "certificate_unknown"),
    ],
)
async def test_strangers_are_unauthenticated_and_buy_no_signature_check(
    world: World, verified: list[object], given: dict[str, Any], code: str
) -> None:
    await world.dms()
    given = dict(given)
    now = world.clock.now()
    if given.pop("past", False):
        given |= {"not_before": now - timedelta(days=9), "not_after": now - timedelta(days=1)}
    if given.pop("future", False):
        given |= {"not_before": now + timedelta(days=1), "not_after": now + timedelta(days=9)}

    peer = world.bootstrap(**given)

    assert await refusal(world.enroll(peer)) == ("Unauthenticated", code)
    assert verified == []
    await assert_untouched(world)


async def test_a_ca_of_the_dms_does_not_enroll_as_itself(world: World) -> None:
    await world.dms()
    bootstrap_ca = world.made["bootstrap-ca"]

    shown = Identity(bootstrap_ca.der, bootstrap_ca.key)

    assert (await refusal(world.enroll(shown)))[0] == "Unauthenticated"


async def test_a_chain_beyond_bounds_is_refused_without_verifying_it(world: World) -> None:
    await world.dms()
    peer = world.bootstrap()

    long = Peer((peer.der,) * 11)
    huge = Peer((peer.der, b"\x30\x84" + (70_000).to_bytes(4, "big") + bytes(70_000)))

    assert await refusal(world.enroll(long)) == ("Unauthenticated", "path_invalid")
    assert await refusal(world.enroll(huge)) == ("Unauthenticated", "path_invalid")
    assert await refusal(world.enroll(Peer((b"garbage",)))) == ("Unauthenticated", "path_invalid")


async def test_intermediates_with_costly_keys_are_left_out_of_the_path(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.dms()
    big = rsa.generate_private_key(public_exponent=3, key_size=1024)  # outside the bounds
    name = x509.Name.from_rfc4514_string("CN=big")
    now = world.clock.now()
    costly = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(big.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(big, SHA256())
        .public_bytes(Encoding.DER)
    )
    used: list[object] = []
    from lamassu.services.dms.rules import peer as rules

    original = rules.verify_path

    def spy(leaf: bytes, **given: Any) -> tuple[bytes, ...]:
        used.extend(given["intermediates"])
        return original(leaf, **given)

    monkeypatch.setattr(rules, "verify_path", spy)
    peer = world.bootstrap()

    await world.enroll(Peer((peer.der, costly)))

    assert used == []


async def test_an_intermediate_of_the_client_completes_the_path(world: World) -> None:
    await world.dms(validation_cas=["bootstrap-root"])
    peer = world.bootstrap()
    above = world.made["bootstrap-ca"].der

    assert (await refusal(world.enroll(peer)))[1] == "certificate_unknown"
    enrolled = await world.enroll(Identity(peer.der, peer.key, (above,)))

    assert await world.current() == enrolled.sha256


async def test_chain_level_validation_trims_what_was_presented(world: World) -> None:
    await world.dms(validation_cas=["bootstrap-root"], authentication={"chain_level_validation": 1})
    peer = world.bootstrap()
    above = world.made["bootstrap-ca"].der

    attempt = world.enroll(Identity(peer.der, peer.key, (above,)))

    assert (await refusal(attempt))[1] == "certificate_unknown"


async def test_a_revoked_bootstrap_certificate_is_forbidden_with_its_reason(
    world: World, verified: list[object]
) -> None:
    await world.dms()
    peer = world.bootstrap()
    world.revoke(peer)

    error = await refused(world.enroll(peer, payload=BROKEN))

    assert (type(error).__name__, error.code) == ("Forbidden", "certificate_revoked")
    assert "KeyCompromise" in error.text
    assert verified == []
    await assert_untouched(world)


async def test_another_certificate_of_the_issuer_is_no_other_issuer(world: World) -> None:
    """As one across to a CA's former key: it neither hides a revocation nor frees what is
    spent."""
    issuer, above = world.made["bootstrap-ca"], world.made["bootstrap-root"]
    now = world.clock.now()
    across = make(
        "bootstrap-ca", issuer=above, ca=True, key=issuer.key,
        not_before=now - timedelta(days=1), not_after=now + timedelta(days=300),
    )  # fmt: skip
    off = {"check_revocation": RevocationCheck.OFF}
    await world.dms(validation_cas=["bootstrap-root"], single_use=True, authentication=off)
    peer = world.bootstrap()
    shown = Identity(peer.der, peer.key, (issuer.der,))
    instead = Identity(peer.der, peer.key, (across.der,))
    await world.enroll(shown, "dev-1")

    assert await refusal(world.enroll(instead, "dev-2")) == ("Forbidden", "bootstrap_spent")
    world.revoke(peer)
    assert await refusal(world.enroll(instead, "dev-2")) == ("Forbidden", "certificate_revoked")
    other = world.bootstrap("other")
    world.authorities.revoke_ca("bootstrap-ca")
    through = Identity(other.der, other.key, (across.der,))
    assert await refusal(world.enroll(through, "dev-3")) == ("Forbidden", "certificate_revoked")


async def test_a_revoked_ca_above_lets_nobody_in_from_that_moment(world: World) -> None:
    await world.dms()
    peer = world.bootstrap()
    await world.enroll(peer, "dev-0")  # its CA is remembered now
    world.authorities.revoke_ca("bootstrap-root")

    assert await refusal(world.enroll(peer)) == ("Forbidden", "certificate_revoked")


async def test_an_expired_certificate_passes_only_where_the_dms_allows_it(world: World) -> None:
    now = world.clock.now()
    expired = world.bootstrap(
        not_before=now - timedelta(hours=9), not_after=now - timedelta(hours=1)
    )
    await world.dms("strict")
    await world.dms("lax", authentication={"allow_expired": True})

    assert (await refusal(world.enroll(expired, dms="strict")))[1] == "certificate_expired"
    assert await world.enroll(expired, dms="lax")


async def test_an_expired_and_revoked_certificate_is_refused_in_any_case(world: World) -> None:
    now = world.clock.now()
    expired = world.bootstrap(
        not_before=now - timedelta(hours=9), not_after=now - timedelta(hours=1)
    )
    world.revoke(expired)
    await world.dms(authentication={"allow_expired": True})

    assert (await refusal(world.enroll(expired)))[1] == "certificate_revoked"


@pytest.mark.parametrize(
    ("check", "names_source", "outcome"),
    [
        (RevocationCheck.REQUIRED, False, "revocation_unknown"),
        (RevocationCheck.REQUIRED, True, "revocation_unknown"),
        (RevocationCheck.IF_AVAILABLE, True, "revocation_unknown"),
        (RevocationCheck.IF_AVAILABLE, False, None),
        (RevocationCheck.OFF, True, None),
    ],
)
async def test_a_status_that_nobody_can_tell_fails_closed(
    world: World, check: RevocationCheck, names_source: bool, outcome: str | None
) -> None:
    await world.dms(validation_cas=["partner-ca"], authentication={"check_revocation": check})
    point = x509.DistributionPoint(
        [x509.UniformResourceIdentifier("http://crl.example/partner.crl")], None, None, None
    )
    extra = [(x509.CRLDistributionPoints([point]), False)] if names_source else []
    peer = world.bootstrap(ca="partner-ca", stored=False, extra=extra)

    if outcome is None:
        assert await world.enroll(peer)
    else:
        assert await refusal(world.enroll(peer)) == ("Forbidden", outcome)


async def test_a_foreign_certificate_falls_with_the_ca_that_we_revoked(world: World) -> None:
    off = {"check_revocation": RevocationCheck.OFF}
    await world.dms(validation_cas=["partner-ca"], authentication=off)
    peer = world.bootstrap(ca="partner-ca", stored=False)
    await world.enroll(peer, "dev-0")
    world.authorities.revoke_ca("partner-ca")

    assert await refusal(world.enroll(peer)) == ("Forbidden", "certificate_revoked")


async def test_an_issuer_counts_by_its_certificate_not_by_its_name_or_key_id(
    world: World,
) -> None:
    await world.dms()
    namesake = make("bootstrap-ca", ca=True)  # same name, another key
    world.made["namesake"] = namesake
    peer = world.bootstrap(ca="namesake", stored=False)

    shown = Identity(peer.der, peer.key, (namesake.der,))

    assert (await refusal(world.enroll(shown)))[1] == "certificate_unknown"


@pytest.mark.parametrize(
    "mode",
    [AuthMode.EXTERNAL_WEBHOOK, AuthMode.CLIENT_CERTIFICATE_AND_EXTERNAL_WEBHOOK],
)
async def test_a_mode_that_is_not_built_is_unavailable_and_no_weaker_check(
    world: World, mode: AuthMode
) -> None:
    await world.dms(auth_mode=mode)

    assert await refusal(world.enroll(world.bootstrap())) == ("Unavailable", "not_available")
    await assert_untouched(world)


async def test_a_dms_without_an_enrollment_ca_says_so(world: World) -> None:
    await world.dms(enrollment_ca="")

    assert await refusal(world.enroll(world.bootstrap())) == ("Unavailable", "dms_incomplete")


@pytest.mark.parametrize(
    "change", [{"sign_as_ca": True}, {"extended_key_usages": ("ClientAuth", "OCSPSigning")}]
)
async def test_a_profile_that_came_to_make_authorities_is_its_operators_fault(
    world: World, change: dict[str, Any]
) -> None:
    await world.dms(issuance_profile_id="device-profile")
    profiles = world.authorities.profiles
    profiles["device-profile"] = replace(profiles["device-profile"], **change)

    assert await refusal(world.enroll(world.bootstrap())) == ("Unavailable", "dms_incomplete")
    assert await world.devices.find("dev-1") is None


async def test_a_dms_whose_ca_is_gone_is_unavailable_not_missing(world: World) -> None:
    await world.dms(enrollment_ca="other-ca")
    del world.authorities.cas["other-ca"]

    assert await refusal(world.enroll(world.bootstrap())) == ("Unavailable", "dms_incomplete")
