"""Whoever carries the files can read them; what they change shows."""

from __future__ import annotations

import base64
import json
import random
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lamassu.kernel.errors import LamassuError
from lamassu.kernel.x509 import signing
from lamassu.services.ceremony.contract import (
    bundle_file,
    bundle_message,
    check_covers,
    parse_bundle,
    parse_transcript,
)
from lamassu.services.ceremony.contract.signed_text import canonical
from tests.support.pki import make

from .room import Room, ca_wish, request, responder_wish


@pytest.fixture
def held(room: Room) -> Room:
    """After two sessions."""
    room.hold(
        room.answers(requests=(ca_wish(request("One")), responder_wish(request("Responder"))))
    )
    room.hold(room.later(requests=(ca_wish(request("Two")),)))
    return room


def refusal(parse: Any, content: Any) -> str:
    with pytest.raises(LamassuError) as refused:
        parse(content)
    return refused.value.code


def test_every_octet_of_a_bundle_counts(held: Room) -> None:
    bundle = held.bundle(2)
    parse_bundle(bundle)
    chosen = random.Random(4)
    places = {*range(0, 40), *range(len(bundle) - 120, len(bundle))}
    places |= {chosen.randrange(len(bundle)) for _ in range(150)}
    for place in places:
        changed = bytearray(bundle)
        changed[place] ^= 1 << chosen.randrange(7)
        assert refusal(parse_bundle, bytes(changed)), place
    for length in (0, 1, len(bundle) // 2, len(bundle) - 1):
        assert refusal(parse_bundle, bundle[:length])
    assert refusal(parse_bundle, bundle + b"\n")
    assert refusal(parse_bundle, bundle + bundle)


def test_a_second_spelling_of_a_bundle_is_refused(held: Room) -> None:
    header, line, last = held.bundle(2).decode().splitlines()
    spelt = json.dumps(json.loads(line))
    assert spelt != line
    assert refusal(parse_bundle, f"{header}\n{spelt}\n{last}\n".encode()) == "bundle_malformed"


@pytest.mark.parametrize(
    "change",
    [
        lambda whole, other: replace(whole, certificates=[*whole.certificates[:1], other]),
        lambda whole, other: replace(whole, root=other),
        lambda whole, other: replace(whole, responders=[other]),
        lambda whole, other: replace(whole, crl=None),
        lambda whole, other: replace(whole, transcript=whole.transcript.replace("Ada", "Eve")),
        lambda whole, other: replace(whole, ceremony="another"),
    ],
)
def test_the_roots_own_signature_over_a_false_bundle_is_refused(held: Room, change: Any) -> None:
    """As if the token had been used behind everybody's back: content is judged all the same."""
    bundle = parse_bundle(held.bundle(2))
    whole = replace(bundle, certificates=list(bundle.certificates))
    false = change(whole, make("Evil", ca=True).der)
    from lamassu.services.kms.contract import KeyPurpose

    key = held.engine.private_key(held.keys[0], purpose=KeyPurpose.CA)
    signature = signing.sign(key, bundle_message(false))  # type: ignore[arg-type]
    assert refusal(parse_bundle, bundle_file(false, signature)) in (
        "bundle_tampered",
        "transcript_broken",
    )


def test_a_whole_ceremony_of_somebody_else_has_another_root(held: Room, tmp_path: Path) -> None:
    other = Room(tmp_path / "elsewhere", held.engine, held.clock)
    other.hold()
    false, right = parse_bundle(other.bundle()), parse_bundle(held.bundle())
    assert false.root_fingerprint != right.root_fingerprint


def test_every_line_of_a_transcript_counts(held: Room) -> None:
    lines = held.transcript.splitlines(keepends=True)
    for place in range(len(lines)):
        removed = lines[:place] + lines[place + 1 :]
        if place < len(lines) - 1:
            assert refusal(parse_transcript, "".join(removed)) == "transcript_broken"
            swapped = [*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]]
            assert refusal(parse_transcript, "".join(swapped)) == "transcript_broken"
        else:
            assert not parse_transcript("".join(removed)).is_closed
        doubled = [*lines[: place + 1], lines[place], *lines[place + 1 :]]
        assert refusal(parse_transcript, "".join(doubled)) == "transcript_broken"


def test_a_transcript_written_anew_lacks_the_roots_seal(held: Room) -> None:
    """Somebody changes a name and mends every hash after it."""
    import hashlib

    previous, forged = "0" * 64, []
    for text in held.transcript.replace("Charles", "Eve").splitlines():
        line = canonical({**json.loads(text), "previous": previous})
        previous = hashlib.sha256(line.encode()).hexdigest()
        forged.append(f"{line}\n")
    with pytest.raises(LamassuError, match="seal that the root's key did not make"):
        parse_transcript("".join(forged))


def test_a_transcript_that_lost_its_last_session_is_not_the_bundles(held: Room) -> None:
    lines = held.transcript.splitlines(keepends=True)
    first = parse_transcript("".join(lines)).lines
    cut = "".join(lines[: next(n for n, line in enumerate(first) if line.session == 2)])
    assert parse_transcript(cut).is_closed  # by itself it cannot be told
    bundle = parse_bundle(held.bundle(2))
    check_covers(parse_transcript(held.transcript), bundle)
    assert refusal(lambda text: check_covers(parse_transcript(text), bundle), cut) == (
        "transcript_incomplete"
    )


def test_no_text_that_a_root_signs_could_be_a_certificate(held: Room) -> None:
    from lamassu.kernel.x509.der import is_one_sequence_or_set
    from lamassu.services.ceremony.contract.transcript import seal_message

    bundle = parse_bundle(held.bundle(2))
    messages = [bundle_message(bundle), seal_message(bundle.ceremony, 9, "0" * 64)]
    for message in messages:
        assert message.startswith(b"lamassu-ceremony-")
        assert not is_one_sequence_or_set(message)


def test_openssl_alone_verifies_a_bundle(held: Room, tmp_path: Path) -> None:
    content = held.bundle(2)
    *message, last = content.splitlines(keepends=True)
    public = parse_public(parse_bundle(content).root)
    (tmp_path / "root.pub").write_bytes(public)
    (tmp_path / "message").write_bytes(b"".join(message))
    (tmp_path / "signature").write_bytes(base64.b64decode(last.split(b" ")[1]))
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", "root.pub", "-signature", "signature", "message"],
        cwd=tmp_path, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def parse_public(root: bytes) -> bytes:
    from cryptography import x509

    key = x509.load_der_x509_certificate(root).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
