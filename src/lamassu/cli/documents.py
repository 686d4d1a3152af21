"""Resources in files: JSON, or YAML without its surprises."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from lamassu.cli.options import fail


class _Loader(yaml.SafeLoader):
    """Only null, true, false and whole numbers are more than text: a country NO is no truth
    value, a time no date, an OID no number."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.MarkedYAMLError(
                problem=f"the key {twice!r} stands twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", r"null|~|", ["n", "~", ""]),
    ("tag:yaml.org,2002:bool", r"true|false", ["t", "f"]),
    ("tag:yaml.org,2002:int", r"-?(0|[1-9][0-9]{0,17})", list("-0123456789")),
):
    _Loader.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first)


def parse_document(text: bytes, name: object) -> dict[str, Any]:
    """The object in a JSON or YAML text, or the end of the program; `name` is where it stands."""
    try:
        document = _json(text)
        if document is None:
            document = yaml.load(text, Loader=_Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error)
        fail(f"{name} holds neither JSON nor YAML: {problem}{where}")
    if not isinstance(document, dict):
        fail(f"{name} holds no JSON or YAML object")
    return document


def _json(text: bytes) -> Any:
    """`None` for what is no JSON: YAML then says what is wrong."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def as_yaml(document: Mapping[str, Any]) -> str:
    """As a file that `parse_document` takes."""
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=100)
