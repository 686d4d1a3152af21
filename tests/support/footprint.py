"""Whether anything was stored: all that a platform keeps, compared before and after."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from tests.support.tables import SERVICES, Tables

# What moves by itself: records get their places in the journal, consumers read on.
_RELAY = (
    *("_outbox", "_journal", "_journal_head", "_cursors"),
    *("_log_entries", "_log_tiles", "_log_head"),  # what records of the kind `log` become
)
# That a CSR was refused is kept and is on record, within bounds; nothing else is to change.
_REFUSALS = "ca_refused_requests"
_OF_REFUSALS = "certificate.request.refuse"
_TOLD = tuple(service for service in SERVICES if service != "alerts")  # whose events it counts
_QUIET = 0.25  # seconds in which nothing changes
_DEADLINE = 30.0


@dataclass(frozen=True)
class Footprint:
    """Of one installation at one moment.

    `tables`: rows and a digest of their content, of every table. `records`: how many events and
    audit records each service has, whether or not they have a place in the journal. `files`:
    names and sizes below the keystore.
    """

    tables: Mapping[str, tuple[int, str]]
    records: Mapping[str, int]
    files: Mapping[str, int]

    @classmethod
    def of(cls, directory: Path, tables: Tables) -> Footprint:
        """As it is now, by plain SQL."""
        contents, records = (
            _of_sqlite(tables.sqlite)
            if tables.sqlite
            else asyncio.run(_of_postgresql(tables.postgresql or ""))
        )
        keys = directory / "keys"
        files = {path.name: path.stat().st_size for path in keys.iterdir()}
        return cls(contents, records, files)

    def changes(self, later: Footprint) -> list[str]:
        """What is not as it was; a line for each."""
        kinds = (
            ("table", self.tables, later.tables),
            ("records", self.records, later.records),
            ("file", self.files, later.files),
        )
        return [
            f"{kind} {key}: {before.get(key)} became {after.get(key)}"
            for kind, before, after in kinds
            for key in sorted({*before, *after})
            if before.get(key) != after.get(key)
        ]


@dataclass(frozen=True)
class Watched:
    """An installation that is running, and its database."""

    directory: Path
    tables: Tables

    def footprint(self) -> Footprint:
        """What there is now."""
        return Footprint.of(self.directory, self.tables)

    def settle(self) -> None:
        """Wait until every event was handed on and nothing changes any more."""
        deadline = time.monotonic() + _DEADLINE
        before, since = None, time.monotonic()
        while True:
            now = time.monotonic()
            present = self.footprint()
            if present != before or not self.tables.settled(consumer="alerts", sources=_TOLD):
                before, since = present, now
            elif now - since >= _QUIET:
                return
            assert now < deadline, "the platform does not come to rest"
            time.sleep(0.05)

    @contextmanager
    def nothing_stored(self, *, audited: str = "") -> Iterator[None]:
        """The block must leave no row, event, audit record or key behind, nor change one.

        `audited` names the service whose trail alone is to tell of it.
        """
        before = self.footprint()
        yield
        after = self.footprint()
        trail = f"records {audited} audit"
        changes = [line for line in before.changes(after) if not line.startswith(f"{trail}:")]
        assert not changes, "\n".join(changes)
        if audited:
            key = f"{audited} audit"
            assert after.records.get(key, 0) > before.records.get(key, 0), "the trail is silent"


def _of_sqlite(path: Path) -> tuple[dict[str, tuple[int, str]], dict[str, int]]:
    connection = sqlite3.connect(path, timeout=30)
    try:
        connection.execute("BEGIN")  # one moment for all tables
        names = [
            str(name)
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
        ]
        contents = {
            name: _digest([repr(row) for row in connection.execute(f'SELECT * FROM "{name}"')])
            for name in names
            if not name.endswith(_RELAY) and name != _REFUSALS
        }
        records: Counter[str] = Counter()
        for service in SERVICES:
            for table in ("outbox", "journal"):
                kinds = (
                    f"SELECT kind, count(*) FROM {service}_{table} WHERE type <> ? GROUP BY kind"
                )
                for kind, count in connection.execute(kinds, (_OF_REFUSALS,)):
                    records[f"{service} {kind}"] += count
    finally:
        connection.close()
    return contents, records


async def _of_postgresql(url: str) -> tuple[dict[str, tuple[int, str]], dict[str, int]]:
    connection = await asyncpg.connect(url)
    try:
        listed = await connection.fetch(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname = ANY($1)", SERVICES
        )
        contents = [
            f"SELECT '{table}', count(*)::bigint,"
            f" md5(coalesce(string_agg(t::text, ',' ORDER BY t::text), '')) FROM {schema}.{table} t"
            for schema, table in listed
            if not table.endswith(_RELAY) and table != _REFUSALS
        ]
        records = [
            f"SELECT '{service} ' || kind, count(*), '' FROM (SELECT kind, type FROM"
            f" {service}.{service}_outbox UNION ALL SELECT kind, type FROM"
            f" {service}.{service}_journal) r WHERE type <> '{_OF_REFUSALS}' GROUP BY kind"
            for service in SERVICES
        ]
        # one statement sees one moment
        found = await connection.fetch(" UNION ALL ".join([*contents, *records]))
    finally:
        await connection.close()
    tables = {name: (count, digest) for name, count, digest in found if " " not in name}
    counts = {name: count for name, count, _ in found if " " in name}
    return tables, counts


def _digest(rows: list[str]) -> tuple[int, str]:
    return len(rows), hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()
