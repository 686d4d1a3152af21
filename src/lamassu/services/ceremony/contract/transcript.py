"""The transcript of a ceremony: one line per deed, each with the hash of the line before it.

A line is a JSON object in its one spelling. `seal` lines carry the root key's signature over
the chain up to there; what follows the last seal is not vouched for by anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NoReturn

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from lamassu.kernel.errors import LamassuError, Malformed, RuleViolation
from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import format_time
from lamassu.services.ceremony.contract.signed_text import (
    LARGEST,
    algorithm_of,
    canonical,
    decoded,
    digest_of,
    is_signed_by,
    load,
    read_canonical,
)

NOTHING_BEFORE = "0" * 64
_SEAL = "lamassu-ceremony-transcript-1"
_WHAT = "transcript"


class Deed(StrEnum):
    """What a line tells of."""

    CEREMONY_BEGUN = "ceremony-begun"
    SESSION_OPENED = "session-opened"
    PLAN_AGREED = "plan-agreed"
    KEY_INTENDED = "root-key-intended"
    KEY_MADE = "root-key-made"
    CERTIFICATE_DRAFTED = "certificate-drafted"
    CERTIFICATE_SIGNED = "certificate-signed"
    CRL_NUMBERED = "crl-numbered"
    CRL_SIGNED = "crl-signed"
    BUNDLE_WRITTEN = "bundle-written"
    SEALED = "sealed"
    SESSION_RESUMED = "session-resumed"


class Signed(StrEnum):
    """What sort of certificate the root signed."""

    ROOT = "root"
    CA = "ca"
    RESPONDER = "responder"


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it stands; `at` is the host's clock, `facts` what its deed adds."""

    number: int
    session: int
    deed: Deed
    at: datetime
    facts: Mapping[str, Json]
    digest: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """Lines whose chain holds. `ceremony` names it, `root` is its certificate once signed.

    `sealed` counts the lines up to and with the last seal.
    """

    lines: Sequence[Line]
    ceremony: str
    root: bytes | None
    sealed: int

    @property
    def head(self) -> str:
        """The hash of the last line."""
        return self.lines[-1].digest if self.lines else NOTHING_BEFORE

    @property
    def is_rehearsal(self) -> bool:
        """Whether it was a rehearsal: its root is nobody's to rely on."""
        return bool(self.lines) and self.lines[0].facts.get("rehearsal") is True

    @property
    def is_closed(self) -> bool:
        """Whether the last line is a seal."""
        return bool(self.lines) and self.sealed == len(self.lines)

    def certificates(self, kind: Signed) -> Sequence[bytes]:
        """What the root signed of this sort, in order."""
        return [
            decoded(line.facts["certificate"], what=_WHAT)
            for line in self.lines
            if line.deed is Deed.CERTIFICATE_SIGNED and line.facts["kind"] == kind.value
        ]

    def latest_crl(self) -> bytes | None:
        """The newest CRL."""
        for line in reversed(self.lines):
            if line.deed is Deed.CRL_SIGNED:
                return decoded(line.facts["crl"], what=_WHAT)
        return None


def next_line(
    transcript: Transcript, deed: Deed, facts: Mapping[str, Json], *, session: int, at: datetime
) -> str:
    """The line to append (without its end) to this transcript."""
    return canonical(
        {
            **facts,
            "n": len(transcript.lines) + 1,
            "previous": transcript.head,
            "at": format_time(at),
            "session": session,
            "deed": deed.value,
        }
    )


def seal_message(ceremony: str, lines: int, head: str) -> bytes:
    """What a seal's signature is over: the ceremony, the number of lines, and their hash."""
    return f"{_SEAL}\n{ceremony}\n{lines} {head}\n".encode("ascii")


def parse_transcript(text: str) -> Transcript:
    """Read and verify a transcript: every line, the chain, every seal, every certificate.

    Raises `Malformed` (`transcript_malformed`) and `RuleViolation` (`transcript_broken`), whose
    text names the line.
    """
    if len(text) > LARGEST or (text and not text.endswith("\n")):
        raise Malformed(
            "the transcript is too long or ends within a line", code="transcript_malformed"
        )
    return verified(text.splitlines())


