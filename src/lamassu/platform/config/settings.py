"""The configuration as typed values, spelt as the security guide spells it.

A section that is shown here and whose feature comes later is judged for its shape and named by
`not_yet_in_effect`; nothing is silently taken.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, ClassVar, Literal, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr
from pydantic import ValidationError as PydanticValidationError

from lamassu.kernel.errors import RuleViolation
from lamassu.platform.config.engine_forms import OTHER_FORMS, SECTION, by_kind
from lamassu.platform.config.faults import ConfigurationFaults, Fault
from lamassu.platform.config.yaml_input import Document
from lamassu.platform.database.dialect import Dialect
from lamassu.platform.database.settings import SSL_MODES, DatabaseSettings, ServiceUser
from lamassu.platform.security.cipher_suites import DEFAULT_SUITES, check_cipher_suite

Port = Annotated[int, Field(ge=0, le=65535)]


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


def _base_url(*schemes: str) -> AfterValidator:
    def check(text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme not in schemes or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"a URL such as {schemes[0]}://name:port")
        return text

    return AfterValidator(check)


def _vault_path(text: str) -> str:
    """A mount's or a namespace's path, as `vault` takes it: a slash at its ends means nothing."""
    path = text.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", path) or ".." in path.split("/"):
        raise ValueError("a path such as lamassu-pki")
    return path


class Section(BaseModel):
    """A part of the file: immutable, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


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
    public_urls: tuple[Annotated[str, _base_url("https", "http")], ...] = (
        "https://localhost:8443",
    )


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
    users: dict[str, PostgresUser] = {}


class EngineSection(Section):
    """What every crypto engine has. `timeout_seconds` is how long a caller waits for a
    signature; `workers` how many calls run at once (each kind has its own default)."""

    kind: ClassVar[str] = ""  # the section's name
    for_ca_keys: ClassVar[bool] = True  # whether production makes keys of CAs there (rule 11)

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    metadata: dict[str, str] = {}
    timeout_seconds: Annotated[float, Field(ge=0.1, le=120)] = 10
    workers: Annotated[int, Field(ge=1, le=256)] | None = None


class SoftwareEngine(EngineSection):
    """Keys encrypted in a directory: for development."""

    kind: ClassVar[str] = "software"
    for_ca_keys: ClassVar[bool] = False

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "software"
    storage_directory: Path = Path("keys")
    passphrase_file: Path = Path("secrets/keystore.pass")


class ModuleOptions(Section):
    """`module_extra_options`: environment variables that the vendor's library reads; their names
    keep their case."""

    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}


class Pkcs11Engine(EngineSection):
    """An HSM: a token, by its label, behind a vendor's library.

    `token_serial` chooses among tokens of one label. `backup: wrapped` makes new keys such that
    they can leave the token, encrypted under the trusted key of the label `backup_key`.
    """

    kind: ClassVar[str] = "pkcs11"

    token: str
    token_serial: str | None = None
    pin: SecretStr
    module_path: Path
    module_extra_options: ModuleOptions = ModuleOptions()
    backup: Literal["none", "wrapped"] = "none"
    backup_key: Annotated[str, Field(min_length=1, max_length=64)] = "lamassu-backup"


class VaultEngine(EngineSection):
    """HashiCorp Vault, found at `address` or at `protocol`, `hostname`, `port`.

    `mount_path` is a KV v2 or Transit mount; `secrets_mount_path` the KV v2 mount that
    `${secret:...}` reads, for who keeps keys in Transit.
    """

    kind: ClassVar[str] = "hashicorp_vault"

    role_id: SecretStr
    secret_id: SecretStr
    auto_unseal_enabled: bool = False
    auto_unseal_keys: tuple[SecretStr, ...] = ()
    mount_path: Annotated[str, AfterValidator(_vault_path)]
    secrets_mount_path: Annotated[str, AfterValidator(_vault_path)] | None = None
    namespace: Annotated[str, AfterValidator(_vault_path)] | None = None
    address: Annotated[str, _base_url("https", "http")] | None = None
    protocol: Literal["https", "http"] = "https"
    hostname: str | None = None
    port: Port = 8200
    base_path: str = ""
    insecure_skip_verify: bool = False
    ca_cert_file: Path | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        if self.address is not None:
            return self.address.rstrip("/")
        base = self.base_path.strip("/")
        return f"{self.protocol}://{self.hostname}:{self.port}" + (f"/{base}" if base else "")


