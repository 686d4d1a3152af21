"""Configured crypto engines become objects; a kind's library is imported only if it is used."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Sequence
from pathlib import Path

import structlog

from lamassu.kernel.errors import NotFound, RuleViolation
from lamassu.platform.config import Settings
from lamassu.platform.config.engine_sections import CryptoEngines
from lamassu.platform.config.engine_sections import Pkcs11Engine as Pkcs11Section
from lamassu.platform.config.engine_sections import SoftwareEngine as SoftwareSection
from lamassu.platform.installation import Installation
from lamassu.services.kms.contract import EngineHealth
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.ports import CryptoEngine
from lamassu.services.kms.usecases.engines import EngineDirectory
from lamassu.wiring.configuration import load

log = structlog.get_logger(__name__)


async def engine_health(directory: Path) -> Sequence[EngineHealth]:
    """How each configured engine is, without a database; nothing is kept open.

    Raises a `LamassuError` that says what to do where an engine cannot even be constructed.
    """
    installation = Installation(directory)
    settings = load(installation.config)
    engines = EngineDirectory(
        await asyncio.to_thread(open_engines, installation, settings),
        default_id=settings.crypto_engines.chosen_id,
    )
    try:
        return await engines.health()
    finally:
        for engine in engines:
            await engine.close()


def open_engines(
    installation: Installation, settings: Settings, *, seal: bool = False
) -> list[CryptoEngine]:
    """Every engine of the configuration, in its order. Blocks: a keystore derives its key.

    Nothing remote is asked yet. With `seal`, keys that lie in clear in a keystore's directory
    are encrypted; production refuses them anyhow (security rule 10). Raises `NotFound` and
    `RuleViolation` with what to do.
    """
    engines = settings.crypto_engines
    return [
        *(_software(installation, settings, section, seal=seal) for section in engines.software),
        *(_pkcs11(installation, section) for section in engines.pkcs11),
        *_vault(installation, settings),
        *_aws(installation, engines),
    ]


def _software(
    installation: Installation, settings: Settings, section: SoftwareSection, *, seal: bool
) -> SoftwareEngine:
    secret = read_passphrase(installation.directory / section.passphrase_file)
    engine = SoftwareEngine.open(
        section.id,
        installation.directory / section.storage_directory,
        secret,
        metadata=dict(section.metadata),
        keeps_names=not settings.crypto_engines.migrate_keys_format,
    )
    if settings.mode == "production":
        engine.refuse_clear_keys()
    elif seal:
        sealing = engine.seal_clear_keys()
        if sealing.sealed:
            log.warning("clear_keys_encrypted", engine=section.id, keys=len(sealing.sealed))
        if sealing.left:
            log.warning("clear_keys_unreadable", engine=section.id, files=list(sealing.left))
    return engine


def _pkcs11(installation: Installation, section: Pkcs11Section) -> CryptoEngine:
    from lamassu.services.kms.engines.pkcs11 import open_engine

    return open_engine(
        section.id,
        token=section.token,
        serial=section.token_serial,
        pin=section.pin.get_secret_value().encode(),
        module_path=installation.directory / section.module_path,
        env=section.module_extra_options.env,
        # beside the database: a refused PIN stays refused after a restart
        refused_pins=installation.directory / "data" / "hsm",
        backup_key=section.backup_key if section.backup == "wrapped" else None,
        sessions=section.workers,
        timeout_seconds=section.timeout_seconds,
        metadata=dict(section.metadata),
    )


def _vault(installation: Installation, settings: Settings) -> list[CryptoEngine]:
    if not settings.crypto_engines.hashicorp_vault:
        return []
    from lamassu.wiring.vault_engines import open_vault_engines

    return open_vault_engines(installation, settings)


def _aws(installation: Installation, engines: CryptoEngines) -> list[CryptoEngine]:
    if not engines.aws_kms and not engines.aws_secrets_manager:
        return []
    from lamassu.wiring.aws_engines import open_aws_engines

    return open_aws_engines(installation, engines)


def read_passphrase(path: Path) -> bytes:
    """The keystore's, which others may not read. Raises `NotFound`, `RuleViolation`."""
    field = "crypto_engines.software.passphrase_file"
    try:
        mode = path.stat().st_mode
        secret = path.read_bytes().strip()
    except OSError as error:
        raise NotFound(
            f"the keystore's passphrase file {path} cannot be read: {error.strerror}",
            code="passphrase_missing",
            field=field,
        ) from None
    # The group may read: so systemd hands credentials to a service that is not root's.
    if mode & stat.S_IRWXO:
        raise RuleViolation(
            f"everybody may read the keystore's passphrase; run: chmod 600 {path}",
            code="passphrase_exposed",
            field=field,
        )
    return secret
