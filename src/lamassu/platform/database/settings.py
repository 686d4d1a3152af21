"""How to reach the database, as values."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from lamassu.kernel.errors import RuleViolation
from lamassu.platform.database.dialect import Dialect

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True, slots=True)
class ServiceUser:
    """The role under which one service logs in; it needs no right to change the schema."""

    username: str
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """One SQLite file (`path`) or one PostgreSQL database with a schema per service.

    `service_users` maps a service's name to its own role; others use `username`.
    `pool_size` bounds the connections of each service (readers, on SQLite).
    `patience` is how long a unit waits for its turn, a lock or a statement before it gives up.
    `list_patience` is how long a statement of a list may take: what no index serves ends there.
    `durable` false leaves out SQLite's syncs: for tests only.
    """

    dialect: Dialect
    path: Path | None = None
    host: str = "localhost"
    port: int = 5432
    database: str = "lamassu"
    username: str = "lamassu"
    password: str = field(default="", repr=False)
    service_users: Mapping[str, ServiceUser] = field(default_factory=dict)
    sslmode: str = "prefer"
    sslrootcert: Path | None = None
    sslcert: Path | None = None
    sslkey: Path | None = None
    pool_size: int = 8
    connect_timeout: timedelta = timedelta(seconds=5)
    patience: timedelta = timedelta(seconds=10)
    list_patience: timedelta = timedelta(seconds=2)
    durable: bool = True

    @classmethod
    def from_url(cls, url: str) -> DatabaseSettings:
        """`postgresql://user:pass@host:port/name?sslmode=…` or `sqlite:///path` (relative),
        `sqlite:////path` (absolute).

        Raises `RuleViolation` (`invalid_database_url`), whose text never repeats the password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise _bad_url("cannot be read") from error
        if parts.scheme == "sqlite":
            return _sqlite(parts.netloc, unquote(parts.path))
        if parts.scheme not in ("postgresql", "postgres"):
            raise _bad_url("begins with neither postgresql:// nor sqlite:///")
        options = dict(parse_qsl(parts.query))
        unknown = options.keys() - {"sslmode", "sslrootcert", "sslcert", "sslkey"}
        if unknown:
            raise _bad_url(f"has unknown options: {', '.join(sorted(unknown))}")
        return cls(
            Dialect.POSTGRESQL,
            host=parts.hostname or "localhost",
            port=port or 5432,
            database=unquote(parts.path.lstrip("/")) or "lamassu",
            username=unquote(parts.username or "lamassu"),
            password=unquote(parts.password or ""),
            sslmode=_ssl_mode(options.get("sslmode", "prefer")),
            sslrootcert=_path(options.get("sslrootcert")),
            sslcert=_path(options.get("sslcert")),
            sslkey=_path(options.get("sslkey")),
        )

    def login(self, service: str | None) -> ServiceUser:
        """The role that a service (or, with `None`, the migration) logs in with."""
        own = self.service_users.get(service) if service else None
        return own or ServiceUser(self.username, self.password)


def tls_of(settings: DatabaseSettings) -> ssl.SSLContext | str | bool:
    """What asyncpg takes as `ssl`, meaning what libpq means by the same words.

    As with libpq, `require` with a root certificate verifies the chain. Raises `RuleViolation`
    for files that cannot be used.
    """
    mode = settings.sslmode
    if mode == "disable":
        return False
    if mode in ("allow", "prefer") and not settings.sslcert:
        return mode
    try:
        return _context(settings)
    except OSError as error:  # ssl.SSLError is one
        raise RuleViolation(
            f"the files for TLS to the database cannot be used: {error.strerror or error}",
            code="invalid_database_tls",
            field="sslrootcert",
        ) from error


def _context(settings: DatabaseSettings) -> ssl.SSLContext:
    mode = settings.sslmode
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = mode == "verify-full"
    if settings.sslrootcert:
        context.load_verify_locations(cafile=str(settings.sslrootcert))
    elif mode.startswith("verify"):
        context.load_default_certs()
    else:
        context.verify_mode = ssl.CERT_NONE
    if settings.sslcert:
        context.load_cert_chain(str(settings.sslcert), _text(settings.sslkey))
    return context


def _sqlite(netloc: str, path: str) -> DatabaseSettings:
    if netloc or len(path) < 2:
        raise _bad_url("needs a path: sqlite:///relative or sqlite:////absolute")
    return DatabaseSettings(Dialect.SQLITE, path=Path(path[1:]))


def _ssl_mode(text: str) -> str:
    if text not in SSL_MODES:
        raise _bad_url(f"has an unknown sslmode; allowed: {', '.join(SSL_MODES)}")
    return text


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _text(path: Path | None) -> str | None:
    return str(path) if path else None


def _bad_url(what: str) -> RuleViolation:
    return RuleViolation(f"the database URL {what}", code="invalid_database_url", field="database")
