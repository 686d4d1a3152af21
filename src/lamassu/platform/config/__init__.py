"""The configuration: one YAML file, judged whole before anything starts."""

from __future__ import annotations

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
from lamassu.platform.config.settings import Settings, judge
from lamassu.platform.config.template import Choices, edge_template, platform_template
from lamassu.platform.config.yaml_input import read

__all__ = [
    "Choices",
    "ConfigurationFaults",
    "Fault",
    "Settings",
    "check_start",
    "edge_template",
    "exposed_secrets",
    "load",
    "masked_text",
    "not_yet_in_effect",
    "platform_template",
    "start_faults",
    "warnings",
]

MASK = "**********"


def load(path: Path) -> Settings:
    """Read and judge a configuration. Raises `ConfigurationFaults` with all its faults."""
    return judge(read(path), str(path))


def masked_text(path: Path) -> str:
    """The configuration in effect as YAML, with every secret masked.

    Masked is what is secret by its type, and whatever came from a variable or a file.
    """
    document, _ = by_kind(read(path))
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
