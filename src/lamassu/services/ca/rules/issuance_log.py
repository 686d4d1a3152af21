"""What the issuance log holds, and what its entries, taken in order, say of each certificate.

An entry is canonical JSON (RFC 8785) of texts and whole numbers; its bytes are the leaf of the
tree (ADR 11). It holds hashes and serial numbers: no name, no key, no certificate.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any

from lamassu.kernel.errors import Malformed
from lamassu.kernel.merkle import Head
from lamassu.kernel.records import LogEntry
from lamassu.services.ca.contract import Certificate, CertificateStatus, RevocationReason

VERSION = 1
SUBJECT = "certificate/"
THE_LOG = "log"
LARGEST_ENTRY = 4096
CLOCK_SLACK = timedelta(minutes=10)
"""So much later may an entry stand before an earlier one of the same certificate: processes on
several hosts, whose clocks differ."""
_HOLD = RevocationReason.CERTIFICATE_HOLD.value
_SERIAL = re.compile(r"[0-9a-f]{1,64}")
_HASH = re.compile(r"[0-9a-f]{64}")
_KNOWN = frozenset(
    ("at", "authority", "ca", "reason", "sha256", "status", "subject", "time", "type", "v")
)
_OF_THE_LOG = frozenset(("adopts", "adopted", "origin", "subject", "time", "type", "v"))


class EntryType(StrEnum):
    """What happened. The last two are of the log itself."""

    ISSUED = "issued"  # a certificate was signed and stored
    IMPORTED = "imported"  # one that another system signed was taken over
    ADOPTED = "adopted"  # its row was there before the log was
    STATUS = "status"  # revoked, held, released, or made a CA's present certificate
    DELETED = "deleted"  # its row was removed by an API call
    OPENED = "opened"
    ADOPTION_CLOSED = "adoption-closed"


_FIRST = (EntryType.ISSUED, EntryType.IMPORTED, EntryType.ADOPTED)
_ABOUT_THE_LOG = (EntryType.OPENED, EntryType.ADOPTION_CLOSED)


@dataclass(frozen=True, slots=True)
class Logged:
    """What the log says of a certificate: its bytes, its issuer and whether it is revoked.

    `reason` and `at` (RFC 3339) are empty unless it is. `deleted`: its row shall be gone.
    """

    ca_id: str
    sha256: str
    status: str
    reason: str = ""
    at: str = ""
    deleted: bool = False

    @property
    def told(self) -> str:
        """For people."""
        if self.deleted:
            return "deleted"
        return f"{self.status} ({self.reason}, {self.at})" if self.at else self.status


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as it was read; `serial_number`, `state` and `authority_id` (the CA whose present
    certificate it is) are empty where they do not apply."""

    type: EntryType
    time: datetime
    serial_number: str = ""
    state: Logged | None = None
    authority_id: str = ""
    adopts: bool = False


@dataclass(frozen=True, slots=True)
class LogHead:
    """The log as the database has it.

    `position`: how far the journal was read. `note`: the newest checkpoint, of `signed_size`;
    `witnessed`: the newest that all witnesses signed, with their signatures. Rows from before the
    log are still to be adopted while `adopt_after` is no `None`: those after that serial number,
    made before `adopt_before`.
    """

    size: int
    root: bytes
    position: int
    origin: str = ""
    key_id: str = ""
    signed_size: int = 0
    note: str = ""
    witnessed: str = ""
    adopt_after: str | None = None
    adopt_before: datetime | None = None
    adopted: int = 0
    witness_name: str = ""
    witness_key_id: str = ""

    @property
    def head(self) -> Head:
        return Head(self.size, self.root)

    @property
    def unsigned(self) -> bool:
        """Whether the newest tree has no checkpoint yet."""
        return not self.note or self.signed_size < self.size


@dataclass(frozen=True, slots=True)
class Sequenced:
    """An entry that has its place in the journal. `genuine`: a process of this installation
    wrote it, as its seal shows."""

    position: int
    subject: str
    body: bytes
    genuine: bool = True


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A witness's signature line on the checkpoint of `size`."""

    witness: str
    size: int
    line: str
    signed_at: datetime


def _time_text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def state_of(certificate: Certificate) -> Logged:
    """What the log is to say of a row."""
    revoked = certificate.stored_status is CertificateStatus.REVOKED
    at = certificate.revocation_time
    return Logged(
        ca_id=certificate.issuer_ca_id,
        sha256=sha256(certificate.der).hexdigest(),
        status=certificate.stored_status.value,
        reason=certificate.revocation_reason.value if revoked else "",
        at=_time_text(at) if revoked and at is not None else "",
    )