class AwsEngine(EngineSection):
    """An AWS service. `static` uses the keys given here, `role` assumes `role_arn`, anything
    else is the default credentials chain. `endpoint_url` stands for STS too, unless
    `sts_endpoint_url` is given."""

    region: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    auth_method: str = "default"
    endpoint_url: Annotated[str, _base_url("https", "http")] | None = None
    sts_endpoint_url: Annotated[str, _base_url("https", "http")] | None = None
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    role_arn: Annotated[str, Field(pattern=r"^arn:[a-z-]+:iam::\d{12}:role/\S+$")] | None = None


class AwsKmsEngine(AwsEngine):
    """AWS KMS. `key_spec` is what is offered first where somebody chooses; it forbids nothing:
    who asks for a key says which."""

    kind: ClassVar[str] = "aws_kms"

    key_spec: Literal[
        "RSA_2048",
        "RSA_3072",
        "RSA_4096",
        "ECC_NIST_P256",
        "ECC_NIST_P384",
        "ECC_NIST_P521",
        "ECC_NIST_EDWARDS25519",
        "ML_DSA_44",
        "ML_DSA_65",
        "ML_DSA_87",
    ] = "RSA_4096"
    key_usage: Literal["SIGN_VERIFY"] = "SIGN_VERIFY"


class SecretsManagerEngine(AwsEngine):
    """AWS Secrets Manager."""

    kind: ClassVar[str] = "aws_secrets_manager"
    for_ca_keys: ClassVar[bool] = False


class CryptoEngines(Section):
    """`crypto_engines`, by kind; `default_id` names the one that new keys go to.

    Without `default_id` that is the only engine there is.
    """

    default_id: str | None = None
    migrate_keys_format: bool = False  # the original's: old names of keys are forgotten
    log_level: str | None = None  # the original's
    software: tuple[SoftwareEngine, ...] = ()
    pkcs11: tuple[Pkcs11Engine, ...] = ()
    hashicorp_vault: tuple[VaultEngine, ...] = ()
    aws_kms: tuple[AwsKmsEngine, ...] = ()
    aws_secrets_manager: tuple[SecretsManagerEngine, ...] = ()

    @property
    def all(self) -> list[EngineSection]:
        """Every engine, of every kind."""
        return [
            *self.software,
            *self.pkcs11,
            *self.hashicorp_vault,
            *self.aws_kms,
            *self.aws_secrets_manager,
        ]

    @property
    def ids(self) -> list[str]:
        """Of all engines, of every kind."""
        return [engine.id for engine in self.all]

    @property
    def chosen(self) -> EngineSection:
        """The engine that new keys go to."""
        return next(engine for engine in self.all if engine.id == self.chosen_id)

    @property
    def chosen_id(self) -> str:
        """The engine that new keys go to."""
        return self.default_id or self.ids[0]


class Va(Section):
    """`va`: bases of the OCSP, CRL and CA certificate addresses that certificates carry."""

    public_urls: tuple[Annotated[str, _base_url("http")], ...] = ("http://127.0.0.1:8080",)


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


class Upstream(Section):
    """`est`: where an EST edge in a process of its own asks, and as whom."""

    upstream: Annotated[str, _base_url("https")]
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
    va: Va = Va()
    dms: Dms = Dms()
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


def judge(document: Document, source: str) -> Settings:
    """Make settings of a file's values. Raises `ConfigurationFaults` with every fault."""
    sorted_document, places = by_kind(document)
    try:
        return _judge(sorted_document, source)
    except ConfigurationFaults as error:
        faults = [places.as_written(fault) for fault in error.faults]
        raise ConfigurationFaults(source, faults) from None


