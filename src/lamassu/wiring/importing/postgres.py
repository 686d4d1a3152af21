"""Read another system's PostgreSQL database. Nothing is written: its session cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from lamassu.kernel.errors import RuleViolation, Unavailable
from lamassu.wiring.importing.files import passphrase_in

_PATIENCE = 10.0
Connection: TypeAlias = Any  # asyncpg has no types


@dataclass(frozen=True, slots=True)
class SourceDatabase:
    """`url` is `postgresql://USER@HOST:PORT/NAME`; the password is in a file (or in what libpq
    reads: PGPASSFILE), never in the URL, which every user of the host can see."""

    url: str
    password_file: Path | None = None

    def named(self, name: str) -> SourceDatabase:
        """Another database of the same server."""
        parts = urlsplit(self.url)
        return SourceDatabase(urlunsplit(parts._replace(path=f"/{name}")), self.password_file)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        """A session that reads only. Raises `RuleViolation`, `Unavailable`."""
        connection = await self._connect()
        try:
            yield connection
        except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
            raise Unavailable(
                f"{self._name()} lacks a table or column that is read: is it the right one? bring"
                " it to its newest revision by its own migrations first",
                code="source_unexpected",
            ) from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise Unavailable(
                f"{self._name()} failed: {type(error).__name__}; repeat the command",
                code="source_unreachable",
            ) from None
        finally:
            await connection.close(timeout=_PATIENCE)

    async def _connect(self) -> Connection:
        parts = urlsplit(self.url)
        if parts.scheme not in ("postgresql", "postgres") or not parts.hostname:
            raise RuleViolation(
                "a database is named as postgresql://USER@HOST:PORT/NAME", code="bad_url"
            )
        if parts.password:
            raise RuleViolation(
                "no password in a URL: every user of this host can see it; write it into a file"
                " (--password-file)",
                code="password_in_url",
            )
        password = passphrase_in(self.password_file)
        try:
            return await asyncpg.connect(
                self.url,
                password=password.decode() if password is not None else None,
                timeout=_PATIENCE,
                server_settings={
                    "default_transaction_read_only": "on",
                    "application_name": "lamassu import",
                },
            )
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
            raise Unavailable(
                f"{self._name()} does not let us in: {type(error).__name__}",
                code="source_unreachable",
            ) from None

    def _name(self) -> str:
        parts = urlsplit(self.url)
        return f"the database {parts.path.strip('/')} at {parts.hostname}:{parts.port or 5432}"