def verified(lines: Iterable[str]) -> Transcript:
    """See `parse_transcript`."""
    transcript = Transcript((), "", None, 0)
    for text in lines:
        transcript = extended(transcript, text)
    return transcript


def extended(transcript: Transcript, text: str) -> Transcript:
    """The transcript with one more line, if that line may follow.

    Raises as `parse_transcript`.
    """
    number = len(transcript.lines) + 1
    document = read_canonical(text, what=_WHAT)
    line = _line(document, number, digest_of(text.encode("ascii")))
    if document["previous"] != transcript.head:
        _broken(number, "does not follow the line before it: one was changed, removed or moved")
    if transcript.lines and line.at < transcript.lines[-1].at:
        _broken(number, "is older than the line before it")
    if (line.deed is Deed.CEREMONY_BEGUN) != (number == 1):
        _broken(number, "a transcript begins with its ceremony, once")
    root, sealed = transcript.root, transcript.sealed
    ceremony = transcript.ceremony or str(line.facts["ceremony"])
    if line.deed is Deed.CERTIFICATE_SIGNED:
        root = _root_after(line, root)
    elif line.deed is Deed.SEALED:
        _check_seal(line, transcript)
        sealed = number
    return Transcript((*transcript.lines, line), ceremony, root, sealed)


_COMMON = ("n", "previous", "at", "session", "deed")
_NEEDED: Mapping[Deed, Sequence[str]] = {
    Deed.CEREMONY_BEGUN: ("ceremony",),
    Deed.CERTIFICATE_SIGNED: ("kind", "certificate", "sha256"),
    Deed.CRL_SIGNED: ("crl", "sha256"),
    Deed.SEALED: ("algorithm", "signature"),
}


def _line(document: Mapping[str, Json], number: int, digest: str) -> Line:
    try:
        deed = Deed(str(document["deed"]))
        at = datetime.fromisoformat(str(document["at"]))
        session = document["session"]
        if document["n"] != number or not isinstance(session, int) or at.tzinfo is None:
            raise ValueError
        missing = [name for name in ("previous", *_NEEDED.get(deed, ())) if name not in document]
        if missing:
            raise ValueError
    except (KeyError, ValueError):
        _broken(number, "is no line of a ceremony, or stands in another one's place")
    facts = {name: value for name, value in document.items() if name not in _COMMON}
    return Line(number, session, deed, at, facts, digest)


def _root_after(line: Line, root: bytes | None) -> bytes | None:
    """The root once this line's certificate is signed; the certificate is verified."""
    certificate = decoded(line.facts["certificate"], what=_WHAT)
    if digest_of(certificate) != line.facts["sha256"]:
        _broken(line.number, "names another certificate's hash")
    is_root = line.facts["kind"] == Signed.ROOT.value
    issuer = certificate if is_root else root
    if issuer is None or not was_issued_by(certificate, issuer):
        _broken(line.number, "holds a certificate that the root did not sign")
    if is_root and root is not None:
        _broken(line.number, "holds a second root")
    return issuer


def was_issued_by(certificate: bytes, issuer: bytes) -> bool:
    """By name and signature."""
    try:
        load(certificate, what=_WHAT).verify_directly_issued_by(load(issuer, what=_WHAT))
    except (LamassuError, ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _check_seal(line: Line, before: Transcript) -> None:
    if before.root is None:
        _broken(line.number, "is a seal without a root")
    message = seal_message(before.ceremony, len(before.lines), before.head)
    signature = decoded(line.facts["signature"], what=_WHAT)
    if line.facts["algorithm"] != algorithm_of(before.root) or not is_signed_by(
        before.root, message, signature
    ):
        _broken(line.number, "is a seal that the root's key did not make")


def _broken(number: int, fault: str) -> NoReturn:
    raise RuleViolation(
        f"the transcript is broken: line {number} {fault}",
        code="transcript_broken",
        field="transcript",
    )
