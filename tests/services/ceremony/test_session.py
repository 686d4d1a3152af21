"""A session: what the root signs, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lamassu.kernel.errors import LamassuError
from lamassu.kernel.x509.crls import CrlEntry
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.keys import key_id
from lamassu.services.ceremony.contract import (
    Person,
    RevocationOrder,
    order_document,
    parse_bundle,
)
from lamassu.services.ceremony.contract.signed_text import canonical
from tests.support.judges import lint_certificate, lint_crl, openssl_crl, openssl_verify
from tests.support.pki import spki_of

from .room import HOURS, NOW, Room, ca_wish, request, responder_wish

AT = int(NOW.timestamp()) + 60


def refused(room: Room, answers: object) -> str:
    before = room.transcript if (room.directory / "transcript.jsonl").exists() else ""
    with pytest.raises(LamassuError) as refusal:
        room.hold(answers)  # type: ignore[arg-type]
    assert room.transcript == before
    return refusal.value.code


def order(room: Room, serial: int, reason: int = 5, *, ski: str | None = None) -> bytes:
    root = certificate_facts(parse_bundle(room.bundle()).root)
    entry = CrlEntry(serial, NOW, reason)
    return canonical(order_document(RevocationOrder("root-ca", ski or root.ski, (entry,)))).encode()


def test_a_first_session_makes_what_openssl_and_a_linter_take(room: Room) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    answers = room.answers(
        requests=(
            ca_wish(request("Acme Intermediate", key=key, path_length=1)),
            responder_wish(request("Acme Root OCSP")),
        )
    )

    room.hold(answers)

    bundle = parse_bundle(room.bundle())
    [intermediate], [responder] = bundle.certificates, bundle.responders
    assert bundle.crl is not None
    assert len(room.keys) == 1
    for der in (bundle.root, intermediate, responder):
        # the key is named by SHA-256 as all of ours are; self-signed roots have no CRL
        assert not lint_certificate(der)
    assert not lint_crl(bundle.crl)
    right, text = openssl_verify(intermediate, anchors=[bundle.root], crls=[bundle.crl], at=AT)
    assert right, text
    right, text = openssl_crl(bundle.crl, issuer=bundle.root)
    assert right, text
    root, below = certificate_facts(bundle.root), certificate_facts(intermediate)
    assert (root.path_length, below.path_length) == (2, 1)
    assert root.not_after == NOW + 87600 * HOURS
    assert below.not_after == NOW + 43800 * HOURS
    assert (below.spki, below.aki) == (spki_of(key), root.ski)  # type: ignore[arg-type]
    parsed = x509.load_der_x509_certificate(intermediate)
    [point] = parsed.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert point.full_name is not None
    assert point.full_name[0].value == "http://pki.example:8080/ca/root-ca.crl"


def test_a_responder_that_cannot_be_revoked_lives_two_weeks(room: Room) -> None:
    short, long = request("Short", addresses=False), request("Long")
    answers = room.answers(
        requests=(responder_wish(short, validity=14 * 24 * HOURS), responder_wish(long))
    )

    room.hold(answers)

    for der in parse_bundle(room.bundle()).responders:
        certificate = x509.load_der_x509_certificate(der)
        found = {extension.oid for extension in certificate.extensions}
        unrevocable = x509.OCSPNoCheck.oid in found
        assert unrevocable == (x509.CRLDistributionPoints.oid not in found)
        assert unrevocable == (certificate_facts(der).subject.common_name == "Short")
        assert certificate_facts(der).extended_key_usages == ("OCSPSigning",)


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        (lambda: ca_wish(request("C", path_length=2)), "request_refused"),
        (lambda: ca_wish(request("C"), path_length=5), "request_refused"),
        (lambda: ca_wish(request("C"), validity=90000 * HOURS), "request_refused"),
        (lambda: ca_wish(request("Acme Root CA")), None),
        (lambda: ca_wish(request("C"), fingerprint="ab" * 32), "request_refused"),
        (lambda: ca_wish(request("C")[:-60]), "pem_malformed"),
        (lambda: ca_wish(request("C", url="ftp://x")), "request_refused"),
        (
            lambda: ca_wish(request("C", key=rsa.generate_private_key(65537, 2048))),
            "request_refused",
        ),
        (lambda: responder_wish(request("R"), validity=400 * 24 * HOURS), "request_refused"),
        (lambda: responder_wish(request("R", addresses=False)), "request_refused"),
    ],
)
def test_a_request_that_breaks_a_rule_signs_nothing(room: Room, wish: object, code: str) -> None:
    made = wish()  # type: ignore[operator]
    if code is None:  # the root of these tests has an organization: its name is another
        room.hold(room.answers(requests=(made,)))
        return
    assert refused(room, room.answers(requests=(made,))) == code
    assert not room.keys


def test_a_request_whose_signature_is_wrong_is_refused(room: Room) -> None:
    from lamassu.kernel.x509.pem import ders_of

    der = bytearray(ders_of(request("C"), "CERTIFICATE REQUEST")[0])
    der[-1] ^= 1
    assert refused(room, room.answers(requests=(ca_wish(bytes(der)),))) == "csr_signature_invalid"


def test_a_request_that_cannot_be_read_is_named(room: Room) -> None:
    wish = replace(ca_wish(b"cas: []"), source="script.yml")
    with pytest.raises(LamassuError) as refusal:
        room.hold(room.answers(requests=(wish,)))
    assert "the request script.yml is refused: CSR cannot be read" in refusal.value.text


def test_the_key_that_was_read_out_is_signed(room: Room) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    spoken = ":".join(f"{octet:02X}" for octet in bytes.fromhex(key_id(spki_of(key))))
    room.hold(room.answers(requests=(ca_wish(request("C", key=key), fingerprint=spoken),)))
    assert len(parse_bundle(room.bundle()).certificates) == 1


def test_the_people_confirm_the_date_and_a_custodian_is_there(room: Room) -> None:
    assert refused(room, room.answers(date=date(2026, 4, 30))) == "date_differs"
    witness = (Person("witness", "Charles"),)
    assert refused(room, room.answers(people=witness)) == "custodian_missing"


def test_a_clock_that_was_set_back_is_refused(room: Room) -> None:
    room.hold()
    room.clock.time -= timedelta(days=3)
    assert refused(room, room.later()) == "clock_wrong"


def test_a_later_session_continues_the_transcript_and_the_numbers(room: Room) -> None:
    room.hold(room.answers(requests=(ca_wish(request("First", path_length=1)),)))
    first = parse_bundle(room.bundle())
    serial = int(certificate_facts(first.certificates[0]).serial_number, 16)
    room.clock.time += timedelta(days=90)

    room.hold(
        room.later(
            requests=(ca_wish(request("Second")),),
            revocations=order(room, serial),
            crl_validity=timedelta(days=200),
        )
    )

    second = parse_bundle(room.bundle(2))
    assert second.ceremony == first.ceremony
    assert second.root == first.root
    assert second.transcript.startswith(first.transcript)
    assert len(second.certificates) == 2
    assert second.crl is not None
    crl = x509.load_der_x509_crl(second.crl)
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 2
    assert crl.get_revoked_certificate_by_serial_number(serial) is not None
    assert crl.next_update_utc == room.clock.time + timedelta(days=200)
    revoked, text = openssl_verify(
        first.certificates[0], anchors=[second.root], crls=[second.crl],
        at=int(room.clock.time.timestamp()) + 60,
    )  # fmt: skip
    assert not revoked
    assert "certificate revoked" in text
    assert len(room.keys) == 1


def test_what_was_revoked_stays_listed_and_a_hold_ends(room: Room) -> None:
    requests = tuple(ca_wish(request(name)) for name in ("One", "Two"))
    room.hold(room.answers(requests=requests))
    one, two = (
        int(certificate_facts(der).serial_number, 16)
        for der in parse_bundle(room.bundle()).certificates
    )
    room.hold(room.later(revocations=order(room, one)))
    room.hold(room.later(revocations=order(room, two, reason=6)))
    room.hold(room.later())
    listed = [
        {entry.serial_number for entry in x509.load_der_x509_crl(crl)}
        for crl in (parse_bundle(room.bundle(number)).crl for number in (2, 3, 4))
        if crl is not None
    ]
    assert listed == [{one}, {one, two}, {one}]


def test_revocations_of_others_are_refused(room: Room) -> None:
    room.hold(room.answers(requests=(ca_wish(request("One")),)))
    serial = int(certificate_facts(parse_bundle(room.bundle()).certificates[0]).serial_number, 16)
    strangers = room.later(revocations=order(room, 4711))
    assert refused(room, strangers) == "revocation_unknown"
    another = room.later(revocations=order(room, serial, ski="ab" * 32))
    assert refused(room, another) == "revocations_of_another_ca"
    assert refused(room, room.later(revocations=b"{}")) == "revocations_malformed"


def test_a_second_root_is_refused_and_none_is_needed_twice(room: Room) -> None:
    assert refused(room, room.later()) == "root_missing"
    room.hold()
    assert refused(room, room.answers()) == "root_exists"


def test_another_token_is_noticed_before_it_signs(room: Room) -> None:
    room.hold()
    for held in room.keys:
        room.engine.delete(held)
    assert refused(room, room.later()) == "another_token"


def test_a_directory_has_one_ceremony_at_a_time(room: Room) -> None:
    _, ledger = room.opened()
    try:
        with pytest.raises(LamassuError) as busy:
            room.opened()
    finally:
        ledger.close()
    assert busy.value.code == "ceremony_busy"


def test_two_requests_with_one_key_are_refused(room: Room) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    wish = ca_wish(request("One", key=key))
    twice = room.answers(requests=(wish, replace(wish, csr=request("Two", key=key))))
    assert refused(room, twice) == "request_twice"


def test_a_clock_that_steps_back_within_a_session_does_not_stop_it(room: Room) -> None:
    class Stepping:
        """Sets the clock back a second with each line."""

        def __init__(self, ledger: object) -> None:
            self.inner = ledger

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

        def append(self, line: str) -> None:
            room.clock.time -= timedelta(seconds=1)
            self.inner.append(line)  # type: ignore[attr-defined]

    assert room.hold(wrap=Stepping).transcript.is_closed
