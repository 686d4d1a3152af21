"""HashiCorp Vault as a crypto engine, and as a place that configuration values come from."""

from __future__ import annotations

from lamassu.services.kms.engines.vault.access import VaultAccess
from lamassu.services.kms.engines.vault.configuration import VaultSecrets
from lamassu.services.kms.engines.vault.engine import VaultEngine

__all__ = ["VaultAccess", "VaultEngine", "VaultSecrets"]