def _judge(document: Document, source: str) -> Settings:
    faults = list(document.faults)
    known = {fault.path for fault in faults}
    try:
        settings = Settings.model_validate(document.values)
    except PydanticValidationError as error:
        found = [_fault(dict(one), document) for one in error.errors()]
        # a value that could not be read has nothing more to say
        faults += [fault for fault in found if fault.path not in known]
        raise ConfigurationFaults(source, faults) from None
    found = [*_contradictions(settings), *_never_in_clear(settings.crypto_engines, document)]
    faults += [fault for fault in found if fault.path not in known]
    if faults:
        raise ConfigurationFaults(source, faults)
    settings._secrets_in_clear = tuple(_clear_secrets(settings.crypto_engines, document))
    return settings


def _never_in_clear(engines: CryptoEngines, document: Document) -> list[Fault]:
    """A PIN and an unseal key never stand in the file, in no mode: who reads one can use every
    key, or open the vault that holds them."""
    pins = [f"crypto_engines.pkcs11[{index}].pin" for index in range(len(engines.pkcs11))]
    shares = [
        f"crypto_engines.hashicorp_vault[{index}].auto_unseal_keys[{place}]"
        for index, vault in enumerate(engines.hashicorp_vault)
        for place in range(len(vault.auto_unseal_keys))
    ]
    found = dict.fromkeys(pins, "a PIN in clear") | dict.fromkeys(shares, "an unseal key in clear")
    return [
        Fault(path, what, '"${VARIABLE}" or "${file:PATH}"')
        for path, what in found.items()
        if path not in document.referred
    ]


def _different_environments(engines: CryptoEngines) -> list[Fault]:
    """A process has one environment: two libraries cannot see one variable differently."""
    faults: list[Fault] = []
    given: dict[str, str] = {}
    for index, engine in enumerate(engines.pkcs11):
        for name, value in engine.module_extra_options.env.items():
            if given.setdefault(name, value) != value:
                where = f"crypto_engines.pkcs11[{index}].module_extra_options.env.{name}"
                wanted = "one value for every engine of this process"
                faults.append(Fault(where, "another value than an engine before it has", wanted))
    return faults


def _contradictions(settings: Settings) -> list[Fault]:
    faults = []
    if settings.database is not None and settings.postgres is not None:
        faults.append(Fault("database", "a URL beside postgres", "one of database and postgres"))
    elif settings.database is not None:
        try:
            DatabaseSettings.from_url(settings.database.url.get_secret_value())
        except RuleViolation as error:
            faults.append(Fault("database.url", "a URL that is none", error.text))
    engines = settings.crypto_engines
    ids = engines.ids
    faults += [
        Fault("crypto_engines", f"the id {one} twice", "each id once")
        for one in sorted({one for one in ids if ids.count(one) > 1})
    ]
    if not ids:
        faults.append(Fault("crypto_engines", "no engine", "an engine, such as under software"))
    faults += [
        Fault(f"crypto_engines.hashicorp_vault[{index}].address", "nothing", "https://name:port")
        for index, vault in enumerate(engines.hashicorp_vault)
        if vault.address is None and vault.hostname is None
    ]
    faults += [
        fault
        for kind in ("aws_kms", "aws_secrets_manager")
        for index, engine in enumerate(getattr(engines, kind))
        for fault in _aws_faults(f"crypto_engines.{kind}[{index}]", engine)
    ]
    faults += _different_environments(engines)
    folders = [engine.storage_directory for engine in engines.software]
    if len(set(folders)) < len(folders):
        where = "crypto_engines.software"
        faults.append(Fault(where, "a storage_directory twice", "a folder of its own for each"))
    if ids and engines.default_id is None and len(ids) > 1:
        allowed = f"one of {', '.join(ids)}"
        faults.append(Fault("crypto_engines.default_id", "nothing", allowed))
    elif engines.default_id not in (None, *ids):
        found = "an id that is none of theirs"
        faults.append(Fault("crypto_engines.default_id", found, ", ".join(ids)))
    return faults


