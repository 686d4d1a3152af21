"""OCSP answers, judged by openssl and pkilint."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from lamassu.kernel.errors import Malformed, TooMany, Unavailable
from lamassu.kernel.x509 import der
from lamassu.kernel.x509.ocsp import parse_ocsp_request
from lamassu.services.ca.contract import RevocationReason
from tests.services.va.conftest import World
from tests.support.judges import lint_ocsp, openssl_ocsp_request, openssl_ocsp_verify
from tests.support.pki import NOW, Made, make

AT = int(NOW.timestamp()) + 60


def asks(
    certificate: Made,
    issuer: Made,
    algorithm: hashes.HashAlgorithm | None = None,
    nonce: bytes | None = None,
) -> bytes:
    builder = ocsp.OCSPRequestBuilder().add_certificate(
        certificate.certificate, issuer.certificate, algorithm or hashes.SHA256()
    )
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), False)
    return builder.build().public_bytes(Encoding.DER)


async def answered(world: World, request: bytes) -> ocsp.OCSPResponse:
    return ocsp.load_der_ocsp_response((await world.service.answer_status(request)).der)


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha384", "sha512"])
async def test_a_good_certificate_is_good_for_openssl(world: World, digest: str) -> None:
    device = world.issue()
    request = openssl_ocsp_request(issuer=world.root.der, certificates=[device.der], digest=digest)

    response = (await world.service.answer_status(request)).der

    verified, text = openssl_ocsp_verify(
        response,
        issuer=world.root.der,
        certificate_der=device.der,
        anchors=[world.root.der],
        digest=digest,
        at=AT,
    )
    assert verified, text
    assert "leaf.pem: good" in text
    assert lint_ocsp(response) == []


async def test_a_revoked_certificate_is_revoked_with_time_and_reason(world: World) -> None:
    device = world.issue()
    world.revoke(device, RevocationReason.KEY_COMPROMISE)

    response = (await world.service.answer_status(asks(device, world.root))).der

    verified, text = openssl_ocsp_verify(
        response,
        issuer=world.root.der,
        certificate_der=device.der,
        anchors=[world.root.der],
        digest="sha256",
        at=AT,
    )
    assert verified, text
    assert "leaf.pem: revoked" in text
    assert "keyCompromise" in text
    assert lint_ocsp(response) == []
    read = ocsp.load_der_ocsp_response(response)
    assert read.revocation_time_utc == NOW
    world.revoke(device, RevocationReason.UNSPECIFIED)
    plain = await answered(world, asks(device, world.root))
    assert plain.revocation_reason is None
    assert plain.certificate_status is ocsp.OCSPCertStatus.REVOKED


async def test_an_unknown_serial_number_is_unknown(world: World) -> None:
    stranger = make("never issued here", issuer=world.root)

    answer = await world.service.answer_status(asks(stranger, world.root))

    read = ocsp.load_der_ocsp_response(answer.der)
    assert read.certificate_status is ocsp.OCSPCertStatus.UNKNOWN
    assert lint_ocsp(answer.der) == []


async def test_another_cas_certificate_is_not_ours_to_judge(world: World) -> None:
    foreign = make("Foreign", ca=True)
    namesake = make("Root", ca=True)  # our name, not our key
    device = world.issue()

    for issuer in (foreign, namesake):
        read = await answered(world, asks(device, issuer))
        assert read.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED


async def test_strangers_issuers_do_not_make_us_read_the_cas_each_time(world: World) -> None:
    foreign = make("Foreign", ca=True)
    for _ in range(20):
        await answered(world, asks(foreign, foreign))
    assert world.authorities.cas_listed <= 2


async def test_a_ca_that_appears_is_answered_for(world: World) -> None:
    await answered(world, asks(world.root, world.root))
    late = make("Late", ca=True)
    world.add_ca("late", late)
    await world.service.ensure_role("late", late.subject_key_id)
    device = world.issue("device-9", ca_id="late")

    read = await answered(world, asks(device, late))
    assert read.certificate_status is ocsp.OCSPCertStatus.GOOD


async def test_a_serial_number_counts_under_its_own_ca_only(world: World) -> None:
    other = make("Other", ca=True)
    world.add_ca("other", other)
    device = world.issue()
    twin = make(
        "twin", issuer=other, serial_number=device.certificate.serial_number
    )  # the same number under another CA

    assert (await answered(world, asks(twin, other))).certificate_status is (
        ocsp.OCSPCertStatus.UNKNOWN
    )
    assert (await answered(world, asks(device, world.root))).certificate_status is (
        ocsp.OCSPCertStatus.GOOD
    )


async def test_a_signature_is_used_again_only_for_the_same_status(world: World) -> None:
    device = world.issue()
    request = asks(device, world.root)
    first = await world.service.answer_status(request)
    world.clock.forward(minutes=10)
    assert await world.service.answer_status(request) == first
    assert world.keys.uses == 1

    world.revoke(device)
    revoked = await answered(world, request)
    assert revoked.certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert revoked.this_update_utc == NOW + timedelta(minutes=10)

    world.release(device)
    assert (await answered(world, request)).certificate_status is ocsp.OCSPCertStatus.GOOD


async def test_an_answer_lives_an_hour_and_is_signed_anew_before_it_ends(world: World) -> None:
    request = asks(world.issue(), world.root)
    first = await answered(world, request)
    assert first.this_update_utc == NOW
    assert first.next_update_utc == NOW + timedelta(hours=1)

    world.clock.forward(minutes=46)
    second = await answered(world, request)
    assert second.this_update_utc == NOW + timedelta(minutes=46)


async def test_unknown_serial_numbers_do_not_push_answers_out(world: World) -> None:
    for n in range(5):
        await answered(world, asks(make(f"stranger-{n}", issuer=world.root), world.root))
    assert world.keys.uses == 5
    assert len(world.service._answers._kept) == 0


@pytest.mark.parametrize("length", [1, 16, 32, 128])
async def test_a_nonce_comes_back(world: World, length: int) -> None:
    device = world.issue()
    nonce = bytes(range(length))
    request = asks(device, world.root, nonce=nonce)
    answer = await world.service.answer_status(request)

    read = ocsp.load_der_ocsp_response(answer.der)
    assert read.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == nonce
    assert (answer.produced_at, answer.next_update) == (None, None)  # for nobody else
    verified, text = openssl_ocsp_verify(
        answer.der,
        issuer=world.root.der,
        certificate_der=device.der,
        anchors=[world.root.der],
        digest="sha256",
        request=request,
        at=AT,
    )
    assert verified, text
    assert lint_ocsp(answer.der) == []


@pytest.mark.parametrize("length", [0, 129, 1000])
async def test_a_senseless_nonce_is_malformed(world: World, length: int) -> None:
    with pytest.raises(Malformed):
        await world.service.answer_status(asks(world.issue(), world.root, nonce=b"n" * length))


async def test_several_questions_are_answered_together(world: World) -> None:
    good, revoked = world.issue("device-1"), world.issue("device-2")
    world.revoke(revoked)
    request = openssl_ocsp_request(
        issuer=world.root.der, certificates=[good.der, revoked.der], nonce=True
    )

    response = (await world.service.answer_status(request)).der

    for certificate, status in ((good, "good"), (revoked, "revoked")):
        verified, text = openssl_ocsp_verify(
            response,
            issuer=world.root.der,
            certificate_der=certificate.der,
            anchors=[world.root.der],
            at=AT,
        )
        assert verified, text
        assert f"leaf.pem: {status}" in text
    assert lint_ocsp(response) == []


async def test_one_answer_speaks_for_one_ca(world: World) -> None:
    other = make("Other", ca=True)
    world.add_ca("other", other)
    mine, theirs = asks(world.issue(), world.root), asks(other, other)

    def entry(request: bytes) -> bytes:
        tbs = der.children(request, der.sole_element(request))[0]
        listed = der.children(request, tbs)[0]
        return request[listed.value : listed.end]

    mixed = der.encode(0x30, der.encode(0x30, der.encode(0x30, entry(mine), entry(theirs))))
    read = await answered(world, mixed)
    assert read.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED
    flood = der.encode(0x30, der.encode(0x30, der.encode(0x30, entry(mine) * 17)))
    with pytest.raises(Malformed):
        parse_ocsp_request(flood)


async def test_a_flood_of_live_answers_is_bounded(world: World) -> None:
    device = world.issue()
    gate = world.keys.gate = asyncio.Event()
    tasks = [
        asyncio.create_task(
            world.service.answer_status(asks(device, world.root, nonce=n.to_bytes(2, "big")))
        )
        for n in range(200)
    ]
    while world.keys.uses < 128 or not any(task.done() for task in tasks):
        await asyncio.sleep(0.001)
    gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    refused = [r for r in results if isinstance(r, TooMany)]
    assert len(refused) == 72
    assert world.keys.uses == 128


async def test_an_engine_that_is_away_is_no_answer(world: World) -> None:
    world.keys.failure = Unavailable("the engine is away")
    with pytest.raises(Unavailable):
        await world.service.answer_status(asks(world.issue(), world.root))


async def test_the_ca_signs_itself_and_sends_no_certificates(world: World) -> None:
    read = await answered(world, asks(world.issue(), world.root))

    assert read.certificates == []
    assert read.responder_name is None
    key_id = x509.SubjectKeyIdentifier.from_public_key(world.root.key.public_key())
    assert read.responder_key_hash == key_id.digest
