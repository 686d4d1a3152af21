"""The configuration as typed values, spelt as the security guide spells it.

A section that is shown here and whose feature comes later is judged for its shape and named by
`not_yet_in_effect`; nothing is silently taken.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr

from lamassu.kernel.errors import LamassuError, RuleViolation
from lamassu.kernel.signed_note import parse_verifier_key
from lamassu.kernel.wire_text import parse_duration
from lamassu.platform.config.engine_sections import CryptoEngines, SoftwareEngine
from lamassu.platform.config.sections import Port, Section, base_url
from lamassu.platform.database.dialect import Dialect
from lamassu.platform.database.settings import SSL_MODES, DatabaseSettings, ServiceUser
from lamassu.platform.security.cipher_suites import DEFAULT_SUITES, check_cipher_suite


def _known_suite(name: str) -> str:
    try:
        check_cipher_suite(name)
    except RuleViolation as error:
        raise ValueError(error.text.partition("; allowed are ")[2] or error.text) from None
    return name


def _known_ssl_mode(mode: str) -> str:
    if mode not in SSL_MODES:
        raise ValueError(f"one of {', '.join(SSL_MODES)}")
    return mode


def _address(text: str) -> str:
    if text != "localhost":
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise ValueError("an IP address of this host, 0.0.0.0 for all, or localhost") from None
    return text


class Tls(Section):
    """`http.tls`."""

    cert_file: Path = Path("tls/server.crt")
    key_file: Path = Path("tls/server.key")
    min_version: Literal["TLS12", "TLS13"] = "TLS12"
    cipher_suites: tuple[Annotated[str, AfterValidator(_known_suite)], ...] = DEFAULT_SUITES


class ClientAuth(Section):
    """`http.client_auth`: `required` means 401 under /api without a certificate (decision 2)."""

    enabled: bool = True
    ca_file: Path = Path("tls-ca.crt")
    required: bool = False


class Http(Section):
    """`http`: the listener of REST APIs and EST."""

    port: Port = 8443
    protocol: Literal["https"] = "https"
    tls: Tls = Tls()
    client_auth: ClientAuth = ClientAuth()


class Server(Section):
    """`server`: addresses and ports beside the main one, and the names that clients use."""

    listen_address: Annotated[str, AfterValidator(_address)] = "127.0.0.1"
    http_port: Port = 8080
    internal_port: Port = 8444
    public_urls: tuple[Annotated[str, base_url("https", "http")], ...] = ("https://localhost:8443",)


class DatabaseUrl(Section):
    """`database`: where data is kept, as a URL."""

    url: SecretStr = SecretStr("sqlite:///data/lamassu.db")


class PostgresUser(Section):
    """A role of its own for one service."""

    username: str
    password: SecretStr = SecretStr("")


class Postgres(Section):
    """`postgres`: in place of `database.url`."""

    hostname: str
    port: Port = 5432
    database: str = "lamassu"
    username: str
    password: SecretStr = SecretStr("")
    sslmode: Annotated[str, AfterValidator(_known_ssl_mode)] = "require"
    sslcert: Path | None = None
    sslkey: Path | None = None
    sslrootcert: Path | None = None
    pool_size: Annotated[int, Field(ge=1, le=100)] = 8
    users: Mapping[str, PostgresUser] = Field(default_factory=dict)


class Va(Section):
    """`va`: bases of the OCSP, CRL and CA certificate addresses that certificates carry."""

    public_urls: tuple[Annotated[str, base_url("http")], ...] = ("http://127.0.0.1:8080",)


def _duration(text: str) -> str:
    try:
        length = parse_duration(text)
    except ValueError as error:
        raise ValueError(f"a duration such as 10m; {error}") from None
    if length < timedelta(seconds=1):
        raise ValueError("at least 1s")
    return text


class MonitoringJob(Section):
    """`ca.certificate_monitoring_job`: how often it is looked what ended, and what is about to."""

    enabled: bool = True
    frequency: Annotated[str, AfterValidator(_duration)] = "10m"

    @property
    def period(self) -> timedelta:
        return parse_duration(self.frequency)


class Ca(Section):
    """`ca`: `allow_cascade_delete` lets a CA be deleted with all that it issued; `lint_sample` is
    the share of issued certificates that all linters read afterwards."""

    allow_cascade_delete: bool = False
    certificate_monitoring_job: MonitoringJob = MonitoringJob()
    lint_sample: Annotated[float, Field(ge=0, le=1)] = 0.01


class Dms(Section):
    """`dms`: what stands in where a DMS names none, and the CAs of bootstrap certificates."""

    enrollment_ca: str = "manufacturing-ca"
    issuance_profile: str = "device-profile"
    bootstrap_cas: tuple[str, ...] = ("bootstrap-ca",)
    allow_unverified_csr: bool = False


class SecurityEvents(Section):
    """`logs.security_events`."""

    enabled: bool = True
    log_authentication: bool = True
    log_authorization: bool = True
    log_ca_operations: bool = True
    log_certificate_issuance: bool = True


class Logs(Section):
    """`logs`."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"
    security_events: SecurityEvents | None = None


