"""Secrets of Vault as values of our configuration: `${secret:engine/path#field}`."""

from __future__ import annotations

import json
import re

from lamassu.kernel.errors import NotFound, RuleViolation
from lamassu.services.kms.engines.vault.access import VaultAccess
from lamassu.services.kms.engines.vault.errors import VaultAnswer
from lamassu.services.kms.engines.vault.session import VaultSession
from lamassu.services.kms.ports import EngineRefused

_KEY_ID = re.compile(r"[0-9a-f]{64}")


class VaultSecrets:
    """Reads from one KV v2 mount, which is `mount_path` unless another is given."""

    def __init__(self, access: VaultAccess, *, mount_path: str | None, seconds: float) -> None:
        self._mount = mount_path or access.mount_path
        self._session = VaultSession(access, at_once=2, seconds=seconds)

    def read_secret(self, name: str, field: str | None = None) -> str:
        """A field of the secret; without a name its only one.

        Raises `NotFound` (`secret_missing`), `EngineRefused` (`access_denied`, ...),
        `EngineDown`, `RuleViolation` (`secret_is_key`,
        `secret_empty`, `secret_ambiguous`).
        """
        if _KEY_ID.fullmatch(name.rpartition("/")[2]):
            raise RuleViolation(
                f"{name} is a private key; name another secret", code="secret_is_key"
            )
        try:
            data = self._session.fetch(f"{self._mount}/data/{name}")
        except VaultAnswer as refusal:
            if refusal.status not in (400, 404, 405):
                raise
            raise NotFound(
                f"{self._session.access.who} has no secret {name} in {self._mount}, or that is no"
                " KV v2 mount; write it with vault kv put, or name the mount in"
                " secrets_mount_path",
                code="secret_missing",
            ) from None
        except EngineRefused as refusal:
            if refusal.code != "access_denied":
                raise
            raise EngineRefused(
                f"{self._session.access.who}: the policy of the AppRole does not allow to read"
                f" {self._mount}/data/{name}; allow it, or name the mount in secrets_mount_path",
                code="access_denied",
            ) from None
        fields = data.get("data")
        if not isinstance(fields, dict) or not fields:
            raise RuleViolation(f"the secret {name} is empty", code="secret_empty")
        if field is None and len(fields) > 1:
            raise RuleViolation(
                f"the secret {name} has {len(fields)} fields; name one of them: {name}#FIELD",
                code="secret_ambiguous",
            )
        if field is not None and field not in fields:
            raise NotFound(f"the secret {name} has no field {field}", code="secret_missing")
        value = fields[field] if field is not None else next(iter(fields.values()))
        return value if isinstance(value, str) else json.dumps(value)

    def close(self) -> None:
        """Give the token back."""
        self._session.close()
