"""A CA whose key is offline: its CRL comes by hand, its OCSP from a delegate."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from lamassu.kernel.errors import LamassuError
from lamassu.kernel.identity import Caller, Principal, PrincipalKind
from lamassu.kernel.x509 import signing
from lamassu.kernel.x509.crls import CrlEntry, build_crl, signed
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.serials import serial_hex
from lamassu.services.ca.contract import RevocationReason
from lamassu.services.ceremony.contract import order_document, parse_bundle
from lamassu.services.ceremony.contract.signed_text import canonical
from lamassu.services.kms.contract import KeyAlgorithm, KeySpec
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.va.usecases import upkeep
from lamassu.services.va.usecases.import_crl import CrlImport
from tests.services.ceremony.room import Room, ca_wish, request, responder_wish
from tests.support.judges import (
    lint_ocsp,
    openssl_crl,
    openssl_ocsp_request,
    openssl_ocsp_verify,
)
from tests.support.pki import NOW, Made, make

from .conftest import Clients, World

ALICE = Caller(Principal(PrincipalKind.ADMIN, "alice"), "request-1")
P256 = KeySpec(KeyAlgorithm.ECDSA, 256)
DAY = timedelta(days=1)
AT = int(NOW.timestamp()) + 60


def crl_of(
    root: Made, number: int, *revoked: int, start: timedelta = -DAY, end: timedelta = 300 * DAY
) -> bytes:
    """What an offline CA signs with other tools."""
    algorithm = signing.signature_algorithm(certificate_facts(root.der).key)
    tbs = build_crl(
        issuer_der=certificate_facts(root.der).subject_der,
        issuer_key_id=bytes.fromhex(root.subject_key_id),
        algorithm=algorithm,
        number=number,
        this_update=NOW + start,
        next_update=NOW + end,
        entries=[CrlEntry(serial, NOW - DAY, 2) for serial in sorted(revoked)],
    )
    return signed(tbs, algorithm=algorithm, signature=signing.sign(root.key, tbs))


@pytest.fixture
def far(world: World) -> Made:
    """An offline root `far`, and a CA that it signed and that the platform knows."""
    made = make("Far", ca=True, not_before=NOW - 30 * DAY, not_after=NOW + 3650 * DAY)
    world.add_ca("far", made)
    world.authorities.cas["far"] = replace(world.authorities.cas["far"], key_id="")
    return made


async def take_in(world: World, content: bytes) -> CrlImport:
    return await world.service.import_crl(content, caller=ALICE)


async def refusal(world: World, content: bytes) -> str:
    with pytest.raises(LamassuError) as refused:
        await take_in(world, content)
    return refused.value.code


async def served(world: World, ski: str) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl((await world.service.crl(ski)).der)


def number_of(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


async def test_an_imported_crl_is_served_under_both_addresses(
    world: World, far: Made, clients: Clients
) -> None:
    der = crl_of(far, 7, 4711)
    imported = await take_in(world, der)

    assert (imported.is_new, imported.entries) == (True, 1)
    by_key = await clients.public.get(f"/crl/{far.subject_key_id}")
    by_id = await clients.public.get("/ca/far.crl")
    assert by_key.content == by_id.content == der
    right, text = openssl_crl(der, issuer=far.der)
    assert right, text


async def test_pem_and_a_repetition_are_fine(world: World, far: Made) -> None:
    der = crl_of(far, 1)
    pem = x509.load_der_x509_crl(der).public_bytes(Encoding.PEM)
    assert (await take_in(world, pem)).is_new
    assert not (await take_in(world, der)).is_new


async def test_a_number_that_is_not_higher_is_refused(world: World, far: Made) -> None:
    await take_in(world, crl_of(far, 5))
    assert await refusal(world, crl_of(far, 4)) == "crl_not_newer"
    assert await refusal(world, crl_of(far, 5, 99)) == "crl_not_newer"
    assert number_of(await served(world, far.subject_key_id)) == 5
    await take_in(world, crl_of(far, 6, 99))
    assert number_of(await served(world, far.subject_key_id)) == 6


async def test_a_crl_that_is_not_the_cas_is_refused(world: World, far: Made) -> None:
    namesake = make("Far", ca=True, not_before=NOW - 30 * DAY, not_after=NOW + 3650 * DAY)
    stranger = make("Stranger", ca=True)
    assert await refusal(world, crl_of(namesake, 1)) == "crl_signature_invalid"
    assert await refusal(world, crl_of(stranger, 1)) == "crl_of_unknown_ca"
    assert await refusal(world, crl_of(world.root, 1)) == "ca_key_online"
    broken = bytearray(crl_of(far, 1))
    broken[-1] ^= 1
    assert await refusal(world, bytes(broken)) == "crl_signature_invalid"
    assert await refusal(world, b"nonsense") == "crl_malformed"
    with pytest.raises(LamassuError):
        await world.service.crl(far.subject_key_id)


async def test_a_crl_outside_its_time_is_refused(world: World, far: Made) -> None:
    assert await refusal(world, crl_of(far, 1, start=-9 * DAY, end=-DAY)) == "crl_ended"
    assert await refusal(world, crl_of(far, 1, start=DAY)) == "crl_from_the_future"


async def test_no_crl_is_made_here_for_it(world: World, far: Made) -> None:
    await take_in(world, crl_of(far, 1, end=10 * DAY))
    world.clock.forward(days=9)
    await world.service.refresh_due(world.clock.now())
    assert number_of(await served(world, far.subject_key_id)) == 1
    world.clock.forward(days=2)
    with pytest.raises(LamassuError) as ended:
        await world.service.crl(far.subject_key_id)
    assert ended.value.code == "crl_ended"
    assert "ceremony" in ended.value.text


async def test_the_end_of_its_crl_is_spoken_of_in_time(
    world: World, far: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(upkeep._log, "warning", lambda text, *more: said.append(text % more))
    await take_in(world, crl_of(far, 1, end=40 * DAY))
    await world.service.refresh_due(world.clock.now())
    assert not said
    world.clock.forward(days=11)
    for _ in range(3):
        await world.service.refresh_due(world.clock.now())
    [reminder] = said
    assert "the CRL of the offline CA far ends on" in reminder
    assert "hold a ceremony" in reminder


async def test_a_revocation_is_pending_until_the_ceremonys_crl(world: World, far: Made) -> None:
    await take_in(world, crl_of(far, 1))
    below = world.issue("Below", ca_id="far")
    wait = timedelta(seconds=1)
    assert await world.service.revocation_changed("far", wait=wait)
    world.revoke(below, RevocationReason.CA_COMPROMISE, ca_id="far")

    assert not await world.service.revocation_changed("far", wait=wait)
    order = await world.service.revocation_order("far")
    serial = below.certificate.serial_number
    assert order.pending == [serial_hex(serial)]
    assert [entry.serial_number for entry in order.order.entries] == [serial]

    await take_in(world, crl_of(far, 2, serial))
    assert await world.service.revocation_changed("far", wait=wait)
    assert (await world.service.revocation_order("far")).pending == []


# --- OCSP -----------------------------------------------------------------------------------


class Far:
    """An offline root made by a ceremony, its responder's key on the platform."""

    def __init__(self, world: World, room: Room) -> None:
        self.world, self.room = world, room

    async def hold(self, **answers: object) -> None:
        """A session, in a thread of its own: it runs a loop."""
        more = answers if "root" in answers else {"root": None, **answers}
        await asyncio.to_thread(self.room.hold, self.room.answers(**more))

    @property
    def latest(self) -> bytes:
        newest = max(
            self.room.directory.glob("session-*.bundle"),
            key=lambda path: int(path.stem.partition("-")[2]),
        )
        return newest.read_bytes()

    @property
    def root(self) -> bytes:
        return parse_bundle(self.latest).root

    @property
    def below(self) -> bytes:
        return parse_bundle(self.latest).certificates[0]

    def ask(self, *, nonce: bool = False) -> bytes:
        return openssl_ocsp_request(issuer=self.root, certificates=[self.below], nonce=nonce)

    async def answer(self) -> bytes:
        return (await self.world.service.answer_status(self.ask())).der

    def verify(self, response: bytes) -> str:
        right, text = openssl_ocsp_verify(
            response, issuer=self.root, certificate_der=self.below, anchors=[self.root],
            at=int(self.world.clock.now().timestamp()) + 60,
        )  # fmt: skip
        assert right, text
        return text


