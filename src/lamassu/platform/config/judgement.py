"""What a configuration that reads well still means: what is not built, what must not start."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from lamassu.kernel.errors import RuleViolation
from lamassu.platform.config.engine_sections import VaultEngine
from lamassu.platform.config.faults import Fault
from lamassu.platform.config.settings import ClientAuth, Settings
from lamassu.platform.database.dialect import Dialect


def not_yet_in_effect(settings: Settings) -> list[str]:
    """The sections that were given and change nothing yet, each with what that means."""
    notes = []
    if settings.http.client_auth.ca_file != ClientAuth().ca_file:
        notes.append(
            "http.client_auth.ca_file: only this installation's internal CA makes principals yet"
        )
    if settings.logs.security_events is not None:
        notes.append("logs.security_events: every event is in the journal; no log of its own yet")
    if settings.crypto_engines.log_level is not None:
        notes.append("crypto_engines.log_level: logs.level is every service's")
    if settings.otel is not None:
        notes.append("otel: nothing is exported yet")
    if settings.identity_extractors is not None:
        notes.append("identity_extractors: tokens are refused; only certificates authenticate yet")
    return notes


def start_faults(settings: Settings, directory: Path) -> list[Fault]:
    """What must keep a platform from starting."""
    faults = []
    if not settings.http.client_auth.enabled:
        faults.append(
            Fault(
                "http.client_auth.enabled",
                "false",
                "true: certificates are the only authentication yet",
            )
        )
    if settings.dms.allow_unverified_csr:
        faults.append(
            Fault(
                "dms.allow_unverified_csr",
                "true",
                "false: the signature of every CSR is verified yet",
            )
        )
    if settings.mode == "production":
        faults += _production_faults(settings, directory)
    return faults


def _production_faults(settings: Settings, directory: Path) -> list[Fault]:
    faults = []
    for engine in settings.crypto_engines.software:
        path = (directory / engine.passphrase_file).resolve()
        if path.is_relative_to(directory.resolve()):
            faults.append(
                Fault(
                    "crypto_engines.software.passphrase_file",
                    f"{path}, beside the keys that it opens",
                    "a file outside the installation, such as a systemd credential",
                )
            )
    for where, url in _aws_addresses(settings):
        parts = urlsplit(url)
        if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            faults.append(Fault(where, "http://", "https://: keys and secrets go that way"))
    return [
        *faults,
        *(
            fault
            for index, vault in enumerate(settings.crypto_engines.hashicorp_vault)
            for fault in vault_faults(f"crypto_engines.hashicorp_vault[{index}]", vault)
        ),
    ]


def vault_faults(where: str, vault: VaultEngine) -> list[Fault]:
    """What production refuses of a Vault's section, which stands at `where`."""
    faults = []
    parts = urlsplit(vault.url)
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        field = "protocol" if vault.address is None else "address"
        faults.append(
            Fault(f"{where}.{field}", "http", "https: the secret id and keys go that way")
        )
    if vault.insecure_skip_verify:
        wanted = "false, and the CA of Vault's listener in ca_cert_file"
        faults.append(Fault(f"{where}.insecure_skip_verify", "true", wanted))
    return faults


def _aws_addresses(settings: Settings) -> Iterator[tuple[str, str]]:
    engines = settings.crypto_engines
    for section in (*engines.aws_kms, *engines.aws_secrets_manager):
        for name in ("endpoint_url", "sts_endpoint_url"):
            url = getattr(section, name)
            if url is not None:
                yield f"crypto_engines.{section.kind}.{name}", url


def check_start(settings: Settings, directory: Path) -> None:
    """Raise `RuleViolation` (`configuration_faults`) with all that keeps it from starting."""
    faults = start_faults(settings, directory)
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise RuleViolation(
            f"this configuration cannot start:\n{lines}", code="configuration_faults"
        )


def warnings(settings: Settings) -> list[str]:
    """What starts all the same and should be known."""
    texts = []
    if settings.mode == "development" and not _is_loopback(settings.server.listen_address):
        texts.append(
            f"development mode listens on {settings.server.listen_address}, beyond this host:"
            " admins live 30 days, keys lie beside their passphrase"
        )
    if settings.mode == "production" and _database_is_unverified(settings):
        texts.append(
            "the database's certificate is not verified: anybody between can pose as the"
            " database; set sslmode verify-full and sslrootcert"
        )
    texts += [
        f"{path} is a secret in clear; name a variable or file in its place: ${{NAME}},"
        " ${file:PATH}"
        for path in settings.secrets_in_clear
    ]
    if settings.mode == "production":
        texts += _findings_about_keys(settings)
    return texts


def _findings_about_keys(settings: Settings) -> list[str]:
    """What security rule 11 says of engines in production."""
    engines = settings.crypto_engines
    return [
        *(
            f"high: engine {engine.id} ({engine.kind}) gets no new keys of CAs in production; move"
            " those that it has with lamassu key move, or give their CAs new ones in another engine"
            for engine in engines.all
            if not engine.for_ca_keys
        ),
        *(
            f"high: auto_unseal_keys of engine {vault.id}: whoever reads this configuration can"
            " unseal Vault; let it unseal itself by a cloud KMS or an HSM, and remove them here"
            for vault in engines.hashicorp_vault
            if vault.auto_unseal_keys
        ),
    ]


def _database_is_unverified(settings: Settings) -> bool:
    database = settings.database_settings(Path())
    if database.dialect is not Dialect.POSTGRESQL or database.host.startswith("/"):
        return False
    verifies = database.sslmode in {"verify-ca", "verify-full"}
    return not (verifies or (database.sslmode == "require" and database.sslrootcert))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
