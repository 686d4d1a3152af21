"""Bodies at the edge: models that read JSON as old clients write it, and the types in them."""

from __future__ import annotations

import base64
import binascii
import contextlib
import functools
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from lamassu.kernel.errors import Malformed
from lamassu.kernel.json_patch import Patch
from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import (
    ZERO_TIME,
    format_duration,
    format_time,
    format_time_or_zero,
    parse_duration,
)
from lamassu.kernel.x509.pem import ders_of, pem_of
from lamassu.platform.http.json_input import MAX_FIELD_LENGTH, parse_json, shown

M = TypeVar("M", bound="WireModel")

_FROM_WIRE: Mapping[str, object] = {"from": "wire"}

FreeForm = dict[str, JsonValue]
"""An object whose keys are the client's own (`metadata`): taken as it stands."""


class WireModel(BaseModel):
    """A body of the wire contract.

    Read by `decode`: keys in any case, other spellings by `AliasChoices`, `null` as absent
    where the field has no `None`, the names in `leftovers` passed over, other unknown fields
    passed over when empty and refused when not. `missing_text` is the refusal's text where
    clients know the one for a missing field by heart.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True
    )

    leftovers: ClassVar[frozenset[str]] = frozenset()
    missing_text: ClassVar[str | None] = None

    @model_validator(mode="before")
    @classmethod
    def _read_wire_keys(cls, data: object, info: ValidationInfo) -> object:
        if info.context is not _FROM_WIRE or not isinstance(data, dict):
            return data
        return _canonical(cls, data)


def decode(model: type[M], raw: bytes) -> M:
    """The body as `model`; `null` is read as `{}`.

    Raises `Malformed`, whose `field` is the dotted path of what is wrong.
    """
    document = parse_json(raw)
    return decode_document(model, {} if document is None else document)


def decode_document(model: type[M], document: Json) -> M:
    """A parsed JSON value as `model`. Raises `Malformed`."""
    try:
        return model.model_validate(document, context=_FROM_WIRE)
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        raise _malformed(details, model, document) from None


# --- keys ---------------------------------------------------------------------------------


class _Spellings:
    """How the fields of one model may be written."""

    def __init__(self, model: type[WireModel]) -> None:
        self.names: dict[str, str] = {}
        self.nullable: set[str] = set()
        self.scalars: dict[str, type] = {}
        self.leftovers = frozenset(name.casefold() for name in model.leftovers)
        for name, info in model.model_fields.items():
            spellings = _spellings_of(name, info)
            read_as = spellings[0]
            for spelling in spellings:
                self.names[spelling.casefold()] = read_as
            kinds = _alternatives(info.annotation)
            if NoneType in kinds or Any in kinds or object in kinds or JsonValue in kinds:
                self.nullable.add(read_as)
            scalar = _scalar_in(kinds)
            if scalar is not None:
                self.scalars[read_as] = scalar


@functools.cache
def _spellings(model: type[WireModel]) -> _Spellings:
    return _Spellings(model)


def _spellings_of(name: str, info: FieldInfo) -> list[str]:
    alias = info.validation_alias
    if isinstance(alias, AliasChoices):
        return [choice for choice in alias.choices if isinstance(choice, str)]
    return [alias if isinstance(alias, str) else name]


def _alternatives(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for part in get_args(annotation) for kind in _alternatives(part)]
    return [annotation]


def _scalar_in(kinds: list[Any]) -> type | None:
    """The number or truth value that a field holds, by itself or in a list or object of them."""
    concrete = [kind for kind in kinds if kind is not NoneType]
    if len(concrete) != 1:
        return None
    if concrete[0] in (int, bool, float):
        found: type = concrete[0]
        return found
    inner = [part for part in get_args(concrete[0]) if part is not Ellipsis]
    return _scalar_in(_alternatives(inner[-1])) if inner else None


def _canonical(model: type[WireModel], data: dict[Any, Any]) -> dict[str, Any]:
    spellings = _spellings(model)
    read: dict[str, Any] = {}
    written: dict[str, str] = {}
    folded_keys: set[str] = set()
    for key, value in data.items():
        folded = key.casefold()
        if folded in folded_keys:
            raise PydanticCustomError(
                "duplicate_key",
                "the key {shown} stands twice, in different case; send it once",
                {"key": key, "shown": shown(key)},
            )
        folded_keys.add(folded)
        name = spellings.names.get(folded)
        if name is None:
            if folded not in spellings.leftovers and not _is_empty(value):
                raise PydanticCustomError(
                    "unknown_field",
                    "unknown field {shown}; the known ones are {known}",
                    {
                        "key": key,
                        "shown": shown(key),
                        "known": ", ".join(sorted(set(spellings.names.values()))),
                    },
                )
            continue
        if name in written:
            if json.dumps(read.get(name)) != json.dumps(value):
                raise PydanticCustomError(
                    "conflicting_fields",
                    "{shown} and {other} are two spellings of one field, with different values",
                    {"key": key, "shown": shown(key), "other": shown(written[name])},
                )
            continue
        written[name] = key
        if value is not None or name in spellings.nullable:
            _check_scalar(name, spellings.scalars.get(name), value)
            read[name] = value
    return read


def _check_scalar(name: str, kind: type | None, value: object) -> None:
    """Hold the client to the type: pydantic itself would read "5", 5.0 and true as a number."""
    if kind is None or value is None or type(value) is kind:
        return
    if isinstance(value, list | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for position, item in items:
            _check_scalar(f"{name}.{position}", kind, item)
        return
    if kind is float and type(value) is int:
        return
    raise PydanticCustomError(
        "wrong_type",
        "must be {wanted}, found {found}",
        {"key": name, "wanted": _KIND_NAMES[kind], "found": _kind_of(value)},
    )


def _is_empty(value: object) -> bool:
    if isinstance(value, dict):
        return all(_is_empty(member) for member in value.values())
    return value is None or value in ("", [], 0, False)


_KIND_NAMES: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list: "a list",
    dict: "an object",
    NoneType: "null",
}


def _kind_of(value: object) -> str:
    return _KIND_NAMES.get(type(value), "something else")


# --- refusals -----------------------------------------------------------------------------

# pydantic's own kinds of error, as `must be …`; anything else keeps pydantic's sentence
_WANTED = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "frozen_set_type": "a list",
    "set_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "datetime_type": "a time",
    "bytes_type": "a text",
}
_OWN_TYPES = frozenset({"duplicate_key", "unknown_field", "conflicting_fields", "wrong_type"})


def _malformed(details: ErrorDetails, model: type[WireModel], document: Json) -> Malformed:
    kind = details["type"]
    location = list(details["loc"])
    if kind in _OWN_TYPES:
        location.append(str(details["ctx"]["key"]))
    path = _dotted(location, document)[:MAX_FIELD_LENGTH]
    if kind == "missing":
        known_text = _owner(model, details["loc"]).missing_text
        return Malformed(known_text or f"{path} is missing", code="missing_field", field=path)
    text, code = _explained(details, path or "the body")
    return Malformed(text, code=code, field=path or None)


def _explained(details: ErrorDetails, name: str) -> tuple[str, str]:
    """Text and code of a refusal: what is wrong with `name`, and what is allowed."""
    kind, found = details["type"], details.get("input")
    context: Mapping[str, Any] = details.get("ctx") or {}
    if kind == "wrong_type":
        return f"{name} {details['msg']}", kind
    if kind in _OWN_TYPES:
        return details["msg"], kind
    if kind in _WANTED:
        return f"{name} must be {_WANTED[kind]}, found {_kind_of(found)}", "wrong_type"
    if kind in ("enum", "literal_error"):
        return f"{name} must be {context['expected']}, found {_quoted(found)}", "invalid_value"
    if kind in ("value_error", "assertion_error"):
        return str(context["error"]), "invalid_value"
    code = kind if kind.startswith("invalid_") else "invalid_value"
    return f"{name}: {details['msg']}", code


def _quoted(value: object) -> str:
    return shown(value) if isinstance(value, str | int | float) else _kind_of(value)


def _owner(model: type[WireModel], location: tuple[int | str, ...]) -> type[WireModel]:
    """The model whose field is missing; the outermost one where the path leaves plain nesting."""
    owner = model
    for part in location[:-1]:
        info = owner.model_fields.get(str(part))
        kinds = _alternatives(info.annotation) if info is not None else []
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, WireModel)]
        if not inner:
            return model
        owner = inner[0]
    return owner


def _dotted(location: list[int | str], document: Json) -> str:
    """The path as the client sees it: pydantic's own marks for unions and the like left out."""
    parts: list[str] = []
    here: Any = document
    for index, part in enumerate(location):
        if isinstance(here, dict) and isinstance(part, str):
            key = next((key for key in here if key.casefold() == part.casefold()), None)
            if key is None and index != len(location) - 1:
                continue
            parts.append(part)
            here = here[key] if key is not None else None
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            parts.append(str(part))
            here = here[part]
    return ".".join(parts)