@pytest.fixture
def keystore(tmp_path: Path) -> SoftwareEngine:
    return SoftwareEngine.open("token", tmp_path / "keys", b"a passphrase that is long enough")


@pytest.fixture
def room(tmp_path: Path, keystore: SoftwareEngine, world: World) -> Iterator[Room]:
    return Room(tmp_path / "ceremony", keystore, world.clock)  # type: ignore[arg-type,return-value]


async def stands(world: World, room: Room, **responder: object) -> Far:
    """The ceremony's first session, its root and CA on the platform, nothing imported yet."""
    far = Far(world, room)
    asked = await world.service.request_responder("far", P256, engine_id=None, caller=ALICE)
    from tests.services.ceremony.room import ROOT

    await far.hold(
        root=ROOT,
        requests=(
            ca_wish(request("Below", path_length=1)),
            responder_wish(asked.csr, **responder),
        ),
    )
    root = Made(far.root, world.root.key)
    world.add_ca("far", root)
    facts = certificate_facts(far.root)
    made = world.authorities.cas["far"]
    world.authorities.cas["far"] = replace(
        made, key_id="", certificate=replace(made.certificate, subject_key_id=facts.ski)
    )
    below = certificate_facts(far.below)
    world.authorities.issued["far"][below.serial_number] = below.not_after
    return far


