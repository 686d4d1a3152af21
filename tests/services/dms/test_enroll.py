"""The first certificate: which device gets one, and what a retry gets."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from lamassu.kernel.errors import Conflict, RuleViolation
from lamassu.services.ca.contract import CertificateStatus, RevocationReason
from lamassu.services.devices.contract import DeviceStatus
from lamassu.services.dms.contract import CsrPayload
from lamassu.services.dms.model.settings import RegistrationMode
from tests.services.dms.refusals import refusal, refused
from tests.services.dms.world import ADMIN, Identity, World, csr
from tests.support.pki import ec_key, spki_of, with_another_signature

PRE = RegistrationMode.PRE_REGISTRATION


async def test_a_device_is_made_just_in_time_together_with_its_identity(world: World) -> None:
    await world.dms()
    peer = world.bootstrap()

    enrolled = await world.enroll(peer)

    device = await world.device()
    assert device.slot is not None
    assert (device.dms_id, device.status) == ("fleet", DeviceStatus.ACTIVE)
    assert device.slot.current.certificate_sha256 == enrolled.sha256
    stored = await world.authorities.find_certificate(enrolled.serial_number)
    assert stored is not None
    assert stored.der == enrolled.der
    [request] = world.authorities.requests
    assert (request.owner, request.device_id, request.ca_id) == ("fleet", "dev-1", "fleet-ca")
    assert request.caller.principal.id == "device/factory"
    assert request.verified_csr is not None


async def test_a_device_nobody_announced_gets_nothing_without_jitp(world: World) -> None:
    await world.dms(mode=PRE)

    error = await refused(world.enroll(world.bootstrap()))

    assert (error.code, error.text) == ("device_not_preregistered", "device not preregistered")
    assert world.authorities.requests == []


async def test_a_preregistered_device_enrolls_without_replaceable_enrolment(world: World) -> None:
    await world.dms(mode=PRE)
    await world.registered("dev-1")

    enrolled = await world.enroll(world.bootstrap())

    assert await world.current() == enrolled.sha256


async def test_a_device_of_another_dms_stays_there(world: World) -> None:
    await world.dms("fleet")
    await world.dms("rival", replaceable=True)
    await world.registered("dev-1", "fleet")
    await world.enroll(world.bootstrap(), "dev-2", dms="fleet")

    for device_id in ("dev-1", "dev-2"):
        error = await refused(world.enroll(world.bootstrap(), device_id, dms="rival"))
        assert (error.code, error.text) == (
            "device_of_other_dms",
            "device already registered to another DMS",
        )


async def test_a_device_in_use_is_not_enrolled_again(world: World) -> None:
    await world.dms()
    first = await world.enroll(world.bootstrap())

    error = await refused(world.enroll(world.bootstrap("another")))

    assert (type(error), error.code, error.text) == (
        Conflict,
        "device_in_use",
        "forbiddenNewEnrollment",
    )
    assert await world.current() == first.sha256
    assert len(world.authorities.issued_to("dev-1")) == 1


async def test_a_replaceable_enrolment_revokes_the_old_certificate_after_the_bind(
    world: World,
) -> None:
    await world.dms(replaceable=True)
    first = await world.enroll(world.bootstrap())

    second = await world.enroll(world.bootstrap("another"))

    assert await world.current() == second.sha256
    assert world.authorities.status_of(first.der) == (
        CertificateStatus.REVOKED,
        RevocationReason.SUPERSEDED,
    )
    assert world.authorities.status_of(second.der)[0] is CertificateStatus.ACTIVE


async def test_a_failed_replacement_leaves_the_old_certificate_alone(world: World) -> None:
    await world.dms(replaceable=True)
    first = await world.enroll(world.bootstrap())
    world.authorities.unavailable = True

    assert (await refusal(world.enroll(world.bootstrap("another"))))[0] == "Unavailable"

    assert await world.current() == first.sha256
    assert world.authorities.status_of(first.der)[0] is CertificateStatus.ACTIVE


@pytest.mark.parametrize("replaceable", [False, True])
async def test_a_revoked_device_gets_nothing_in_any_mode(world: World, replaceable: bool) -> None:
    await world.dms(replaceable=replaceable)
    first = await world.enroll(world.bootstrap())
    world.revoke(first)

    # before the device manager heard of it, and after
    assert await refusal(world.enroll(world.bootstrap("b"))) == ("Forbidden", "device_revoked")
    await world.devices.follow_certificate(first.serial_number)
    assert await refusal(world.enroll(world.bootstrap("c"))) == ("Forbidden", "device_revoked")
    assert len(world.authorities.issued_to("dev-1")) == 1


async def test_a_retired_or_deleted_device_is_not_made_again(world: World) -> None:
    await world.dms(replaceable=True)
    await world.enroll(world.bootstrap())
    await world.devices.decommission("dev-1", caller=ADMIN)

    assert await refusal(world.enroll(world.bootstrap("b"))) == (
        "Forbidden",
        "device_decommissioned",
    )
    await world.devices.delete("dev-1", caller=ADMIN)
    assert await refusal(world.enroll(world.bootstrap("c"))) == ("Forbidden", "device_deleted")
    assert len(world.authorities.issued_to("dev-1")) == 1


@pytest.mark.parametrize("lookalike", ["DEV-1", "dev‑1", "Dev-1"])
async def test_an_id_that_people_would_confuse_with_another_is_a_conflict(
    world: World, lookalike: str
) -> None:
    await world.dms()
    await world.enroll(world.bootstrap(), "dev-1")
    lookalike = lookalike.replace("‑", "-\u200b")  # an invisible character

    attempt = world.enroll(world.bootstrap("b"), lookalike)

    assert await refusal(attempt) == ("Conflict", "device_id_lookalike")


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ([], "common_name_missing"),
        (["dev-1", "dev-2"], "second_common_name"),
        (["a/b"], "device_id_invalid"),
        ([" dev-1"], "device_id_invalid"),
        ([".."], "device_id_invalid"),
    ],
)
async def test_a_csr_names_exactly_one_device(world: World, names: list[str], code: str) -> None:
    await world.dms()
    key = ec_key()

    attempt = world.enroll(world.bootstrap(), key=key, payload=CsrPayload(csr(key, names)))

    assert (await refusal(attempt))[1] == code
    assert world.authorities.requests == []


async def test_bad_csrs_are_told_apart_and_leave_nothing(world: World) -> None:
    await world.dms()
    peer, key = world.bootstrap(), ec_key()
    sound = csr(key, "dev-1")
    tampered = bytearray(sound)
    tampered[-1] ^= 1

    cases: list[tuple[CsrPayload, str]] = [
        (CsrPayload(b""), "csr_malformed"),
        (CsrPayload(sound[:100]), "csr_malformed"),
        (CsrPayload(b"\x30\x84\x7f\xff\xff\xff" + bytes(100)), "csr_malformed"),
        (CsrPayload(bytes(tampered)), "csr_signature_invalid"),
        (CsrPayload(fault_text="x", fault_code="base64_malformed"), "base64_malformed"),
    ]
    for payload, code in cases:
        assert (await refusal(world.enroll(peer, payload=payload)))[1] == code
    assert world.authorities.requests == []
    assert await world.devices.find("dev-1") is None


# --- a certificate that is or was a device's own (rule 16) ----------------------------------


async def test_a_devices_certificate_enrolls_no_other_device(world: World) -> None:
    await world.dms(validation_cas=["bootstrap-ca", "fleet-ca"])
    first = await world.enroll(world.bootstrap(), "dev-1")

    attempt = world.enroll(first, "dev-2")

    assert await refusal(attempt) == ("Forbidden", "certificate_of_other_device")
    assert await world.devices.find("dev-2") is None


async def test_a_devices_former_certificate_enrolls_no_other_device_either(world: World) -> None:
    await world.dms(validation_cas=["bootstrap-ca", "fleet-ca"], replaceable=True)
    first = await world.enroll(world.bootstrap(), "dev-1")
    await world.reenroll(first)

    attempt = world.enroll(first, "dev-2")

    assert await refusal(attempt) == ("Forbidden", "certificate_of_other_device")


async def test_another_encoding_of_a_devices_certificate_enrolls_nobody(world: World) -> None:
    """Attack on rule 16: no slot knows the digest of a certificate whose ECDSA signature its
    holder has turned into the other valid one."""
    await world.dms(validation_cas=["bootstrap-ca", "fleet-ca"])
    first = await world.enroll(world.bootstrap(), "dev-1")
    twin = Identity(with_another_signature(first.der), first.key)
    twin.certificate.verify_directly_issued_by(world.made["fleet-ca"].certificate)

    for attempt in (world.enroll(twin, "dev-2"), world.enroll(twin, "dev-1"), world.reenroll(twin)):
        assert await refusal(attempt) == ("Unauthenticated", "certificate_unknown")
    assert await world.devices.find("dev-2") is None
    assert len(world.authorities.requests) == 1


# --- a lost answer (decision 24) ------------------------------------------------------------


async def test_a_retry_with_the_same_key_gets_the_stored_certificate(world: World) -> None:
    await world.dms()
    peer, key = world.bootstrap(), ec_key()
    first = await world.enroll(peer, key=key)

    again = await world.enroll(peer, key=key)

    assert again.der == first.der
    assert len(world.authorities.issued_to("dev-1")) == 1


async def test_a_retry_is_over_once_the_certificate_was_used(world: World) -> None:
    await world.dms(reenrollment={"reenrollment_delta": timedelta(days=1)})
    peer, key = world.bootstrap(), ec_key()
    first = await world.enroll(peer, key=key)
    assert (await refusal(world.reenroll(first)))[1] == "too_early_to_reenroll"  # shown: used

    assert await refusal(world.enroll(peer, key=key)) == ("Conflict", "device_in_use")


async def test_a_shared_bootstrap_certificate_does_not_replace_by_a_new_key(world: World) -> None:
    await world.dms()
    peer = world.bootstrap()
    first = await world.enroll(peer)

    assert await refusal(world.enroll(peer)) == ("Conflict", "device_in_use")
    assert await world.current() == first.sha256


async def test_another_bootstrap_certificate_does_not_fetch_the_answer(world: World) -> None:
    await world.dms()
    key = ec_key()
    await world.enroll(world.bootstrap(), key=key)

    attempt = world.enroll(world.bootstrap("thief"), key=key)

    assert await refusal(attempt) == ("Conflict", "device_in_use")


async def test_a_crash_between_ca_and_slot_is_mended_by_the_retry(world: World) -> None:
    await world.dms()
    peer, key = world.bootstrap(), ec_key()

    async def die(binding: Any) -> None:
        raise RuntimeError("killed")

    world.devices.before_bind = die
    with pytest.raises(RuntimeError):
        await world.enroll(peer, key=key)
    assert await world.devices.find("dev-1") is None  # nothing half made

    enrolled = await world.enroll(peer, key=key)

    assert await world.current() == enrolled.sha256
    assert len(world.authorities.issued_to("dev-1")) == 1


async def test_what_the_reaper_revoked_does_not_block_the_next_try(world: World) -> None:
    await world.dms()
    peer, key = world.bootstrap(), ec_key()

    async def die(binding: Any) -> None:
        raise RuntimeError("killed")

    world.devices.before_bind = die
    with pytest.raises(RuntimeError):
        await world.enroll(peer, key=key)
    world.clock.advance(timedelta(minutes=11))
    assert await world.service.reap() == 1

    enrolled = await world.enroll(peer, key=key)

    assert await world.current() == enrolled.sha256
    assert world.authorities.status_of(enrolled.der)[0] is CertificateStatus.ACTIVE
    assert (await world.enroll(peer, key=key)).der == enrolled.der


async def test_the_reaper_and_a_late_retry_do_not_bind_a_revoked_certificate(
    world: World,
) -> None:
    await world.dms()
    peer, key = world.bootstrap(), ec_key()

    async def reaped_meanwhile(binding: Any) -> None:
        world.clock.advance(timedelta(minutes=11))
        await world.service.reap()

    world.devices.before_bind = reaped_meanwhile
    enrolled = await world.enroll(peer, key=key)

    assert await world.current() == enrolled.sha256
    assert world.authorities.status_of(enrolled.der)[0] is CertificateStatus.ACTIVE
    assert len(world.authorities.issued_to("dev-1")) == 2


async def test_two_at_once_with_one_key_get_one_certificate(world: World) -> None:
    await world.dms()
    peer, key = world.bootstrap(), ec_key()

    one, other = await asyncio.gather(world.enroll(peer, key=key), world.enroll(peer, key=key))

    assert one.der == other.der
    assert len(world.authorities.issued_to("dev-1")) == 1


async def test_of_two_keys_at_once_one_wins_and_the_other_is_revoked(world: World) -> None:
    await world.dms()

    async def overtaken(binding: Any) -> None:
        await world.enroll(world.bootstrap("b"))

    world.devices.before_bind = overtaken
    attempt = world.enroll(world.bootstrap("a"))

    assert (await refusal(attempt))[0] == "Conflict"
    current = await world.current()
    for certificate in world.authorities.issued_to("dev-1"):
        bound = Identity(certificate.der, ec_key()).sha256 == current
        wanted = CertificateStatus.ACTIVE if bound else CertificateStatus.REVOKED
        assert certificate.stored_status is wanted


# --- single use (decision 27) ---------------------------------------------------------------


async def test_a_single_use_certificate_enrolls_one_device(world: World) -> None:
    await world.dms(single_use=True)
    await world.dms("second", single_use=True)
    peer = world.bootstrap()
    await world.enroll(peer, "dev-1")

    assert await refusal(world.enroll(peer, "dev-2")) == ("Forbidden", "bootstrap_spent")
    assert await refusal(world.enroll(peer, "dev-3", dms="second")) == (
        "Forbidden",
        "bootstrap_spent",
    )
    assert await world.devices.find("dev-2") is None
    assert world.authorities.issued_to("dev-2") == []


async def test_a_single_use_certificate_with_a_new_key_replaces_what_was_never_used(
    world: World,
) -> None:
    await world.dms(single_use=True)
    peer, key = world.bootstrap(), ec_key()
    lost = await world.enroll(peer)

    second = await world.enroll(peer, key=key)

    assert await world.current() == second.sha256
    assert world.authorities.status_of(lost.der)[1] is RevocationReason.SUPERSEDED
    assert (await world.enroll(peer, key=key)).der == second.der


async def test_a_single_use_certificate_is_spent_when_its_answer_was_used(world: World) -> None:
    await world.dms(
        single_use=True, replaceable=True, reenrollment={"reenrollment_delta": timedelta(days=1)}
    )
    peer = world.bootstrap()
    first = await world.enroll(peer)
    assert (await refusal(world.reenroll(first)))[1] == "too_early_to_reenroll"

    assert await refusal(world.enroll(peer)) == ("Forbidden", "bootstrap_spent")
    assert await world.current() == first.sha256


async def test_a_refused_csr_does_not_spend_the_certificate(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.dms(single_use=True)
    peer = world.bootstrap()
    issue = world.authorities.issue

    async def refuse(request: Any) -> Any:
        raise RuleViolation("key not allowed", code="key_not_allowed")

    monkeypatch.setattr(world.authorities, "issue", refuse)
    assert (await refusal(world.enroll(peer, "typo")))[1] == "key_not_allowed"
    monkeypatch.setattr(world.authorities, "issue", issue)

    assert await world.enroll(peer, "dev-1")


async def test_a_refused_request_takes_no_use_back_from_under_another(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder sends a CSR that will be refused beside a good one, so that the refusal frees
    the certificate that the good one has just spent."""
    await world.dms(single_use=True)
    peer, bad_key = world.bootstrap(), ec_key()
    bad_is_claimed, good_is_claimed = asyncio.Event(), asyncio.Event()
    issue = world.authorities.issue

    async def refuse_the_bad_one(request: Any) -> Any:
        if spki_of(bad_key) in request.csr_der:
            bad_is_claimed.set()
            await good_is_claimed.wait()
            raise RuleViolation("key not allowed", code="key_not_allowed")
        good_is_claimed.set()
        return await issue(request)

    monkeypatch.setattr(world.authorities, "issue", refuse_the_bad_one)
    bad = asyncio.create_task(refusal(world.enroll(peer, "dev-1", key=bad_key)))
    await bad_is_claimed.wait()
    assert await world.enroll(peer, "dev-1")
    assert (await bad)[1] == "key_not_allowed"

    assert await refusal(world.enroll(peer, "dev-2")) == ("Forbidden", "bootstrap_spent")


async def test_two_devices_at_once_share_no_single_use_certificate(world: World) -> None:
    await world.dms(single_use=True)
    peer = world.bootstrap()

    outcomes = await asyncio.gather(
        world.enroll(peer, "dev-1"), world.enroll(peer, "dev-2"), return_exceptions=True
    )

    assert sum(isinstance(outcome, Identity) for outcome in outcomes) == 1
