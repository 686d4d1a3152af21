"""The database as its administrator sees it: plain SQL, past the platform."""

from __future__ import annotations

import csv
import io
import sqlite3
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SERVICES = ("kms", "ca", "va", "dmsmanager", "devicemanager", "alerts", "access")


@dataclass(frozen=True)
class Tables:
    """Reads and tampers. `postgresql` is a URL, else `sqlite` is the file."""

    sqlite: Path | None = None
    postgresql: str | None = None

    @classmethod
    def of(cls, directory: Path, url: str | None) -> Tables:
        """The database of an installation."""
        if url is not None:
            return cls(postgresql=url)
        return cls(sqlite=directory / "data" / "lamassu.db")

    def rows(self, service: str, sql: str) -> Sequence[tuple[str, ...]]:
        """Run a statement in a service's schema; every value comes back as text."""
        if self.sqlite is not None:
            connection = sqlite3.connect(self.sqlite, timeout=30)
            try:
                with connection:
                    return [tuple(str(v) for v in row) for row in connection.execute(sql)]
            finally:
                connection.close()
        done = subprocess.run(
            ["psql", "-X", "-q", "--csv", "-t", "-v", "ON_ERROR_STOP=1", self.postgresql or ""],
            input=f"SET search_path TO {service};\n{sql};\n",
            capture_output=True,
            text=True,
            check=True,
        )
        return [tuple(row) for row in csv.reader(io.StringIO(done.stdout))]

    def one(self, service: str, sql: str) -> int:
        """The single number that a statement gives."""
        [[value]] = self.rows(service, sql)
        return int(value)

    def settled(self, *, consumer: str, sources: Sequence[str] = SERVICES) -> bool:
        """Whether all that was committed is in its journal and `consumer` has read all events."""
        for service in sources:
            if self.one(service, f"SELECT count(*) FROM {service}_outbox"):
                return False
            last = self.one(
                service,
                f"SELECT coalesce(max(position), 0) FROM {service}_journal WHERE kind = 'event'",
            )
            read = self.one(
                "alerts",
                "SELECT coalesce(max(position), 0) FROM alerts_cursors"
                f" WHERE consumer = '{consumer}' AND source = '{service}'",
            )
            if read < last:
                return False
        return True