async def test_a_delegate_answers_and_openssl_believes_it(world: World, room: Room) -> None:
    far = await stands(world, room)
    assert await status_of(world, far) == "unauthorized"
    imported = await take_in(world, far.latest)
    assert len(imported.responders) == 1

    response = await far.answer()

    assert "leaf.pem: good" in far.verify(response)
    assert not lint_ocsp(response)
    assert ocsp.load_der_ocsp_response(response).certificates
    # the same answer serves the next asker; one with a nonce is made anew
    assert await far.answer() == response
    fresh = (await world.service.answer_status(far.ask(nonce=True))).der
    assert fresh != response


async def status_of(world: World, far: Far) -> str:
    der = await far.answer()
    return ocsp.load_der_ocsp_response(der).response_status.name.casefold()


async def test_what_is_revoked_here_is_revoked_at_once_and_by_the_crl_too(
    world: World, room: Room
) -> None:
    far = await stands(world, room)
    await take_in(world, far.latest)
    assert "good" in far.verify(await far.answer())
    below = Made(far.below, world.root.key)
    world.revoke(below, RevocationReason.CA_COMPROMISE, ca_id="far")
    assert "leaf.pem: revoked" in far.verify(await far.answer())

    order = (await world.service.revocation_order("far")).order
    world.clock.forward(days=1)
    await far.hold(revocations=canonical(order_document(order)).encode())
    await take_in(world, far.latest)

    # whatever became of the row, the root's own word counts
    world.release(below, ca_id="far")
    text = far.verify(await far.answer())
    assert "leaf.pem: revoked" in text
    assert "cACompromise" in text


async def test_without_a_crl_in_force_nothing_is_good(world: World, room: Room) -> None:
    far = await stands(world, room)
    await take_in(world, far.latest)
    world.clock.forward(days=364)
    world.clock.forward(hours=23, minutes=40)
    nearly = ocsp.load_der_ocsp_response(await far.answer())
    assert nearly.next_update_utc is not None
    assert nearly.next_update_utc - world.clock.now() <= timedelta(minutes=20)
    world.clock.forward(hours=1)
    assert await unavailable_or_unauthorized(world, far)


async def unavailable_or_unauthorized(world: World, far: Far) -> bool:
    """The responder ends with its CRL here; either way nobody is told anything is good."""
    try:
        return await status_of(world, far) == "unauthorized"
    except LamassuError as refused:
        return refused.code == "crl_ended"


async def test_a_responder_that_the_root_revoked_answers_no_more(world: World, room: Room) -> None:
    far = await stands(world, room)
    await take_in(world, far.latest)
    [responder] = parse_bundle(far.latest).responders
    serial = int(certificate_facts(responder).serial_number, 16)
    from lamassu.services.ceremony.contract import RevocationOrder

    order = RevocationOrder(
        "far", certificate_facts(far.root).ski, (CrlEntry(serial, room.clock.now(), 1),)
    )
    await far.hold(revocations=canonical(order_document(order)).encode())
    await take_in(world, far.latest)
    assert await status_of(world, far) == "unauthorized"


async def test_a_tampered_bundle_changes_nothing(world: World, room: Room) -> None:
    far = await stands(world, room)
    forged = far.latest.replace(b"Charles", b"Eve")
    assert await refusal(world, forged) == "bundle_tampered"
    with pytest.raises(LamassuError):
        await world.service.crl(certificate_facts(far.root).ski)
    assert [one.certificate for one in await world.service.responders()] == [None]


async def test_a_responders_key_is_of_an_offline_ca_only(world: World) -> None:
    with pytest.raises(LamassuError) as refused:
        await world.service.request_responder("root", P256, engine_id=None, caller=ALICE)
    assert refused.value.code == "ca_key_online"


async def test_strangers_import_nothing(clients: Clients) -> None:
    for method, path in (
        ("POST", "/api/va/v1/crls/import"),
        ("POST", "/api/va/v1/responders"),
        ("GET", "/api/va/v1/responders"),
        ("GET", "/api/va/v1/cas/root/revocations"),
    ):
        answer = await clients.stranger.request(method, path, json={})
        assert answer.status_code == 401, path
