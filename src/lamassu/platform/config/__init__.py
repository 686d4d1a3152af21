"""The configuration: one YAML file, judged whole before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from lamassu.platform.config.engine_forms import by_kind
from lamassu.platform.config.exposure import exposed_secrets
from lamassu.platform.config.faults import ConfigurationFaults, Fault
from lamassu.platform.config.judgement import (
    check_start,
    not_yet_in_effect,
    start_faults,
    warnings,
)
from lamassu.platform.config.reading import judge
from lamassu.platform.config.secret_references import SecretReader, SecretSource, resolver
from lamassu.platform.config.settings import Server, Settings
from lamassu.platform.config.template import Choices, edge_template, platform_template
from lamassu.platform.config.yaml_input import read

__all__ = [
    "Choices",
    "ConfigurationFaults",
    "Fault",
    "SecretReader",
    "SecretSource",
    "Settings",
    "check_start",
    "edge_template",
    "exposed_secrets",
    "load",
    "masked_text",
    "not_yet_in_effect",
    "platform_template",
    "public_urls",
    "start_faults",
    "warnings",
]

MASK = "**********"


def load(path: Path, secrets: SecretSource | None = None) -> Settings:
    """Read and judge a configuration. Raises `ConfigurationFaults` with all its faults.

    Blocks where secrets of engines are named, while they are asked; bounded in time. Without
    `secrets` none are, and each of them is a fault.
    """
    return judge(read(path, resolver(path, secrets)), str(path))


def public_urls(path: Path) -> Sequence[str]:
    """The names that clients use, whatever else of the configuration cannot be had here: not
    everybody who calls the API sees the platform's variables and secrets.

    Raises `ConfigurationFaults` where it is no YAML, `ValueError` for faulty names.
    """
    return Server.model_validate(read(path).values.get("server") or {}).public_urls


def masked_text(path: Path, secrets: SecretSource | None = None) -> str:
    """The configuration in effect as YAML, with every secret masked.

    Masked is what is secret by its type, and whatever came from a variable, a file or an engine.
    """
    document, _ = by_kind(read(path, resolver(path, secrets)))
    settings = judge(document, str(path))
    tree = settings.model_dump(mode="json", exclude_none=True)
    for reference in document.referred:
        _mask(tree, reference)
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _mask(tree: object, path: str) -> None:
    parts = path.replace("[", ".[").split(".")
    for part in parts[:-1]:
        tree = _child(tree, part)
    last = parts[-1]
    if isinstance(tree, dict) and last in tree:
        tree[last] = MASK
    elif isinstance(tree, list) and last.startswith("["):
        tree[int(last[1:-1])] = MASK


def _child(tree: object, part: str) -> object:
    if isinstance(tree, list) and part.startswith("["):
        return tree[int(part[1:-1])]
    if isinstance(tree, dict):
        return tree.get(part)
    return None
