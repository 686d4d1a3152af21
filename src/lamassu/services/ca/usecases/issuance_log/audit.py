"""Is the log what it was, and are the rows what it says? Works on tiles alone, offline.

The tree is computed anew from the entries and compared with every tile and with the signed root;
then what the entries say of each certificate is compared with its row. Memory is bounded: what is
known of each certificate lies in a `Ledger` on disk, and rows come a page at a time. The platform
may go on working meanwhile: whatever does not fit is looked at again, with all that was logged
since.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lamassu.kernel.errors import LamassuError, RuleViolation
from lamassu.kernel.merkle import (
    WIDTH,
    Edge,
    Head,
    Tile,
    entries_path,
    leaf_hash,
    tile_path,
    unbundled,
    unpacked,
)
from lamassu.kernel.signed_note import VerifierKey, parse_checkpoint, verify_note
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.services.ca.contract import Certificate, CertificateStatus
from lamassu.services.ca.rules.issuance_log import (
    Chronicle,
    Entry,
    Known,
    Logged,
    parse_entry,
    state_of,
)
from lamassu.services.ca.rules.status import CASCADE_REASON

MOST_NAMED = 1000
"""Findings that are kept; more are counted."""
ROUNDS = 4
"""How often rows that do not fit are looked at again."""


class TileSource(Protocol):
    """A log as files: a folder, a web server, or the platform's API."""

    async def read(self, path: str) -> bytes | None:
        """A file of the layout of C2SP tlog-tiles; `None` if there is none."""
        ...


class Rows(Protocol):
    """The certificates of a database."""

    def pages(self) -> AsyncIterator[Sequence[Certificate]]:
        """All, by serial number."""
        ...

    async def some(self, serial_numbers: Sequence[str]) -> Sequence[Certificate]: ...

    async def present(self) -> Mapping[str, str]:
        """Each CA's present certificate."""
        ...

    async def pending(self) -> Sequence[bytes]:
        """Genuine entries that were committed and are not in the log yet."""
        ...


class Ledger(Protocol):
    """What the log says of each certificate, beside the memory."""

    def find(self, serial_numbers: Sequence[str]) -> Mapping[str, Known]: ...

    def put(self, known: Mapping[str, Known]) -> None: ...

    def see(self, serial_numbers: Sequence[str]) -> None:
        """Note that these have rows."""
        ...

    def unseen(self) -> Sequence[str]:
        """Those that should have a row and have none; at most as many as are named."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written: `subject` names it, `text` says what is wrong."""

    subject: str
    text: str


@dataclass(slots=True)
class LogReport:
    """The verdict; `compared`: with rows, too. `unnamed` counts findings beyond those named."""

    origin: str = ""
    size: int = 0
    root: bytes = b""
    rows: int = 0
    adopted: int = 0
    compared: bool = False
    findings: list[Finding] = field(default_factory=list)
    unnamed: int = 0

    @property
    def intact(self) -> bool:
        """Nothing was found."""
        return not self.findings

    def add(self, subject: str, text: str) -> None:
        if len(self.findings) < MOST_NAMED:
            self.findings.append(Finding(subject, text))
        else:
            self.unnamed += 1


