"""`${secret:engine/name}`: a value that a crypto engine of the same file holds (decision 34).

The engines are read first. One that secrets come from stands on its own feet: its own section
names variables and files, and no secrets. `name#field` is one field of a secret that has several.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from pydantic import ValidationError

from lamassu.kernel.errors import LamassuError, Unavailable
from lamassu.platform.config.engine_forms import SECTION, by_kind
from lamassu.platform.config.engine_sections import EngineSection, SecretsManagerEngine, VaultEngine
from lamassu.platform.config.judgement import vault_faults
from lamassu.platform.config.yaml_input import (
    Document,
    Resolve,
    SecretReference,
    Unresolved,
    no_secrets,
)

PATIENCE = 15.0  # seconds for all of a file's secrets
HOLDERS: Mapping[str, type[EngineSection]] = {
    "hashicorp_vault": VaultEngine,
    "aws_secrets_manager": SecretsManagerEngine,
}


class SecretReader(Protocol):
    """One engine's secrets. Blocks, with a time limit of its own of some seconds."""

    def read_secret(self, name: str, field: str | None) -> str:
        """Raises a `LamassuError` that says what is wrong and what to do."""
        ...

    def close(self) -> None:
        """Let go of the engine."""
        ...


class SecretSource(Protocol):
    """Opens engines for their secrets; known to who wires the platform."""

    def __call__(self, section: EngineSection, folder: Path) -> SecretReader:
        """Relative paths of the section count from `folder`. Asks nothing yet."""
        ...


def resolver(path: Path, secrets: SecretSource | None) -> Resolve:
    """How the secrets that a configuration names are had."""
    if secrets is None:
        return no_secrets

    def resolve(
        document: Document, references: Sequence[SecretReference]
    ) -> Mapping[str, str | Unresolved]:
        asking = _Asking(document, references, secrets, path.parent)
        try:
            return {one.name: asking.value(one.name) for one in references}
        finally:
            asking.close()

    return resolve


class _Asking:
    def __init__(
        self,
        document: Document,
        references: Sequence[SecretReference],
        secrets: SecretSource,
        folder: Path,
    ) -> None:
        self._sorted, self._places = by_kind(document)
        self._wanting = [reference.path for reference in references]
        self._secrets = secrets
        self._folder = folder
        self._readers: dict[str, SecretReader | Unresolved] = {}
        self._until = time.monotonic() + PATIENCE

    def value(self, reference: str) -> str | Unresolved:
        engine_id, slash, rest = reference.partition("/")
        name, hash_sign, field = rest.partition("#")
        parts = name.split("/")
        if not slash or not all(parts) or ".." in parts or (hash_sign and not field):
            return Unresolved("write it as ${secret:ENGINE/NAME} or ${secret:ENGINE/NAME#FIELD}")
        if engine_id not in self._readers:
            self._readers[engine_id] = self._reader(engine_id)
        reader = self._readers[engine_id]
        if isinstance(reader, Unresolved):
            return reader
        if time.monotonic() > self._until:
            return Unresolved(f"engine {engine_id} takes too long; it was not asked for this one")
        try:
            return reader.read_secret(name, field or None)
        except Unavailable as error:
            # what keeps this one away keeps the others away too, and each would be waited for
            if error.code not in ("access_denied", "secret_undecryptable"):
                self._readers[engine_id] = Unresolved(error.text)
                reader.close()
            return Unresolved(error.text)
        except LamassuError as error:
            return Unresolved(error.text)

    def close(self) -> None:
        for reader in self._readers.values():
            if not isinstance(reader, Unresolved):
                reader.close()

    def _reader(self, engine_id: str) -> SecretReader | Unresolved:
        found = self._entry(engine_id)
        if isinstance(found, Unresolved):
            return found
        kind, where, entry = found
        written = self._places.path(where)
        if any(path.startswith(f"{written}.") for path in self._wanting):
            return Unresolved(
                f"engine {engine_id} takes a secret itself; give it a variable or file"
            )
        if any(fault.path.startswith(f"{where}.") for fault in self._sorted.faults):
            return Unresolved(f"{written} has a fault of its own")
        try:
            section = HOLDERS[kind].model_validate(entry)
        except ValidationError:
            return Unresolved(f"{written} has a fault of its own")
        return self._judged(written, section) or self._secrets(section, self._folder)

    def _judged(self, written: str, section: EngineSection) -> Unresolved | None:
        """What would keep the start from happening keeps the secrets, too."""
        if not isinstance(section, VaultEngine):
            return None
        if section.address is None and section.hostname is None:
            return Unresolved(f"{written} has no address")
        if self._sorted.values.get("mode", "production") == "development":
            return None
        faults = vault_faults(written, section)
        if not faults:
            return None
        return Unresolved(f"{faults[0].path} is {faults[0].found}, which production refuses")

    def _entry(self, engine_id: str) -> tuple[str, str, Mapping[str, object]] | Unresolved:
        engines = self._sorted.values.get(SECTION)
        known = []
        for kind, entries in engines.items() if isinstance(engines, dict) else ():
            for index, entry in enumerate(entries if isinstance(entries, list) else ()):
                given = entry.get("id") if isinstance(entry, dict) else None
                if given == engine_id and kind in HOLDERS:
                    where = f"{SECTION}.{kind}[{index}]"
                    return kind, where, cast("Mapping[str, object]", entry)
                if given == engine_id:
                    return Unresolved(
                        f"engine {engine_id} ({kind}) holds no secrets; one of"
                        f" {' or '.join(HOLDERS)} does"
                    )
                if kind in HOLDERS and isinstance(given, str):
                    known.append(given)
        names = f"; those that hold secrets: {', '.join(known)}" if known else ""
        return Unresolved(f"there is no engine {engine_id}{names}")
