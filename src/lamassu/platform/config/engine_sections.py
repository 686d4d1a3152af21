"""`crypto_engines`: a section for each kind of engine, spelt as the security guide spells it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, SecretStr

from lamassu.platform.config.sections import Port, Section, base_url


def _vault_path(text: str) -> str:
    """A mount's or a namespace's path, as `vault` takes it: a slash at its ends means nothing."""
    path = text.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*", path) or ".." in path.split("/"):
        raise ValueError("a path such as lamassu-pki")
    return path


class EngineSection(Section):
    """What every crypto engine has. `timeout_seconds` is how long a caller waits for a
    signature; `workers` how many calls run at once (each kind has its own default)."""

    kind: ClassVar[str] = ""  # the section's name
    for_ca_keys: ClassVar[bool] = True  # whether production makes keys of CAs there (rule 11)

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    metadata: Mapping[str, str] = Field(default_factory=dict)
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

    env: Mapping[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = Field(
        default_factory=dict
    )


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
    address: Annotated[str, base_url("https", "http")] | None = None
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
    endpoint_url: Annotated[str, base_url("https", "http")] | None = None
    sts_endpoint_url: Annotated[str, base_url("https", "http")] | None = None
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
