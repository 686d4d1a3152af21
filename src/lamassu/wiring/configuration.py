"""The configuration with the secrets that it names: who may ask engines for them, and how."""

from __future__ import annotations

import json
import threading
import time
from functools import partial
from pathlib import Path

from lamassu.kernel.errors import NotFound, RuleViolation
from lamassu.platform import config
from lamassu.platform.config import SecretReader
from lamassu.platform.config.engine_sections import EngineSection, SecretsManagerEngine, VaultEngine

SECONDS = 5.0  # for one secret
REMEMBERED_SECONDS = 60.0  # a start reads its configuration more than once


def open_secrets(section: EngineSection, folder: Path) -> SecretReader:
    """The secrets of one engine; a vendor's library is loaded only for the engine that it is
    for. Raises `RuleViolation` for an engine that holds none."""
    if isinstance(section, VaultEngine):
        from lamassu.services.kms.engines.vault import VaultSecrets
        from lamassu.wiring.vault_engines import access_of

        reader: SecretReader = VaultSecrets(
            access_of(section, folder),
            mount_path=section.secrets_mount_path,
            seconds=min(SECONDS, section.timeout_seconds),
        )
    elif isinstance(section, SecretsManagerEngine):
        reader = _SecretsManager(section)
    else:
        raise RuleViolation(f"engine {section.id} holds no secrets", code="secret_missing")
    return _Remembering(section.model_dump_json(), reader)


class _SecretsManager:
    """AWS's secrets are texts; one with fields is JSON, as AWS's own console writes it."""

    def __init__(self, section: SecretsManagerEngine) -> None:
        from lamassu.wiring.aws_engines import open_secrets_manager

        seconds = min(SECONDS, section.timeout_seconds)
        self._engine = open_secrets_manager(section.model_copy(update={"timeout_seconds": seconds}))

    def read_secret(self, name: str, field: str | None) -> str:
        text = self._engine.read_secret(name)
        if field is None:
            return text
        try:
            value = json.loads(text)[field]
        except (ValueError, KeyError, TypeError):
            raise NotFound(
                f"the secret {name} is no JSON object with a field {field}", code="secret_missing"
            ) from None
        return value if isinstance(value, str) else json.dumps(value)

    def close(self) -> None:
        self._engine.close()


_remembered: dict[tuple[str, str, str | None], tuple[float, str]] = {}
_lock = threading.Lock()


class _Remembering:
    """What was read a moment ago is not asked for again: a login spends a use of a secret id."""

    def __init__(self, section: str, reader: SecretReader) -> None:
        self._section = section
        self._reader = reader

    def read_secret(self, name: str, field: str | None) -> str:
        place = (self._section, name, field)
        with _lock:
            since, value = _remembered.get(place, (-REMEMBERED_SECONDS, ""))
        if time.monotonic() - since < REMEMBERED_SECONDS:
            return value
        value = self._reader.read_secret(name, field)
        with _lock:
            _remembered[place] = (time.monotonic(), value)
        return value

    def close(self) -> None:
        self._reader.close()


load = partial(config.load, secrets=open_secrets)
masked_text = partial(config.masked_text, secrets=open_secrets)
exposed_secrets = partial(config.exposed_secrets, secrets=open_secrets)