class OtelSignal(Section):
    """One of the three signals."""

    enabled: bool = False
    interval_in_millis: Annotated[int, Field(ge=1000)] = 10000
    hostname: str = "localhost"
    port: Port = 4318
    scheme: Literal["http", "https"] = "https"
    base_path: str = ""


class Otel(Section):
    """`otel`."""

    metrics: OtelSignal = OtelSignal()
    traces: OtelSignal = OtelSignal()
    logging: OtelSignal = OtelSignal()


class Jwt(Section):
    """`identity_extractors.jwt`."""

    enabled: bool = False
    validate_signature: bool = True
    issuer: str = ""
    audience: str = ""
    public_key_url: str = ""
    required_claims: tuple[str, ...] = ("sub", "exp", "iat")


class IdentityExtractors(Section):
    """`identity_extractors`."""

    jwt: Jwt = Jwt()


def _verifier_key(text: str) -> str:
    try:
        parse_verifier_key(text)
    except LamassuError as error:
        raise ValueError(error.text) from None
    return text


class LogWitness(Section):
    """One of `log.witnesses`: an installation that signs this one's heads, and as whom it is
    asked."""

    url: Annotated[str, base_url("https")]
    key: Annotated[str, AfterValidator(_verifier_key)]
    cert_file: Path
    key_file: Path
    ca_file: Path


class IssuanceLogSettings(Section):
    """`log`: the issuance log's name, its witnesses, and the logs that are witnessed here."""

    origin: str = ""
    witnesses: Annotated[tuple[LogWitness, ...], Field(max_length=16)] = ()
    witnessed: Annotated[
        tuple[Annotated[str, AfterValidator(_verifier_key)], ...], Field(max_length=1000)
    ] = ()


class Upstream(Section):
    """`est`: where an EST edge in a process of its own asks, and as whom."""

    upstream: Annotated[str, base_url("https")]
    cert_file: Path = Path("est.crt")
    key_file: Path = Path("est.key")
    ca_file: Path = Path("tls-ca.crt")


class Settings(Section):
    """The whole file."""

    mode: Literal["production", "development"] = "production"
    http: Http = Http()
    server: Server = Server()
    database: DatabaseUrl | None = None
    postgres: Postgres | None = None
    crypto_engines: CryptoEngines = CryptoEngines(
        default_id="software", software=(SoftwareEngine(),)
    )
    ca: Ca = Ca()
    va: Va = Va()
    dms: Dms = Dms()
    log: IssuanceLogSettings = IssuanceLogSettings()
    logs: Logs = Logs()
    otel: Otel | None = None
    identity_extractors: IdentityExtractors | None = None
    est: Upstream | None = None
    _secrets_in_clear: tuple[str, ...] = PrivateAttr(default=())

    @property
    def secrets_in_clear(self) -> Sequence[str]:
        """Paths of engines' secrets that stand in the file itself, not in a variable or file
        that it names."""
        return self._secrets_in_clear

    def database_settings(self, directory: Path) -> DatabaseSettings:
        """Where the data is; a relative SQLite path counts from `directory`."""
        if self.postgres is not None:
            return _postgres_settings(self.postgres, directory)
        url = (self.database or DatabaseUrl()).url.get_secret_value()
        settings = DatabaseSettings.from_url(url)
        if settings.path is not None:
            return DatabaseSettings(Dialect.SQLITE, path=directory / settings.path)
        return settings


def _postgres_settings(section: Postgres, directory: Path) -> DatabaseSettings:
    def file(path: Path | None) -> Path | None:
        return None if path is None else directory / path

    return DatabaseSettings(
        Dialect.POSTGRESQL,
        host=section.hostname,
        port=section.port,
        database=section.database,
        username=section.username,
        password=section.password.get_secret_value(),
        service_users={
            name: ServiceUser(user.username, user.password.get_secret_value())
            for name, user in section.users.items()
        },
        sslmode=section.sslmode,
        sslrootcert=file(section.sslrootcert),
        sslcert=file(section.sslcert),
        sslkey=file(section.sslkey),
        pool_size=section.pool_size,
    )
