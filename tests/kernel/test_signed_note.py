"""Checkpoints and cosignatures, against the specification's own examples."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from lamassu.kernel.errors import LamassuError, Malformed, RuleViolation
from lamassu.kernel.merkle import Head
from lamassu.kernel.signed_note import (
    Checkpoint,
    Signature,
    checkpoint_text,
    cosigned,
    cosigned_at,
    parse_checkpoint,
    parse_verifier_key,
    signed,
    verifier_key,
    verify_note,
)

# Of the Go reference, golang.org/x/mod/sumdb/note.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInN"
    "IuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
SPECIFIED = (  # C2SP tlog-cosignature
    "example.com/behind-the-sofa\n"
    "20852163\n"
    "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    "\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZ"
    "niMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn"
    "/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
NOW = datetime(2026, 11, 24, 1, 2, 3, tzinfo=UTC)
HEAD = Head(7, bytes(range(32)))


def spki(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def note(origin: str, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> Checkpoint:
    text = checkpoint_text(origin, HEAD)
    public = verifier_key(origin, spki(key))
    mark = Signature(origin, public.key_id, signed(text, key))
    return parse_checkpoint(str(Checkpoint(origin, HEAD, text, (mark,))))


def test_a_key_and_a_signature_of_the_go_reference_are_understood() -> None:
    key = parse_verifier_key(GO_KEY)
    text, _, line = GO_NOTE.rpartition("\n\n")
    name, _, encoded = line.strip().removeprefix("— ").partition(" ")

    content = base64.b64decode(encoded)
    mark = Signature(name, content[:4], content[4:])
    verify_note(Checkpoint(name, HEAD, text + "\n", (mark,)), key)

    assert str(key) == GO_KEY
    assert str(mark) == line


def test_the_specifications_checkpoint_is_read_and_written_unchanged() -> None:
    checkpoint = parse_checkpoint(SPECIFIED)

    assert checkpoint.origin == "example.com/behind-the-sofa"
    assert checkpoint.head.size == 20852163
    assert cosigned_at(checkpoint.signatures[1]) == datetime.fromtimestamp(1679315147, UTC)
    assert str(checkpoint) == SPECIFIED


@pytest.mark.parametrize("curve", [None, ec.SECP256R1(), ec.SECP384R1()])
def test_what_a_log_signs_holds_and_nothing_else_does(curve: ec.EllipticCurve | None) -> None:
    key = ec.generate_private_key(curve) if curve else ed25519.Ed25519PrivateKey.generate()
    public = parse_verifier_key(str(verifier_key("pki.example/log", spki(key))))
    good = note("pki.example/log", key)

    verify_note(good, public)

    altered = parse_checkpoint(str(good).replace("\n7\n", "\n8\n"))
    with pytest.raises(RuleViolation, match="is wrong"):
        verify_note(altered, public)
    another = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(RuleViolation, match="bears no signature"):
        verify_note(good, verifier_key("pki.example/log", spki(another)))


def test_a_cosignature_binds_its_time_and_is_no_signature_of_a_log() -> None:
    log, witness = ed25519.Ed25519PrivateKey.generate(), ed25519.Ed25519PrivateKey.generate()
    checkpoint = note("pki.example/log", log)
    public = verifier_key("witness.example/w", spki(witness), witness=True)
    value = cosigned(checkpoint.text, NOW, witness)
    mark = Signature(public.name, public.key_id, value)
    both = parse_checkpoint(str(checkpoint) + str(mark))

    verify_note(both, public)
    assert cosigned_at(mark) == NOW

    later = Signature(public.name, public.key_id, b"\0" * 8 + value[8:])
    with pytest.raises(RuleViolation, match="is wrong"):
        verify_note(parse_checkpoint(str(checkpoint) + str(later)), public)
    with pytest.raises(RuleViolation, match="bears no signature"):
        verify_note(both, verifier_key("witness.example/w", spki(witness)))
    with pytest.raises(RuleViolation):
        verifier_key("w", spki(ec.generate_private_key(ec.SECP256R1())), witness=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n1\n",
        "a\n1\nCsUY\n\n",
        SPECIFIED.replace("20852163", "020852163"),
        SPECIFIED.replace("20852163", "-1"),
        SPECIFIED.replace("20852163", "9" * 19),
        SPECIFIED.replace("\n\n— ex", "\n— ex"),
        SPECIFIED.replace("— witness", "- witness"),
        SPECIFIED.rstrip("\n"),
        SPECIFIED.replace("example.com/behind", "example.com\x00behind"),
        SPECIFIED + "— w AAAA\n",
        "a" * 40_000,
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_checkpoint(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a+b",
        GO_KEY[:-4],
        GO_KEY.replace("c74f", "c74e"),
        "a b+c74f20a3+ARpc",
        "x+00000000+/w==",
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_verifier_key(text)


@given(st.text(max_size=300))
def test_nothing_that_is_sent_breaks_the_readers(text: str) -> None:
    for read in (parse_checkpoint, parse_verifier_key):
        for given_text in (text, SPECIFIED[: len(text)] + text, GO_KEY[: len(text)] + text):
            try:
                read(given_text)
            except LamassuError:
                continue