def entry_of(type_: EntryType, certificate: Certificate, *, authority_id: str = "") -> LogEntry:
    """What a transaction leaves for the log."""
    state = state_of(certificate)
    content: dict[str, str | int] = {
        "ca": state.ca_id,
        "sha256": state.sha256,
        "status": state.status,
        "v": VERSION,
    }
    if state.at:
        content |= {"reason": state.reason, "at": state.at}
    if authority_id:
        content["authority"] = authority_id
    return LogEntry(type_.value, f"{SUBJECT}{certificate.serial_number}", content)


def deletion(serial_number: str, ca_id: str) -> LogEntry:
    """A row is gone because somebody who may asked for it."""
    content: dict[str, str | int] = {"ca": ca_id, "v": VERSION}
    return LogEntry(EntryType.DELETED.value, f"{SUBJECT}{serial_number}", content)


def opening(origin: str, *, adopts: bool) -> LogEntry:
    """The log's first own entry: whether it is to take over rows from before it."""
    content: dict[str, str | int] = {
        "origin": origin,
        "adopts": "yes" if adopts else "no",
        "v": VERSION,
    }
    return LogEntry(EntryType.OPENED.value, THE_LOG, content)


def adoption_closed(adopted: int) -> LogEntry:
    """From here on nothing is adopted any more."""
    content: dict[str, str | int] = {"adopted": adopted, "v": VERSION}
    return LogEntry(EntryType.ADOPTION_CLOSED.value, THE_LOG, content)


def parse_entry(content: bytes) -> Entry:
    """Read a leaf. Raises `Malformed` (`log_entry_malformed`)."""
    if len(content) > LARGEST_ENTRY:
        raise _malformed("it is too long")
    try:
        told = json.loads(content)
        canonical = json.dumps(told, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        if canonical.encode() != content:
            raise _malformed("it is not canonical")
        return _read(told)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _malformed("its fields are not those of an entry") from None


def _read(told: Mapping[str, Any]) -> Entry:
    type_ = EntryType(told["type"])
    time = datetime.fromisoformat(told["time"])
    of_the_log = type_ in _ABOUT_THE_LOG
    known = _OF_THE_LOG if of_the_log else _KNOWN
    if told["v"] != VERSION or not set(told) <= known or time.tzinfo is None:
        raise ValueError("of another version")
    if of_the_log:
        return Entry(type_, time, adopts=told.get("adopts") == "yes")
    serial_number = told["subject"].removeprefix(SUBJECT)
    if told["subject"] == serial_number or not _SERIAL.fullmatch(serial_number):
        raise ValueError("no serial number")
    if type_ is EntryType.DELETED:
        gone = Logged(ca_id=told["ca"], sha256="", status="", deleted=True)
        return Entry(type_, time, serial_number, gone)
    if not _HASH.fullmatch(told["sha256"]):
        raise ValueError("no hash")
    state = Logged(
        ca_id=told["ca"],
        sha256=told["sha256"],
        status=CertificateStatus(told["status"]).value,
        reason=told.get("reason", ""),
        at=told.get("at", ""),
    )
    return Entry(type_, time, serial_number, state, told.get("authority", ""))


def _malformed(why: str) -> Malformed:
    return Malformed(f"not an entry of the issuance log: {why}", code="log_entry_malformed")


@dataclass(frozen=True, slots=True)
class Known:
    """What earlier entries said of a certificate, the last of them at `time`."""

    state: Logged
    time: datetime


class Chronicle:
    """Judges entries in their order; what they say of a certificate is kept by the caller."""

    def __init__(self) -> None:
        self.adopted = 0
        self._adoption: bool | None = None  # not said yet

    def judge(self, entry: Entry, known: Known | None) -> list[str]:
        """What is wrong with an entry, given what was known of its certificate."""
        if entry.type is EntryType.OPENED:
            if self._adoption is not None:
                return ["the log is opened twice"]
            self._adoption = entry.adopts
            return []
        if entry.type is EntryType.ADOPTION_CLOSED:
            self._adoption = False
            return []
        assert entry.state is not None  # all others are of a certificate
        faults = []
        if entry.type is EntryType.ADOPTED:
            self.adopted += 1
            if self._adoption is not True:
                faults.append("it was adopted although adoption was closed")
        if known is None:
            if entry.type not in _FIRST:
                faults.append("nothing before says that it was issued")
            return faults
        return [*faults, *_judge_change(entry, entry.state, known)]


def _judge_change(entry: Entry, state: Logged, known: Known) -> list[str]:
    before, faults = known.state, []
    if entry.time + CLOCK_SLACK < known.time:
        faults.append("the entry is older than one before it: it was put in again")
    if before.deleted:
        if entry.type not in _FIRST:
            faults.append("it was deleted before")
        return faults
    if state.deleted:
        return faults
    if state.sha256 != before.sha256:
        faults.append("it was issued under another hash before")
    final = before.status == CertificateStatus.REVOKED and before.reason != _HOLD
    if final and state.status != before.status:
        faults.append("a final revocation was taken back")
    return faults
