"""A step-ca: its directory, and its certificates where a SQL database keeps them.

step-ca keeps what it issued as keys and values: in Badger or bbolt files by default, which only
its own libraries read, or in tables of PostgreSQL or MySQL. `x509_certs` has certificates (DER)
by decimal serial number, `revoked_x509_certs` JSON by the same, `x509_crl` the newest CRL.
"""

from __future__ import annotations

import asyncio
import binascii
import itertools
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from lamassu.kernel.errors import Malformed, NotFound, RuleViolation
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.serials import serial_hex
from lamassu.services.ca.contract import RevocationReason
from lamassu.services.ca.rules.adoption import UNREVOKED, FoundCertificate, FoundStatus
from lamassu.wiring.importing.files import (
    authority_of,
    certificates_in,
    passphrase_in,
    private_key_in,
    read_file,
)
from lamassu.wiring.importing.material import (
    PAGE,
    Certificates,
    Damaged,
    SourceAuthority,
    damaged,
)
from lamassu.wiring.importing.postgres import SourceDatabase

REASONS = {reason.number: reason for reason in RevocationReason}
_LONGEST_LINE = 256 * 1024
_LONGEST_KEY = 64


@dataclass(frozen=True, slots=True)
class StepFiles:
    """`directory` is what `step path` prints. `tables` is a directory of exported tables, in
    place of a database."""

    directory: Path
    passphrase_file: Path | None = None
    root_passphrase_file: Path | None = None
    database: SourceDatabase | None = None
    tables: Path | None = None
    profile_id: str = ""
    with_key: bool = True
    cas_only: bool = False


class StepCa:
    """The `Source` of a step-ca."""

    name = "step-ca"

    def __init__(self, files: StepFiles) -> None:
        self._files = files
        self._rows: Rows | None = None
        if files.database is not None:
            self._rows = TableRows(files.database)
        elif files.tables is not None:
            self._rows = ExportedRows(files.tables)

    async def authorities(self) -> Sequence[SourceAuthority | Damaged]:
        """Root and intermediate CA; the root's key only if its file is still there."""
        crl_number = await self._last_crl_number()
        return await asyncio.to_thread(self._authorities, crl_number)

    def _authorities(self, crl_number: int) -> Sequence[SourceAuthority | Damaged]:
        settings = self._settings()
        roots = [
            der
            for path in _several(settings.get("root"))
            for der in certificates_in(self._at(path))
        ]
        issuing = certificates_in(self._at(str(settings.get("crt", ""))))
        root_key = self._files.directory / "secrets" / "root_ca_key"
        own = self._key(self._at(str(settings.get("key", ""))), self._files.passphrase_file)
        above = self._key(root_key, self._files.root_passphrase_file or self._files.passphrase_file)
        profile_id = self._files.profile_id
        found = [
            authority_of(roots[0], key_pem=above, profile_id=profile_id),
            *(authority_of(der) for der in (*roots[1:], *issuing[1:])),
            authority_of(
                issuing[0], key_pem=own, profile_id=profile_id, last_crl_number=crl_number
            ),
        ]
        return list({one.found.der: one for one in found}.values())

    def _settings(self) -> Mapping[str, Any]:
        path = self._files.directory / "config" / "ca.json"
        try:
            settings = json.loads(read_file(path))
        except ValueError:
            raise Malformed(f"{path} is no JSON", code="settings_malformed") from None
        if not isinstance(settings, dict) or not settings.get("root") or not settings.get("crt"):
            raise Malformed(
                f"{path} names no root and crt: is this the configuration of a step-ca?",
                code="settings_malformed",
            )
        kind = str((settings.get("db") or {}).get("type", ""))
        if self._rows is None and kind and not self._files.cas_only:
            raise RuleViolation(
                f"this step-ca keeps its certificates in {kind}: name a PostgreSQL database"
                " (--database) or exported tables (--tables), or take only the CAs"
                " (--cas-only). A Badger database is brought into PostgreSQL by step-ca's own"
                " migration program",
                code="certificates_elsewhere",
            )
        return settings

    def _at(self, path: str) -> Path:
        """Paths of `ca.json` are those of the host that it comes from: what is not there is
        looked for in the directory, at the same place below it."""
        found = Path(path)
        if found.is_file() or not path:
            return found
        return self._files.directory / found.parent.name / found.name

    def _key(self, path: Path, passphrase_file: Path | None) -> bytes | None:
        """Keys in a KMS are named by URIs, which are no files."""
        if not self._files.with_key or not path.is_file():
            return None
        return private_key_in(path, passphrase_in(passphrase_file))

    async def _last_crl_number(self) -> int:
        return 0 if self._rows is None else await self._rows.last_crl_number()

    async def count_certificates(self) -> int | None:
        """As far as a database tells."""
        return None if self._rows is None else await self._rows.count()

    async def certificates(self) -> Certificates:
        """Of every row of `x509_certs`, with what `revoked_x509_certs` says of it."""
        if self._rows is not None:
            async for page in self._rows.pages():
                yield [_certificate(row) for row in page]