# --- types --------------------------------------------------------------------------------


def _read_duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError(
            "invalid_duration",
            "must be a duration as a text, such as 90d; found {found}",
            {"found": _kind_of(value)},
        )
    try:
        return parse_duration(value)
    except ValueError as error:
        raise PydanticCustomError(
            "invalid_duration", "{text}; found {found}", {"text": str(error), "found": shown(value)}
        ) from None


WireDuration = Annotated[
    timedelta,
    BeforeValidator(_read_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "lamassu-duration", "examples": ["1y6w", "12h"]}),
]
"""`1w2d`; `y` is 364 days."""

_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def parse_time(text: str) -> datetime:
    """An RFC 3339 time with its zone, in UTC. Raises `ValueError`, its text for people."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("must be a time with its zone, such as 2030-12-31T23:59:59Z (RFC 3339)")
    day, clock, fraction, zone = match.groups()
    micros = ((fraction or "") + "000000")[:6]
    offset = "+00:00" if zone in "Zz" else zone
    try:
        return datetime.fromisoformat(f"{day}T{clock}.{micros}{offset}").astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is no time that exists") from None


def _read_time(value: object) -> object:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise PydanticCustomError("invalid_time", "must have a zone")
        return value
    if not isinstance(value, str):
        raise PydanticCustomError(
            "invalid_time", "must be a time as a text; found {found}", {"found": _kind_of(value)}
        )
    try:
        return parse_time(value)
    except ValueError as error:
        raise PydanticCustomError(
            "invalid_time", "{text}; found {found}", {"text": str(error), "found": shown(value)}
        ) from None


def _read_time_or_zero(value: object) -> object:
    return None if value in (None, "", ZERO_TIME) else _read_time(value)


_TIME_SCHEMA = WithJsonSchema({"type": "string", "format": "date-time"})

WireTime = Annotated[
    datetime,
    BeforeValidator(_read_time),
    PlainSerializer(format_time, return_type=str, when_used="json"),
    _TIME_SCHEMA,
]
"""RFC 3339 with its zone."""

WireTimeOrZero = Annotated[
    datetime | None,
    BeforeValidator(_read_time_or_zero),
    PlainSerializer(format_time_or_zero, return_type=str, when_used="json"),
    _TIME_SCHEMA,
]
"""As `WireTime`; unset is `ZERO_TIME` on the wire and `None` inside."""


def _read_base64(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError(
            "invalid_base64", "must be base64 as a text; found {found}", {"found": _kind_of(value)}
        )
    try:
        return base64.b64decode(value.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        raise PydanticCustomError("invalid_base64", "must be standard base64") from None


def _write_base64(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


_BASE64_SCHEMA = WithJsonSchema({"type": "string", "contentEncoding": "base64"})

WireBase64 = Annotated[
    bytes,
    BeforeValidator(_read_base64),
    PlainSerializer(_write_base64, return_type=str, when_used="json"),
    _BASE64_SCHEMA,
]
"""Bytes as standard base64."""

_CSR_LABELS = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")


def _read_csr(value: object) -> object:
    if isinstance(value, bytes):
        return value
    pem = _read_base64(value)
    ders: list[bytes] = []
    for label in _CSR_LABELS:
        with contextlib.suppress(Malformed):
            ders += ders_of(pem, label)
    if len(ders) != 1:
        raise PydanticCustomError(
            "invalid_pem", "missing CSR block: send the base64 of the CSR's PEM text"
        )
    return ders[0]


def _write_csr(der: bytes) -> str:
    return _write_base64(pem_of(der, _CSR_LABELS[0]))


WireCsr = Annotated[
    bytes,
    BeforeValidator(_read_csr),
    PlainSerializer(_write_csr, return_type=str, when_used="json"),
    _BASE64_SCHEMA,
]
"""A CSR: DER inside, base64 of PEM on the wire."""


class JsonPatch(WireModel):
    """One operation of a JSON Patch."""

    leftovers = frozenset({"from"})

    op: str = Field(max_length=16)
    path: str = Field(max_length=1024)
    value: JsonValue = None


class JsonPatches(WireModel):
    """`{"patches": [...]}`."""

    missing_text = "struct validation error"

    patches: list[JsonPatch] = Field(max_length=256)

    @property
    def operations(self) -> tuple[Patch, ...]:
        """The patches for `lamassu.kernel.json_patch.apply`."""
        return tuple(Patch(op=p.op, path=p.path, value=p.value) for p in self.patches)
