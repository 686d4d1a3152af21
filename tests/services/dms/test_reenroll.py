"""The next certificate: for the device that shows its current one, and for nobody else."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from lamassu.services.ca.contract import CertificateStatus, RevocationReason
from lamassu.services.dms.contract import CsrPayload
from lamassu.services.dms.model.settings import AuthMode, EstAuthentication
from tests.services.dms.refusals import refusal, refused
from tests.services.dms.world import ADMIN, Identity, World, csr
from tests.support.pki import ec_key


async def enrolled(world: World, device_id: str = "dev-1", **given: Any) -> Identity:
    await world.dms(**given)
    return await world.enroll(world.bootstrap(), device_id)


async def test_a_device_renews_with_its_current_certificate(world: World) -> None:
    current = await enrolled(world)

    renewed = await world.reenroll(current)

    assert renewed.der != current.der
    assert await world.current() == renewed.sha256
    assert world.authorities.status_of(current.der)[0] is CertificateStatus.ACTIVE
    assert world.authorities.requests[-1].replaces == ("fleet-ca", current.serial_number)
    assert world.authorities.requests[-1].caller.principal.id == "device/dev-1"


async def test_a_device_may_renew_with_a_new_key(world: World) -> None:
    current = await enrolled(world)

    renewed = await world.reenroll(current, key=ec_key())

    assert await world.current() == renewed.sha256


async def test_the_new_certificate_carries_the_current_subject_as_it_stands(world: World) -> None:
    current = await enrolled(world)
    shouted = csr(current.key, "DEV-1", organization="YOURORG ")

    renewed = await world.reenroll(current, payload=CsrPayload(shouted))

    assert renewed.certificate.subject == current.certificate.subject
    assert await world.current() == renewed.sha256


async def test_the_old_certificate_is_revoked_where_the_dms_says_so(world: World) -> None:
    current = await enrolled(world, reenrollment={"revoke_on_reenrollment": True})

    await world.reenroll(current)

    assert world.authorities.status_of(current.der) == (
        CertificateStatus.REVOKED,
        RevocationReason.SUPERSEDED,
    )


# --- who may not ----------------------------------------------------------------------------


async def test_no_certificate_and_a_bootstrap_certificate_are_unauthenticated(
    world: World,
) -> None:
    await enrolled(world)

    assert await refusal(world.reenroll(None)) == ("Unauthenticated", "certificate_missing")
    assert await refusal(world.reenroll(world.bootstrap())) == (
        "Unauthenticated",
        "certificate_unknown",
    )


async def test_a_certificate_of_the_ca_that_is_in_no_slot_is_forbidden(world: World) -> None:
    await enrolled(world)
    stray = world.bootstrap("dev-1", ca="fleet-ca")  # issued over the API, say

    assert await refusal(world.reenroll(stray)) == ("Forbidden", "certificate_not_bound")


async def test_the_device_is_found_by_what_it_shows_never_by_what_it_asks(world: World) -> None:
    attacker = await enrolled(world, "attacker")
    victim = await world.enroll(world.bootstrap("b"), "victim")

    assert await refusal(world.reenroll(attacker, "victim")) == ("Forbidden", "subject_mismatch")
    assert await world.current("victim") == victim.sha256
    assert await world.current("attacker") == attacker.sha256


async def test_a_second_common_name_is_forbidden(world: World) -> None:
    attacker = await enrolled(world, "attacker")
    both = csr(attacker.key, ["attacker", "victim"])

    attempt = world.reenroll(attacker, payload=CsrPayload(both))

    assert await refusal(attempt) == ("Forbidden", "second_common_name")


async def test_another_dms_does_not_renew_the_device(world: World) -> None:
    current = await enrolled(world)
    await world.dms("rival")

    assert await refusal(world.reenroll(current, dms="rival")) == (
        "Forbidden",
        "device_of_other_dms",
    )
    assert await world.current() == current.sha256


async def test_a_device_ca_that_the_dms_does_not_name_is_unknown_to_it(world: World) -> None:
    current = await enrolled(world)
    await world.dms("moved", enrollment_ca="other-ca")
    additional = {"additional_validation_cas": ("fleet-ca",)}
    await world.dms("moving", enrollment_ca="other-ca", reenrollment=additional)

    assert (await refusal(world.reenroll(current, dms="moved")))[1] == "certificate_unknown"
    # known there, and still a device of another DMS
    assert (await refusal(world.reenroll(current, dms="moving")))[1] == "device_of_other_dms"


@pytest.mark.parametrize("reason", [RevocationReason.KEY_COMPROMISE, RevocationReason.SUPERSEDED])
async def test_a_revoked_certificate_is_forbidden_with_its_reason(
    world: World, reason: RevocationReason
) -> None:
    current = await enrolled(world)
    world.revoke(current, reason)

    error = await refused(world.reenroll(current))

    assert (type(error).__name__, error.code) == ("Forbidden", "certificate_revoked")
    assert reason.value in error.text
    assert world.authorities.issued_to("dev-1") == [
        await world.authorities.find_certificate(current.serial_number)
    ]


async def test_a_revoked_issuer_refuses_its_devices(world: World) -> None:
    current = await enrolled(world)
    world.authorities.revoke_ca("root-ca")

    assert await refusal(world.reenroll(current)) == ("Forbidden", "certificate_revoked")


async def test_a_retired_device_gets_nothing(world: World) -> None:
    current = await enrolled(world)
    world.authorities.unavailable = False
    await world.devices.decommission("dev-1", caller=ADMIN)

    assert (await refusal(world.reenroll(current)))[0] == "Forbidden"
    assert len(world.authorities.issued_to("dev-1")) == 1


@pytest.mark.parametrize(
    "mode",
    [AuthMode.EXTERNAL_WEBHOOK, AuthMode.CLIENT_CERTIFICATE_AND_EXTERNAL_WEBHOOK],
)
async def test_an_authentication_that_is_not_built_is_unavailable(
    world: World, mode: AuthMode
) -> None:
    current = await enrolled(world, reenrollment={"authentication": EstAuthentication(mode)})

    assert await refusal(world.reenroll(current)) == ("Unavailable", "not_available")


# --- when and what --------------------------------------------------------------------------


async def test_a_renewal_before_its_window_says_when_it_opens(world: World) -> None:
    current = await enrolled(world, reenrollment={"reenrollment_delta": timedelta(days=10)})

    error = await refused(world.reenroll(current))
    opens = current.certificate.not_valid_after_utc - timedelta(days=10)

    assert (type(error).__name__, error.code) == ("Forbidden", "too_early_to_reenroll")
    assert f"{opens:%Y-%m-%dT%H:%M:%SZ}" in error.text
    world.clock.time = opens
    assert await world.reenroll(current)


async def test_an_unset_window_is_thirty_days(world: World) -> None:
    current = await enrolled(world, reenrollment={"reenrollment_delta": timedelta(0)})
    world.clock.advance(timedelta(days=59))
    assert (await refusal(world.reenroll(current)))[1] == "too_early_to_reenroll"

    world.clock.advance(timedelta(days=1, minutes=1))

    assert await world.reenroll(current)


async def test_an_expired_certificate_renews_only_where_the_dms_allows_it(world: World) -> None:
    strict = await enrolled(world)
    await world.dms("lax", reenrollment={"enable_expired_renewal": True})
    lax = await world.enroll(world.bootstrap(), "dev-2", dms="lax")
    world.clock.advance(timedelta(days=91))

    assert await refusal(world.reenroll(strict)) == ("Unauthenticated", "certificate_expired")
    assert await world.reenroll(lax, "dev-2", dms="lax")


async def test_names_in_the_csr_are_the_current_ones_or_none(world: World) -> None:
    await world.dms()
    key = ec_key()
    named = csr(key, "dev-1", dns=["a.example", "b.example"])
    current = await world.enroll(world.bootstrap(), key=key, payload=CsrPayload(named))

    other = csr(key, "dev-1", dns=["a.example", "victim.example"])
    attempt = world.reenroll(current, payload=CsrPayload(other))
    assert await refusal(attempt) == ("Forbidden", "san_mismatch")

    reordered = csr(key, "dev-1", dns=["b.example", "a.example"])
    renewed = await world.reenroll(current, payload=CsrPayload(reordered))
    again = await world.reenroll(renewed)

    assert await world.current() == again.sha256


async def test_names_cannot_be_added_on_renewal(world: World) -> None:
    current = await enrolled(world)
    added = csr(current.key, "dev-1", dns=["victim.example"])

    attempt = world.reenroll(current, payload=CsrPayload(added))

    assert await refusal(attempt) == ("Forbidden", "san_mismatch")


@pytest.mark.parametrize(
    ("name", "organization"), [("dev-2", "YourOrg"), ("dev-1", "Another"), ("dev-1", "")]
)
async def test_another_subject_is_forbidden(world: World, name: str, organization: str) -> None:
    current = await enrolled(world)
    asked = csr(current.key, name, organization=organization)

    attempt = world.reenroll(current, payload=CsrPayload(asked))

    assert await refusal(attempt) == ("Forbidden", "subject_mismatch")


# --- a lost answer (decision 24) ------------------------------------------------------------


@pytest.mark.parametrize("revoking", [False, True])
async def test_a_lost_answer_is_fetched_again_with_the_superseded_certificate(
    world: World, revoking: bool
) -> None:
    current = await enrolled(world, reenrollment={"revoke_on_reenrollment": revoking})
    key = ec_key()
    renewed = await world.reenroll(current, key=key)

    again = await world.reenroll(current, key=key)

    assert again.der == renewed.der
    assert len(world.authorities.issued_to("dev-1")) == 2


async def test_a_thief_of_the_superseded_certificate_gets_no_other_key_certified(
    world: World,
) -> None:
    current = await enrolled(world)
    renewed = await world.reenroll(current)

    attempt = world.reenroll(current, key=ec_key())

    assert await refusal(attempt) == ("Forbidden", "certificate_superseded")
    assert await world.current() == renewed.sha256


async def test_the_lost_answer_is_closed_once_the_new_certificate_was_used(world: World) -> None:
    current = await enrolled(world, reenrollment={"reenrollment_delta": timedelta(days=89)})
    world.clock.advance(timedelta(days=2))
    renewed = await world.reenroll(current)
    assert (await refusal(world.reenroll(renewed)))[1] == "too_early_to_reenroll"  # shown: used

    assert await refusal(world.reenroll(current)) == ("Forbidden", "certificate_superseded")


async def test_the_lost_answer_is_closed_after_a_day(world: World) -> None:
    current = await enrolled(world)
    await world.reenroll(current)
    world.clock.advance(timedelta(hours=24, seconds=1))

    assert await refusal(world.reenroll(current)) == ("Forbidden", "certificate_superseded")


async def test_a_successor_that_was_revoked_is_not_handed_out(world: World) -> None:
    current = await enrolled(world)
    renewed = await world.reenroll(current)
    world.revoke(renewed)

    assert await refusal(world.reenroll(current)) == ("Forbidden", "device_revoked")


async def test_certificates_before_the_last_one_are_no_good(world: World) -> None:
    first = await enrolled(world)
    second = await world.reenroll(first)
    await world.reenroll(second)

    assert await refusal(world.reenroll(first)) == ("Forbidden", "certificate_superseded")


async def test_a_crash_before_the_bind_is_mended_by_the_retry(world: World) -> None:
    current = await enrolled(world)

    async def die(binding: Any) -> None:
        raise RuntimeError("killed")

    world.devices.before_bind = die
    with pytest.raises(RuntimeError):
        await world.reenroll(current)
    assert await world.current() == current.sha256

    renewed = await world.reenroll(current)

    assert await world.current() == renewed.sha256
    assert len(world.authorities.issued_to("dev-1")) == 2


async def test_two_renewals_at_once_get_one_certificate(world: World) -> None:
    current = await enrolled(world)

    one, other = await asyncio.gather(world.reenroll(current), world.reenroll(current))

    assert one.der == other.der
    assert await world.current() == one.sha256


async def test_a_device_that_changed_meanwhile_loses_the_new_certificate(world: World) -> None:
    current = await enrolled(world)

    async def retired(binding: Any) -> None:
        await world.devices.decommission("dev-1", caller=ADMIN)

    world.devices.before_bind = retired

    assert await refusal(world.reenroll(current)) == ("Conflict", "device_changed")
    assert {c.stored_status for c in world.authorities.issued_to("dev-1")} == {
        CertificateStatus.REVOKED
    }