class LogAudit:
    """One run over one log."""

    def __init__(
        self,
        source: TileSource,
        ledger: Ledger,
        *,
        key: VerifierKey,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._key = key
        self._progress = progress
        self._chronicle = Chronicle()
        self._present: dict[str, str] = {}
        self._final_cas: dict[str, str] = {}  # CAs revoked for good, and when
        self._edge = Edge()
        self._report = LogReport()

    async def run(self, rows: Rows | None = None) -> LogReport:
        """Judge the log, and the rows if there are any. Raises a `LamassuError` only where
        there is no log to judge."""
        note = await self._source.read("checkpoint")
        if note is None:
            raise RuleViolation("there is no checkpoint here", code="no_checkpoint")
        await self._follow(note)
        if rows is not None:
            self._report.compared = True
            await self._compare(rows)
        self._report.adopted = self._chronicle.adopted
        return self._report

    # --- the tree ---------------------------------------------------------------------------

    async def _follow(self, note: bytes) -> None:
        """Go on to this checkpoint's end."""
        report = self._report
        try:
            checkpoint = parse_checkpoint(note.decode(errors="replace"))
            verify_note(checkpoint, self._key)
        except LamassuError as error:
            report.add("checkpoint", error.text)
            return
        if checkpoint.head.size < self._edge.size:
            report.add("checkpoint", f"the log shrank to {checkpoint.head.size} while it was read")
            return
        report.origin, report.size = checkpoint.origin, checkpoint.head.size
        report.root = checkpoint.head.root
        await self._read_entries(checkpoint.head)

    async def _read_entries(self, head: Head) -> None:
        broken: list[int] = []
        while self._edge.size < head.size:
            number, done = divmod(self._edge.size, WIDTH)
            width = min(WIDTH, head.size - number * WIDTH)
            entries = await self._bundle(number, width)
            if entries is None:
                return
            hashes = [leaf_hash(entry) for entry in entries]
            stored = await self._hashes(Tile(0, number), width)
            broken += [
                number * WIDTH + at
                for at, (mine, theirs) in enumerate(zip(hashes, stored, strict=False))
                if mine != theirs
            ]
            changed = self._edge.append(hashes[done:])
            await self._check_tiles(changed)
            self._judge(number * WIDTH + done, entries[done:])
            self._progress(self._edge.size, head.size)
        for position in broken:
            self._report.add(f"entry {position}", "it is not what the tree was made of")
        if self._edge.root() != head.root:
            self._report.add(
                "checkpoint", f"the entries do not make the signed root of size {head.size}"
            )

    async def _bundle(self, number: int, width: int) -> list[bytes] | None:
        """The first `width` entries of a bundle, from a wider one if need be."""
        content = await self._partial(lambda w: entries_path(number, w), width)
        try:
            entries = unbundled(content) if content is not None else []
        except LamassuError as error:
            self._report.add(entries_path(number), error.text)
            return None
        if len(entries) < width:
            first, last = number * WIDTH + len(entries), number * WIDTH + width - 1
            self._report.add(entries_path(number), f"entries {first} to {last} are missing")
            return None
        return entries[:width]

    async def _hashes(self, tile: Tile, width: int) -> list[bytes]:
        content = await self._partial(lambda w: tile_path(tile, w), width)
        hashes = unpacked(content) if content is not None else []
        if len(hashes) < width:
            self._report.add(tile_path(tile), "the tile is missing or cut off")
        return hashes[:width]

    async def _partial(self, path: Callable[[int], str], width: int) -> bytes | None:
        content = await self._source.read(path(width))
        if content is None and width < WIDTH:
            content = await self._source.read(path(WIDTH))
        return content

    async def _check_tiles(self, changed: Mapping[Tile, Sequence[bytes]]) -> None:
        """Tiles above the leaves, as they are filled."""
        for tile, hashes in changed.items():
            if not tile.level or len(hashes) < WIDTH:
                continue
            if await self._hashes(tile, WIDTH) != list(hashes):
                self._report.add(tile_path(tile), "it holds other hashes than its leaves make")

    def _judge(self, first: int, bodies: Sequence[bytes]) -> None:
        entries: list[tuple[int, Entry]] = []
        for position, body in enumerate(bodies, first):
            try:
                entries.append((position, parse_entry(body)))
            except LamassuError as error:
                self._report.add(f"entry {position}", error.text)
        known = dict(
            self._ledger.find([entry.serial_number for _, entry in entries if entry.serial_number])
        )
        for position, entry in entries:
            for fault in self._chronicle.judge(entry, known.get(entry.serial_number)):
                self._report.add(f"entry {position}, certificate {entry.serial_number}", fault)
            self._learn(entry, known)
        self._ledger.put(known)

    def _learn(self, entry: Entry, known: dict[str, Known]) -> None:
        if entry.state is None:
            return
        known[entry.serial_number] = Known(entry.state, entry.time)
        if entry.authority_id:
            self._present[entry.authority_id] = entry.serial_number
        final = entry.state.status == CertificateStatus.REVOKED
        if final and entry.serial_number in self._present.values():
            for ca_id, serial_number in self._present.items():
                if serial_number == entry.serial_number:
                    self._final_cas[ca_id] = entry.state.at

    # --- the rows ---------------------------------------------------------------------------

    async def _compare(self, rows: Rows) -> None:
        doubtful: list[str] = []
        async for page in rows.pages():
            self._report.rows += len(page)
            serial_numbers = [row.serial_number for row in page]
            self._ledger.see(serial_numbers)
            known = self._ledger.find(serial_numbers)
            for row in page:
                if self._faults(row, known.get(row.serial_number)):
                    doubtful.append(row.serial_number)
            if len(doubtful) > 100 * MOST_NAMED:
                break
        doubtful = sorted({*doubtful, *self._ledger.unseen()})
        for _ in range(ROUNDS):
            if not doubtful and not await self._wrong_authorities(rows):
                return
            before = self._edge.size
            if note := await self._source.read("checkpoint"):
                await self._follow(note)
            doubtful = await self._still(rows, doubtful)
            if self._edge.size == before:
                break
        pending = _latest(await rows.pending())
        for serial_number, faults in (await self._verdicts(rows, doubtful, pending)).items():
            for fault in faults:
                self._report.add(f"certificate {serial_number}", fault)
        for ca_id, text in (await self._wrong_authorities(rows, pending)).items():
            self._report.add(f"CA {ca_id}", text)

    async def _still(self, rows: Rows, doubtful: Sequence[str]) -> list[str]:
        return list(await self._verdicts(rows, doubtful, {}))

    async def _verdicts(
        self, rows: Rows, doubtful: Sequence[str], pending: Mapping[str, Entry]
    ) -> dict[str, list[str]]:
        """What is wrong with each of these, if anything is."""
        found: dict[str, list[str]] = {}
        for at in range(0, len(doubtful), WIDTH):
            some = doubtful[at : at + WIDTH]
            here = {row.serial_number: row for row in await rows.some(some)}
            known = self._ledger.find(some)
            for serial_number in some:
                log = known.get(serial_number)
                if (entry := pending.get(serial_number)) is not None and entry.state is not None:
                    log = Known(entry.state, entry.time)
                row = here.get(serial_number)
                faults = self._faults(row, log) if row is not None else _removed(log)
                if faults:
                    found[serial_number] = faults
        return found

    def _faults(self, row: Certificate, known: Known | None) -> list[str]:
        """What is wrong with a row, given what the log says."""
        if known is None:
            return ["it was issued behind the log's back: no entry tells of it"]
        log, state = known.state, state_of(row)
        if log.deleted:
            return ["the log says that it was deleted, and it has a row"]
        faults = []
        if state.sha256 != log.sha256:
            faults.append(
                f"the row holds another certificate: SHA-256 {state.sha256[:16]}…,"
                f" logged {log.sha256[:16]}…"
            )
        if state.ca_id != log.ca_id:
            faults.append(f"the row names CA {state.ca_id} as its issuer, the log {log.ca_id}")
        same = (state.status, state.reason, state.at) == (log.status, log.reason, log.at)
        if not same and not self._by_cascade(state):
            faults.append(f"the row says {state.told}, the log {log.told}")
        return faults or _columns(row)

    def _by_cascade(self, state: Logged) -> bool:
        """Whether the revocation of its CA, which is logged, explains this state: the rows
        follow at once, their own entries at a steady pace."""
        at = self._final_cas.get(state.ca_id)
        return (
            at is not None
            and state.status == CertificateStatus.REVOKED
            and state.reason == CASCADE_REASON.value
            and state.at == at
        )

    async def _wrong_authorities(
        self, rows: Rows, pending: Mapping[str, Entry] | None = None
    ) -> dict[str, str]:
        present = await rows.present()
        logged = dict(self._present)
        for entry in (pending or {}).values():
            if entry.authority_id:
                logged[entry.authority_id] = entry.serial_number
        return {
            ca_id: f"its certificate is {serial_number}, the log says {logged.get(ca_id, 'none')}"
            for ca_id, serial_number in present.items()
            if logged.get(ca_id) != serial_number
        }


def _removed(known: Known | None) -> list[str]:
    if known is None or known.state.deleted:
        return []
    return [f"its row was removed; the log says {known.state.told}"]


def _columns(row: Certificate) -> list[str]:
    """Whether what the row repeats of its certificate is what that says."""
    try:
        facts = certificate_facts(row.der)
    except LamassuError as error:
        return [f"its bytes cannot be read: {error.text}"]
    pairs: dict[str, tuple[object, object]] = {
        "serial_number": (row.serial_number, facts.serial_number),
        "subject": (row.subject, facts.subject),
        "issuer": (row.issuer, facts.issuer),
        "not_before": (row.not_before, facts.not_before),
        "not_after": (row.not_after, facts.not_after),
        "is_ca": (row.is_ca, facts.is_ca),
        "subject_key_id": (row.subject_key_id, facts.ski or row.subject_key_id),
    }
    return [
        f"column {name} says {mine!s}, the certificate {theirs!s}"
        for name, (mine, theirs) in pairs.items()
        if mine != theirs
    ]


def _latest(bodies: Sequence[bytes]) -> dict[str, Entry]:
    """The last entry of each certificate."""
    entries = [parse_entry(body) for body in bodies]
    return {entry.serial_number: entry for entry in entries if entry.serial_number}
