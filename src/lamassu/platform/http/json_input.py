"""Reading JSON that strangers wrote: one value, no double meanings, nothing a store cannot keep."""

from __future__ import annotations

import json
import math
from typing import NoReturn

from lamassu.kernel.errors import Malformed
from lamassu.kernel.records import Json

MAX_DEPTH = 64
MAX_VALUES = 65_536  # in one body: what reads them works for each
MAX_FIELD_LENGTH = 200  # of the path that a refusal repeats
_MAX_INTEGER = 2**63 - 1
_MAX_DIGITS = 20  # a 64-bit integer with its sign; int() of more is work for nothing


def parse_json(raw: bytes) -> Json:
    """The one JSON value in `raw` (RFC 8259, UTF-8).

    Raises `Malformed`: `empty_body` (text `EOF`, which old clients know), `duplicate_key`, or
    `malformed` for bad UTF-8, bad syntax, anything after the value, NaN, numbers beyond 64 bits,
    nesting beyond `MAX_DEPTH`, more than `MAX_VALUES`, NUL characters and lone surrogates.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(f"the body is not UTF-8 (byte {error.start})") from None
    if not text.strip(" \t\r\n"):
        raise Malformed("EOF", code="empty_body")
    try:
        value: Json = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Malformed(
            f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    except RecursionError:
        raise Malformed(f"the body is nested deeper than {MAX_DEPTH} levels") from None
    _check_storable(value)
    return value


def shown(value: object, limit: int = 40) -> str:
    """A value as a text for people quotes it: short, and printable."""
    text = json.dumps(value) if isinstance(value, str) else str(value)
    return text if len(text) <= limit else f"{text[:limit]}…"


def _object_of(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise duplicate_key(key)
            seen.add(key)
    return members


def duplicate_key(key: str, path: str = "") -> Malformed:
    """The refusal of a key that an object has twice, so that no two readers differ on it."""
    return Malformed(
        f"the key {shown(key)} stands twice in one object; send it once",
        code="duplicate_key",
        field=(path or key)[:MAX_FIELD_LENGTH],
    )


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS or abs(number := int(text)) > _MAX_INTEGER:
        raise Malformed(f"the number {shown(text)} does not fit into 64 bits")
    return number


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Malformed(f"the number {shown(text)} is out of range")
    return number


def _constant(text: str) -> NoReturn:
    raise Malformed(f"{text} is not JSON")


def _check_storable(value: Json) -> None:
    level: list[Json] = [value]
    count = 0
    for _ in range(MAX_DEPTH + 1):
        below: list[Json] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, dict):
                for key in item:
                    _check_text(key)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return
        count += len(below)
        if count > MAX_VALUES:
            raise Malformed(f"the body holds more than {MAX_VALUES} values")
        level = below
    raise Malformed(f"the body is nested deeper than {MAX_DEPTH} levels")


def _check_text(text: str) -> None:
    if "\0" in text:
        raise Malformed("a text holds a NUL character, which no database keeps")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise Malformed("a text holds half a surrogate pair, which is no character") from None


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_of,
    parse_int=_integer,
    parse_float=_float,
    parse_constant=_constant,
)
