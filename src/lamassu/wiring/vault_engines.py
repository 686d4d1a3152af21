"""The configuration's Vault engines as objects. Imported only where one is configured."""

from __future__ import annotations

from pathlib import Path

from lamassu.platform.config import Settings
from lamassu.platform.config.engine_sections import VaultEngine as VaultSection
from lamassu.platform.installation import Installation
from lamassu.services.kms.engines.vault import VaultAccess, VaultEngine
from lamassu.services.kms.engines.vault.engine import WORKERS
from lamassu.services.kms.ports import CryptoEngine, EngineLimits
from lamassu.wiring.mark import installation_mark


def open_vault_engines(installation: Installation, settings: Settings) -> list[CryptoEngine]:
    """Every Vault engine, in configured order. Nothing is asked yet."""
    mark = installation_mark(installation)
    development = settings.mode == "development"
    return [
        VaultEngine(
            section.id,
            access_of(section, installation.directory, may_mount=development),
            limits=EngineLimits(
                workers=section.workers or WORKERS, sign_seconds=section.timeout_seconds
            ),
            installation=mark,
            metadata=dict(section.metadata),
        )
        for section in settings.crypto_engines.hashicorp_vault
    ]


def access_of(section: VaultSection, directory: Path, *, may_mount: bool = False) -> VaultAccess:
    """Where Vault is and as whom we come; a relative CA file counts from `directory`."""
    ca_file = section.ca_cert_file
    return VaultAccess(
        engine_id=section.id,
        url=section.url,
        mount_path=section.mount_path,
        role_id=section.role_id.get_secret_value(),
        secret_id=section.secret_id.get_secret_value(),
        namespace=section.namespace,
        ca_file=None if ca_file is None else directory / ca_file,
        insecure_skip_verify=section.insecure_skip_verify,
        may_mount=may_mount,
        auto_unseal=section.auto_unseal_enabled,
        unseal_keys=tuple(key.get_secret_value() for key in section.auto_unseal_keys),
    )