def _aws_faults(where: str, engine: AwsEngine) -> list[Fault]:
    """Each way to authenticate has its keys, and no other's: one that is not used misleads."""
    belongs = {
        "static": ("access_key_id", "secret_access_key"),
        "role": ("role_arn",),
    }
    faults = []
    for method, keys in belongs.items():
        uses = engine.auth_method == method
        optional = ("session_token",) if method == "static" else ()
        for key in (*keys, *optional):
            given = getattr(engine, key) is not None
            if given and not uses:
                found = f"a value beside auth_method {engine.auth_method}"
                faults.append(Fault(f"{where}.{key}", found, f"auth_method: {method}, or no value"))
            elif uses and not given and key in keys:
                faults.append(
                    Fault(f"{where}.{key}", "nothing", f"a value, for auth_method {method}")
                )
    return faults


def _clear_secrets(engines: CryptoEngines, document: Document) -> Iterator[str]:
    """The paths of engines' secrets that stand in the file themselves."""
    for kind in type(engines).model_fields:
        sections = getattr(engines, kind)
        for index, section in enumerate(sections if isinstance(sections, tuple) else ()):
            for name in type(section).model_fields:
                path = f"crypto_engines.{kind}[{index}].{name}"
                if name in _NAMES_ONLY or path in document.referred:
                    continue
                value = getattr(section, name)
                if isinstance(value, SecretStr):
                    yield path
                elif isinstance(value, tuple):
                    yield from (
                        f"{path}[{place}]"
                        for place, one in enumerate(value)
                        if isinstance(one, SecretStr)
                        and f"{path}[{place}]" not in document.referred
                    )


_NAMES_ONLY = frozenset({"access_key_id", "role_id"})  # worth masking, no secret by themselves
_SECRET_FIELDS = frozenset(
    {
        "password",
        "pin",
        "role_id",
        "secret_id",
        "auto_unseal_keys",
        "access_key_id",
        "secret_access_key",
        "session_token",
        "url",
    }
)


_NOT_A_SECTION = frozenset({"model_type", "dict_type", "list_type", "tuple_type"})


def _fault(error: dict[str, object], document: Document) -> Fault:
    location = cast("tuple[str | int, ...]", error["loc"])
    path = _path(location)
    kind = str(error["type"])
    if kind == "extra_forbidden":
        return Fault(path, "a key that is not known", _near(str(location[-1]), location[:-1]))
    if kind == "missing":
        return Fault(path, "nothing", "a value, which is required")
    context = error.get("ctx")
    expected = context.get("expected") if isinstance(context, dict) else None
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if kind in _NOT_A_SECTION:
        # never the value: a secret may stand where its section should
        text = "a list" if kind in {"list_type", "tuple_type"} else "a mapping"
        return Fault(path, _kind_of(_at(document.values, location)), text)
    secret = path in document.referred or not _SECRET_FIELDS.isdisjoint(location)
    found = "a value that is not shown" if secret else _shown(_at(document.values, location))
    return Fault(path, found, str(expected or text))


def _near(key: str, section: tuple[str | int, ...]) -> str:
    """The keys that would have been taken, the one that was meant before all."""
    keys = sorted({*_keys_at(section), *(OTHER_FORMS if section == (SECTION,) else ())})
    near = get_close_matches(key.lower(), keys, n=1)
    return ", ".join(keys) + (f" (did you mean {near[0]}?)" if near else "")


def _path(location: tuple[object, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _at(values: object, location: tuple[object, ...]) -> object:
    for part in location:
        try:
            values = values[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return values
    return values


def _kind_of(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "a text" if isinstance(value, str) else "a number or the like"


def _shown(value: object) -> str:
    if value is None or isinstance(value, dict | list):
        return _kind_of(value)
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _keys_at(location: tuple[object, ...]) -> list[str]:
    """The keys that a section takes, found by walking the types of its path."""
    model: object = Settings
    for part in location:
        if isinstance(part, int):
            continue
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return ["nothing"]
        model = _section_in(fields[part].annotation)
    return sorted(getattr(model, "model_fields", {}))


def _section_in(annotation: object) -> object:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section_in(inner)
        if found is not None:
            return found
    return None
