"""Where the audit of an issuance log reads: folders, web servers, the database."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from lamassu.kernel.errors import LamassuError, NotFound, RuleViolation
from lamassu.kernel.merkle import all_tiles, entries_path, parse_index_path, tile_path
from lamassu.kernel.signed_note import VerifierKey
from lamassu.platform.database import Database
from lamassu.platform.database.journal_tables import tables as journal_tables
from lamassu.platform.database.records import LOG
from lamassu.services.ca.contract import Certificate
from lamassu.services.ca.rules.issuance_log import Known, Logged
from lamassu.services.ca.storage.archive import (
    archived,
    archived_after,
    certificate_in_archive,
)
from lamassu.services.ca.storage.issuance_log import SERVICE
from lamassu.services.ca.storage.log_tables import log_head
from lamassu.services.ca.storage.rows import CERTIFICATE_COLUMNS, certificate_of
from lamassu.services.ca.storage.tables import cas, certificates
from lamassu.services.ca.usecases.issuance_log import IssuanceLog
from lamassu.services.ca.usecases.issuance_log.audit import LogAudit, LogReport, TileSource
from lamassu.services.ca.usecases.issuance_log.follow import (
    ALARMS,
    consistency,
    follow,
    read_checkpoint,
)
from lamassu.wiring.platform import opened

PAGE = 1000

__all__ = [
    "ALARMS",
    "FolderTiles",
    "LogReport",
    "TileSource",
    "consistency",
    "export_log",
    "follow",
    "read_checkpoint",
    "verify_log",
    "verify_tiles",
]


class FolderTiles:
    """A `TileSource`: what `lamassu log export` wrote."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def read(self, path: str) -> bytes | None:
        try:
            return await asyncio.to_thread((self._folder / path).read_bytes)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None


class OwnTiles:
    """A `TileSource`: the log of this database."""

    def __init__(self, issuance_log: IssuanceLog) -> None:
        self._log = issuance_log

    async def read(self, path: str) -> bytes | None:
        try:
            return await self._answer(path)
        except LamassuError:
            return None

    async def _answer(self, path: str) -> bytes:
        if path == "checkpoint":
            return (await self._log.checkpoint()).encode()
        kind, _, rest = path.removeprefix("tile/").partition("/")
        number, width = parse_index_path(rest)
        if kind == "entries":
            return await self._log.proofs.bundle(number, width)
        return await self._log.proofs.tile(int(kind), number, width)


class DatabaseRows:
    """The `Rows` of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pages(self) -> AsyncIterator[Sequence[Certificate]]:
        after = ""
        while True:
            query = (
                select(*CERTIFICATE_COLUMNS)
                .where(certificates.c.serial_number > after)
                .order_by(certificates.c.serial_number)
                .limit(PAGE)
            )
            async with self._database.reading(SERVICE) as connection:
                page = [certificate_of(row) for row in await connection.execute(query)]
            if not page:
                break
            yield page
            after = page[-1].serial_number
        async for kept in self._archived_pages():
            yield kept

    async def _archived_pages(self) -> AsyncIterator[Sequence[Certificate]]:
        after = ""
        while True:
            query = archived_after(after, limit=PAGE)
            async with self._database.reading(SERVICE) as connection:
                rows = await connection.execute(query)
                page = [certificate_in_archive(row) for row in rows]
            if not page:
                return
            yield page
            after = page[-1].serial_number

    async def some(self, serial_numbers: Sequence[str]) -> Sequence[Certificate]:
        query = select(*CERTIFICATE_COLUMNS).where(certificates.c.serial_number.in_(serial_numbers))
        async with self._database.reading(SERVICE) as connection:
            found = [certificate_of(row) for row in await connection.execute(query)]
            kept = await connection.execute(archived(serial_numbers))
            return [*found, *(certificate_in_archive(row) for row in kept)]

    async def present(self) -> Mapping[str, str]:
        async with self._database.reading(SERVICE) as connection:
            rows = await connection.execute(select(cas.c.id, cas.c.serial_number))
            return {row.id: row.serial_number for row in rows}

    async def pending(self) -> Sequence[bytes]:
        """The journal beyond the log's place, and the outbox: what their seals vouch for."""
        journal, outbox = journal_tables(SERVICE).journal, journal_tables(SERVICE).outbox
        place = select(log_head.c.position).scalar_subquery()
        queries = (
            select(outbox).where(outbox.c.kind == LOG).order_by(outbox.c.seq),
            select(journal)
            .where(journal.c.kind == LOG, journal.c.position > place)
            .order_by(journal.c.position),
        )
        found: list[list[bytes]] = []
        for query in queries:  # the outbox first: what moves on meanwhile is in the journal
            async with self._database.reading(SERVICE) as connection:
                rows = (await connection.execute(query)).all()
            sealed = self._database.writer.sealed
            found.append([row.body.encode() for row in rows if sealed(SERVICE, row)])
        waiting, sequenced = found
        moved = set(sequenced)
        return [*sequenced, *(body for body in waiting if body not in moved)]


