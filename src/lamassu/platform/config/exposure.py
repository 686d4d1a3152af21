"""Secrets that stand in clear in a file that others than its owner may read."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from lamassu.platform.config.engine_forms import by_kind
from lamassu.platform.config.reading import judge
from lamassu.platform.config.secret_references import SecretSource, resolver
from lamassu.platform.config.yaml_input import read


def exposed_secrets(path: Path, secrets: SecretSource | None = None) -> Sequence[str]:
    """The fields of these secrets; none where a variable or another file holds them.

    Raises `ConfigurationFaults`.
    """
    if not path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return []
    document, places = by_kind(read(path, resolver(path, secrets)))
    shown = judge(document, str(path)).model_dump(mode="json", exclude_none=True)
    return [
        places.path(field)
        for field in _differing(document.values, shown, "")
        if field not in document.referred
    ]


def _differing(written: object, shown: object, path: str) -> Iterator[str]:
    """Where a text that was written is shown as something else: what is secret is masked."""
    if isinstance(written, Mapping) and isinstance(shown, Mapping):
        for key, value in written.items():
            inner = f"{path}.{key}" if path else str(key)
            yield from _differing(value, shown.get(key), inner)
    elif isinstance(written, list) and isinstance(shown, list):
        for index, (value, other) in enumerate(zip(written, shown, strict=False)):
            yield from _differing(value, other, f"{path}[{index}]")
    elif isinstance(written, str) and isinstance(shown, str) and _is_secret(written, shown):
        yield path


def _is_secret(written: str, shown: str) -> bool:
    masked = written != shown and not shown.strip("*")
    return masked and ("://" not in written or urlsplit(written).password is not None)
