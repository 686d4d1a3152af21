"""JSON Patch (RFC 6902) as the original applies it.

It differs from the RFC: `add` makes missing parents, `remove` of what is not there does
nothing, `move` and `copy` are refused, and so is a `null` value.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lamassu.kernel.errors import RuleViolation, TooLarge
from lamassu.kernel.records import Json

MAX_PATCHES = 256
MAX_POINTER_DEPTH = 32
MAX_DOCUMENT_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Patch:
    """One operation; `path` is a JSON pointer (RFC 6901)."""

    op: str
    path: str
    value: Json = None


_END = "-"  # the position after the last item (RFC 6901 §4)


class _Refused(Exception):
    """Why a patch fails."""


def apply(document: Json, patches: Sequence[Patch]) -> Json:
    """A patched copy of `document`; the patches count all together or not at all.

    Raises `RuleViolation` (`patch_failed`, the field naming the patch) and `TooLarge` when the
    result outgrows `MAX_DOCUMENT_BYTES`.
    """
    if len(patches) > MAX_PATCHES:
        raise RuleViolation(f"at most {MAX_PATCHES} patches at once", code="patch_failed")
    result: Any = copy.deepcopy(document)
    for number, patch in enumerate(patches):
        try:
            result = _applied(result, patch)
        except _Refused as refusal:
            raise RuleViolation(
                f"patch {number} ({patch.op[:16]} {patch.path[:128]}) failed: {refusal}",
                code="patch_failed",
                field=f"patches.{number}",
            ) from None
    if patches and len(json.dumps(result)) > MAX_DOCUMENT_BYTES:
        raise TooLarge(f"the patched document exceeds {MAX_DOCUMENT_BYTES} bytes")
    patched: Json = result
    return patched


def apply_to_object(document: Mapping[str, Json], patches: Sequence[Patch]) -> dict[str, Json]:
    """As `apply`, for a document that has to stay an object (`metadata`)."""
    result = apply(dict(document), patches)
    if not isinstance(result, dict):
        raise RuleViolation("the patched document must be an object", code="patch_failed")
    return result


def _applied(document: Any, patch: Patch) -> Any:
    tokens = _tokens(patch.path)
    if patch.op in ("add", "replace", "test"):
        if patch.value is None:
            raise _Refused("it has no value, or null")
        value = copy.deepcopy(patch.value)
        if patch.op == "add":
            return _add(document, tokens, value)
        if patch.op == "replace":
            return _replace(document, tokens, value)
        if not _same(_get(document, tokens), value):
            raise _Refused("the value there is another")
        return document
    if patch.op == "remove":
        return _remove(document, tokens)
    raise _Refused("the operation must be add, replace, remove or test")


def _tokens(pointer: str) -> list[str]:
    if not pointer:
        return []
    if not pointer.startswith("/"):
        raise _Refused("the path must begin with /")
    tokens = pointer[1:].split("/")
    if len(tokens) > MAX_POINTER_DEPTH:
        raise _Refused(f"the path is deeper than {MAX_POINTER_DEPTH} levels")
    return [token.replace("~1", "/").replace("~0", "~") for token in tokens]


def _add(document: Any, tokens: list[str], value: Any) -> Any:
    if not tokens:
        return value
    if document is None:
        document = {}
    here = document
    for token, following in pairwise(tokens):
        here = _enter_or_make(here, token, [] if following in ("-", "0") else {})
    last = tokens[-1]
    if isinstance(here, dict):
        here[last] = value
    elif isinstance(here, list):
        here.insert(_position(here, last, inserting=True), value)
    else:
        raise _Refused("its parent is neither an object nor a list")
    return document


def _enter_or_make(here: Any, token: str, made: Any) -> Any:
    if isinstance(here, dict):
        if here.get(token) is None:
            here[token] = made
        return here[token]
    if isinstance(here, list):
        position = _position(here, token, inserting=True)
        if position == len(here):
            here.append(made)
        return here[position]
    raise _Refused("a part of its path is neither an object nor a list")


def _replace(document: Any, tokens: list[str], value: Any) -> Any:
    if not tokens:
        return value
    parent = _get(document, tokens[:-1])
    key = _existing_key(parent, tokens[-1])
    if key is None:
        raise _Refused("there is nothing to replace")
    parent[key] = value
    return document


def _remove(document: Any, tokens: list[str]) -> Any:
    if not tokens:
        raise _Refused("the whole document cannot be removed")
    parent = document
    for token in tokens[:-1]:
        key = _existing_key(parent, token)
        if key is None:
            return document
        parent = parent[key]
    key = _existing_key(parent, tokens[-1])
    if key is not None:
        del parent[key]
    return document


def _get(document: Any, tokens: list[str]) -> Any:
    here = document
    for token in tokens:
        key = _existing_key(here, token)
        if key is None:
            raise _Refused("there is nothing at its path")
        here = here[key]
    return here


def _existing_key(parent: Any, token: str) -> Any:
    if isinstance(parent, dict):
        return token if token in parent else None
    if isinstance(parent, list):
        position = _position(parent, token, inserting=False)
        return position if position < len(parent) else None
    return None


def _position(items: list[Any], token: str, *, inserting: bool) -> int:
    if token == _END:
        return len(items)
    if not (token.isascii() and token.isdigit()) or len(token) > 9 or str(int(token)) != token:
        raise _Refused(f"{token[:32]!r} is no position in a list")
    position = int(token)
    if inserting and position > len(items):
        raise _Refused(f"the list has no position {position} yet")
    return position


def _same(one: Any, other: Any) -> bool:
    """JSON equality: Python's, but `true` is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