class DiskLedger:
    """The `Ledger`, in a file that goes with the run."""

    def __init__(self, path: Path) -> None:
        self._file = sqlite3.connect(path, isolation_level=None)
        self._file.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;"
            "CREATE TABLE known (serial_number TEXT PRIMARY KEY, ca TEXT, sha256 TEXT, status TEXT,"
            " reason TEXT, at TEXT, deleted INTEGER, time TEXT, seen INTEGER) WITHOUT ROWID;"
        )

    def close(self) -> None:
        self._file.close()

    def find(self, serial_numbers: Sequence[str]) -> Mapping[str, Known]:
        rows = self._file.execute(
            "SELECT serial_number, ca, sha256, status, reason, at, deleted, time FROM known"
            " WHERE serial_number IN (SELECT value FROM json_each(?))",
            [json.dumps(list(serial_numbers))],
        )
        return {row[0]: Known(_logged(row[1:7]), datetime.fromisoformat(row[7])) for row in rows}

    def put(self, known: Mapping[str, Known]) -> None:
        rows = [
            (
                serial_number,
                one.state.ca_id,
                one.state.sha256,
                one.state.status,
                one.state.reason,
                one.state.at,
                one.state.deleted,
                one.time.isoformat(),
            )
            for serial_number, one in known.items()
        ]
        self._file.execute("BEGIN")
        self._file.executemany(
            "INSERT INTO known VALUES (?,?,?,?,?,?,?,?,0) ON CONFLICT (serial_number) DO UPDATE SET"
            " ca=excluded.ca, sha256=excluded.sha256, status=excluded.status,"
            " reason=excluded.reason, at=excluded.at, deleted=excluded.deleted, time=excluded.time",
            rows,
        )
        self._file.execute("COMMIT")

    def see(self, serial_numbers: Sequence[str]) -> None:
        self._file.execute("BEGIN")
        self._file.executemany(
            "UPDATE known SET seen = 1 WHERE serial_number = ?",
            [(serial_number,) for serial_number in serial_numbers],
        )
        self._file.execute("COMMIT")

    def unseen(self) -> Sequence[str]:
        rows = self._file.execute(
            "SELECT serial_number FROM known WHERE seen = 0 AND deleted = 0 LIMIT 100000"
        )
        return [row[0] for row in rows]


def _logged(columns: Sequence[Any]) -> Logged:
    ca_id, digest, status, reason, at, deleted = columns
    return Logged(ca_id, digest, status, reason, at, bool(deleted))


@contextmanager
def disk_ledger() -> Iterator[DiskLedger]:
    """A ledger for one run."""
    with tempfile.TemporaryDirectory(prefix="lamassu-log-") as folder:
        ledger = DiskLedger(Path(folder) / "ledger.db")
        try:
            yield ledger
        finally:
            ledger.close()


async def verify_log(
    directory: Path,
    *,
    tiles: Path | None,
    key: VerifierKey | None,
    progress: Callable[[int, int], None],
) -> tuple[LogReport, VerifierKey]:
    """The verdict on an installation's log and rows, and the key by which it was judged.

    With `tiles`, an exported log is what the rows are compared with, and the database's own log
    must continue it. Without `key` the installation's own is believed.
    """
    async with opened(directory) as platform:
        issuance_log = platform.issuance_log
        used = key or await issuance_log.key()
        own = OwnTiles(issuance_log)
        source = own if tiles is None else _Continued(FolderTiles(tiles), own)
        with disk_ledger() as ledger:
            audit = LogAudit(source, ledger, key=used, progress=progress)
            return await audit.run(DatabaseRows(platform.database)), used


async def verify_tiles(
    tiles: Path, *, key: VerifierKey, progress: Callable[[int, int], None]
) -> LogReport:
    """The verdict on an exported log alone."""
    if not (tiles / "checkpoint").is_file():
        raise NotFound(f"{tiles} has no checkpoint: `lamassu log export` writes one")
    with disk_ledger() as ledger:
        return await LogAudit(FolderTiles(tiles), ledger, key=key, progress=progress).run()


class _Continued:
    """An exported log, and from its end on the database's own: whoever altered that one cannot
    make the signed root of more entries than were exported."""

    def __init__(self, first: FolderTiles, then: OwnTiles) -> None:
        self._first = first
        self._then = then
        self._ended = False

    async def read(self, path: str) -> bytes | None:
        if path == "checkpoint":
            if self._ended:
                return await self._then.read(path)
            self._ended = True
            return await self._first.read(path)
        return await self._first.read(path) or await self._then.read(path)


async def export_log(
    source: TileSource, folder: Path, progress: Callable[[int, int], None]
) -> tuple[int, int]:
    """Write a log as files that any web server can serve: how many entries there were before,
    and are now.

    What was whole before is not asked for again; the checkpoint is written last, so that a cut
    off export is only behind. Raises `RuleViolation` (`log_rolled_back`) where the folder has
    more than the source.
    """
    new = await read_checkpoint(source)
    old = await _exported(folder)
    if old > new.head.size:
        raise RuleViolation(
            f"{folder} has {old} entries and the log {new.head.size}: the log was set back, or the"
            " folder is another log's; keep it, it is the proof",
            code="log_rolled_back",
        )
    paths = [tile_path(tile, width) for tile, width in all_tiles(new.head.size, since=old)]
    paths += [
        entries_path(tile.number, width)
        for tile, width in all_tiles(new.head.size, since=old)
        if not tile.level
    ]
    for done, path in enumerate(paths, 1):
        content = await source.read(path)
        if content is None:
            raise RuleViolation(f"the log has lost {path}", code="log_damaged")
        await asyncio.to_thread(_write, folder / path, content)
        progress(done, len(paths))
    await asyncio.to_thread(_write, folder / "checkpoint", str(new).encode())
    return old, new.head.size


async def _exported(folder: Path) -> int:
    try:
        return (await read_checkpoint(FolderTiles(folder))).head.size
    except NotFound:
        return 0


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    beside.replace(path)
