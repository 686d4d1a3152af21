"""What a ceremony hands over: one file, signed by the root's key (ADR 6).

    lamassu-ceremony-bundle-1
    {"ceremony":…,"certificates":[…],"crl":…,"made_at":…,"responders":[…],"root":…,…}
    ECDSA_SHA_384 MGUCMQ…

The signature is over the first two lines, ends of line included. Every bundle holds all that
is current, so that the newest is enough; the transcript up to its making is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_time
from lamassu.kernel.x509.crls import parse_crl, verify_crl
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.services.ceremony.contract.signed_text import (
    LARGEST,
    algorithm_of,
    canonical,
    decoded,
    digest_of,
    encoded,
    is_signed_by,
    read_canonical,
)
from lamassu.services.ceremony.contract.transcript import (
    Signed,
    Transcript,
    parse_transcript,
    was_issued_by,
)

_HEADER = "lamassu-ceremony-bundle-1"
_WHAT = "bundle"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle's content (DER each); `crl` is the newest, `None` if there was none yet."""

    ceremony: str
    session: int
    made_at: datetime
    root: bytes
    certificates: Sequence[bytes]
    responders: Sequence[bytes]
    crl: bytes | None
    transcript: str

    @property
    def is_rehearsal(self) -> bool:
        """Whether its root is nobody's to rely on."""
        return parse_transcript(self.transcript).is_rehearsal

    @property
    def root_fingerprint(self) -> str:
        """Hex SHA-256 of the root's certificate: what people compare."""
        return digest_of(self.root)


def is_bundle(data: bytes) -> bool:
    """Whether a file says of itself that it is one."""
    return data.startswith(_HEADER.encode("ascii") + b"\n")


def bundle_message(bundle: Bundle) -> bytes:
    """What the root's key signs."""
    document: dict[str, Json] = {
        "ceremony": bundle.ceremony,
        "session": bundle.session,
        "made_at": format_time(bundle.made_at),
        "root": encoded(bundle.root),
        "certificates": [encoded(certificate) for certificate in bundle.certificates],
        "responders": [encoded(certificate) for certificate in bundle.responders],
        "crl": None if bundle.crl is None else encoded(bundle.crl),
        "transcript": bundle.transcript,
    }
    return f"{_HEADER}\n{canonical(document)}\n".encode("ascii")


def bundle_file(bundle: Bundle, signature: bytes) -> bytes:
    """The file."""
    last = f"{algorithm_of(bundle.root)} {encoded(signature)}\n"
    return bundle_message(bundle) + last.encode("ascii")


def parse_bundle(data: bytes) -> Bundle:
    """Read and verify a bundle: its signature, and that all in it is the root's own and stands
    in its transcript. Whether the root is the right one is for the caller to compare.

    Raises `Malformed` (`bundle_malformed`), `RuleViolation` (`bundle_tampered`,
    `transcript_broken`, `crl_signature_invalid`).
    """
    header, line, algorithm, signature = _parts(data)
    bundle = _read(line)
    if algorithm != algorithm_of(bundle.root) or not is_signed_by(
        bundle.root, f"{header}\n{line}\n".encode("ascii"), signature
    ):
        _tampered("its signature is not the root's over its content")
    _check_content(bundle)
    return bundle


def check_covers(transcript: Transcript, bundle: Bundle) -> None:
    """Refuse a transcript that ends before a bundle was made, or is another ceremony's.

    A cut at an earlier seal shows in no other way. Raises `RuleViolation`
    (`transcript_incomplete`).
    """
    heads = [line.digest for line in transcript.lines]
    if parse_transcript(bundle.transcript).head not in heads:
        raise RuleViolation(
            "the transcript does not lead up to this bundle: its end was cut off, or it is"
            " another ceremony's",
            code="transcript_incomplete",
            field="transcript",
        )


def _parts(data: bytes) -> tuple[str, str, str, bytes]:
    if len(data) > LARGEST:
        raise Malformed("the bundle is longer than 8 MiB", code="bundle_malformed", field=_WHAT)
    try:
        header, line, last, end = data.decode("ascii").split("\n")
        algorithm, _, signature = last.partition(" ")
        if header != _HEADER or end:
            raise ValueError
    except ValueError:
        raise Malformed(
            "this is no ceremony bundle: it has three lines, of which the first says so",
            code="bundle_malformed",
            field=_WHAT,
        ) from None
    return header, line, algorithm, decoded(signature, what=_WHAT)


def _read(line: str) -> Bundle:
    document = read_canonical(line, what=_WHAT)
    try:
        made_at = datetime.fromisoformat(_text(document["made_at"]))
        session = document["session"]
        if not isinstance(session, int) or made_at.tzinfo is None or len(document) != 8:
            raise ValueError
        crl = document["crl"]
        bundle = Bundle(
            ceremony=_text(document["ceremony"]),
            session=session,
            made_at=made_at,
            root=decoded(document["root"], what=_WHAT),
            certificates=_list(document["certificates"]),
            responders=_list(document["responders"]),
            crl=None if crl is None else decoded(crl, what=_WHAT),
            transcript=_text(document["transcript"]),
        )
    except (KeyError, ValueError):
        raise Malformed(
            "the bundle lacks something that every bundle has",
            code="bundle_malformed",
            field=_WHAT,
        ) from None
    certificate_facts(bundle.root)
    return bundle


def _text(value: Json) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _list(value: Json) -> Sequence[bytes]:
    if not isinstance(value, list):
        raise ValueError
    return tuple(decoded(item, what=_WHAT) for item in value)


def _check_content(bundle: Bundle) -> None:
    transcript = parse_transcript(bundle.transcript)
    _check_transcript(bundle, transcript)
    root = certificate_facts(bundle.root)
    for certificate in (bundle.root, *bundle.certificates):
        if not was_issued_by(certificate, bundle.root) or not certificate_facts(certificate).is_ca:
            _tampered("a CA certificate in it is not the root's")
    for certificate in bundle.responders:
        facts = certificate_facts(certificate)
        for_ocsp = facts.extended_key_usages == ("OCSPSigning",) and not facts.is_ca
        if not was_issued_by(certificate, bundle.root) or not for_ocsp:
            _tampered("a responder's certificate in it is not the root's")
    if bundle.crl is not None:
        verify_crl(parse_crl(bundle.crl), issuer_der=root.subject_der, spki=root.spki)


def _check_transcript(bundle: Bundle, transcript: Transcript) -> None:
    if transcript.ceremony != bundle.ceremony or transcript.root != bundle.root:
        _tampered("the transcript in it is another ceremony's")
    written = {
        "certificates": (bundle.certificates, transcript.certificates(Signed.CA)),
        "responders": (bundle.responders, transcript.certificates(Signed.RESPONDER)),
    }
    for name, (here, there) in written.items():
        if not set(here) <= set(there):
            _tampered(f"its {name} are not those of the transcript")
    if bundle.crl != transcript.latest_crl():
        _tampered("its CRL is not the transcript's last one")


def _tampered(fault: str) -> NoReturn:
    raise RuleViolation(
        f"the bundle was changed or is a forgery: {fault}", code="bundle_tampered", field=_WHAT
    )