def _several(value: object) -> Sequence[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


@dataclass(frozen=True, slots=True)
class Row:
    """Of one serial number; without `value` only its revocation is known."""

    key: bytes
    value: bytes | None
    revocation: bytes | None = None


class Rows(Protocol):
    """Where step-ca's tables are."""

    async def count(self) -> int | None: ...

    def pages(self) -> AsyncIterator[Sequence[Row]]: ...

    async def last_crl_number(self) -> int: ...


def _certificate(row: Row) -> FoundCertificate | Damaged:
    label = f"x509_certs {row.key[:64].decode('ascii', 'replace')}"
    status = UNREVOKED if row.revocation is None else revocation_of(row.revocation)
    if row.value is None:
        text = "revoked_x509_certs has it, x509_certs has not"
        return Damaged(label, "certificate_missing", text, revoked=True)
    try:
        facts = certificate_facts(row.value)
    except Malformed as error:
        return damaged(label, error, revoked=status.revoked)
    named = row.key.isdigit() and len(row.key) <= _LONGEST_KEY
    if not named or serial_hex(int(row.key)) != facts.serial_number:
        text = "its row is of another serial number"
        return Damaged(label, "row_differs", text, status.revoked)
    return FoundCertificate(label, row.value, status)


def revocation_of(value: bytes) -> FoundStatus:
    """What a row of `revoked_x509_certs` says. That it is there is what counts: of one that
    cannot be read the certificate is revoked, without time and reason."""
    try:
        told = json.loads(value)
        at = datetime.fromisoformat(str(told["RevokedAt"]))
        reason = REASONS.get(told.get("ReasonCode", 0), RevocationReason.UNSPECIFIED)
        return FoundStatus(revoked=True, at=at if at.tzinfo else None, reason=reason)
    except (ValueError, TypeError, KeyError, AttributeError):
        return FoundStatus(revoked=True)


def _number_of(value: bytes) -> int:
    """Of a row of `x509_crl`. Raises `Malformed`: a number must not be guessed."""
    try:
        return int(json.loads(value)["Number"])
    except (ValueError, TypeError, KeyError):
        raise Malformed("x509_crl tells no CRL number", code="crl_number_malformed") from None


class TableRows:
    """Tables of PostgreSQL, as step-ca makes them."""

    def __init__(self, database: SourceDatabase) -> None:
        self._database = database

    async def count(self) -> int | None:
        async with self._database.connected() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM x509_certs"))

    async def last_crl_number(self) -> int:
        """Installations that never made a CRL may lack the table."""
        async with self._database.connected() as connection:
            if await connection.fetchval("SELECT to_regclass('x509_crl')") is None:
                return 0
            rows = await connection.fetch("SELECT nvalue FROM x509_crl")
        return max((_number_of(row["nvalue"]) for row in rows), default=0)

    async def pages(self) -> AsyncIterator[Sequence[Row]]:
        """By key; at the end what is revoked and has no certificate."""
        issued = (
            "SELECT c.nkey, c.nvalue, r.nvalue AS revocation FROM x509_certs c"
            " LEFT JOIN revoked_x509_certs r USING (nkey)"
            " WHERE c.nkey > $1 ORDER BY c.nkey LIMIT $2"
        )
        lost = (
            "SELECT r.nkey, NULL::bytea AS nvalue, r.nvalue AS revocation"
            " FROM revoked_x509_certs r LEFT JOIN x509_certs c USING (nkey)"
            " WHERE c.nkey IS NULL AND r.nkey > $1 ORDER BY r.nkey LIMIT $2"
        )
        async with self._database.connected() as connection:
            for query in (issued, lost):
                after = b""
                while rows := await connection.fetch(query, after, PAGE):
                    yield [Row(row["nkey"], row["nvalue"], row["revocation"]) for row in rows]
                    after = rows[-1]["nkey"]


class ExportedRows:
    """Files `TABLE.tsv`, a row a line: key and value in hex, a tab between them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def count(self) -> int | None:
        return None

    async def last_crl_number(self) -> int:
        return await asyncio.to_thread(self._last_crl_number)

    def _last_crl_number(self) -> int:
        if not (self._directory / "x509_crl.tsv").is_file():
            return 0
        return max((_number_of(value) for _, value in self._lines("x509_crl")), default=0)

    async def pages(self) -> AsyncIterator[Sequence[Row]]:
        """In the file's order. The revoked ones are held in memory: some 200 octets each."""
        revoked = await asyncio.to_thread(lambda: dict(self._lines("revoked_x509_certs")))
        issued = self._lines("x509_certs")
        while page := await asyncio.to_thread(lambda: list(itertools.islice(issued, PAGE))):
            yield [Row(key, value, revoked.pop(key, None)) for key, value in page]
        for key, value in revoked.items():
            yield [Row(key, None, value)]

    def _lines(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        path = self._directory / f"{table}.tsv"
        if not path.is_file():
            raise NotFound(f"there is no file {path}", code="file_missing")
        with path.open("rb") as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                number += 1
                try:
                    key, value = line.strip().split(b"\t")
                    yield binascii.unhexlify(key), binascii.unhexlify(value)
                except ValueError:
                    raise Malformed(
                        f"{path}:{number} is not key and value in hex, with a tab between them",
                        code="export_malformed",
                    ) from None
