"""The query string of a list route: page, order and filters (grammar: the contract's §filter)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import unquote_plus

from lamassu.kernel.errors import Malformed
from lamassu.kernel.json_path import parse_predicate, parse_sort_path, written
from lamassu.kernel.listing import (
    FieldType,
    Filter,
    Filterable,
    FilterValue,
    ListQuery,
    Operator,
)
from lamassu.platform.http.json_input import shown

DEFAULT_PAGE_SIZE = 25
MAX_PAGE_SIZE = 1000
_PAGE_SIZE_OF_NONSENSE = 15  # what the original makes of zero and less
_MAX_FILTERS = 32
_MAX_LIST_VALUES = 1000
_MAX_VALUE_LENGTH = 8192

_ALIASES = {
    "equal": "eq",
    "equal_ignorecase": "eq_ic",
    "notequal": "ne",
    "notequal_ignorecase": "ne_ic",
    "contains": "ct",
    "contains_ignorecase": "ct_ic",
    "notcontains": "nc",
    "notcontains_ignorecase": "nc_ic",
    "before": "bf",
    "after": "af",
    "lessthan": "lt",
    "lessequal": "le",
    "lessorequal": "le",
    "greaterthan": "gt",
    "greaterequal": "ge",
    "greaterorequal": "ge",
}
_O = Operator
OPERATORS: Mapping[FieldType, frozenset[Operator]] = {
    FieldType.STRING: frozenset(
        {_O.EQ, _O.EQ_IC, _O.NE, _O.NE_IC, _O.CT, _O.CT_IC, _O.NC, _O.NC_IC}
        | {_O.IN, _O.IN_IC, _O.NIN, _O.NIN_IC}
    ),
    FieldType.STRING_ARRAY: frozenset({_O.CT, _O.CT_IC}),
    FieldType.DATE: frozenset({_O.EQ, _O.BF, _O.AF}),
    FieldType.NUMBER: frozenset({_O.EQ, _O.NE, _O.LT, _O.LE, _O.GT, _O.GE}),
    FieldType.ENUM: frozenset({_O.EQ, _O.NE, _O.IN}),
    FieldType.JSON: frozenset({_O.JSONPATH}),
}
_TYPE_NUMBERS = {
    FieldType.STRING: 0,
    FieldType.STRING_ARRAY: 1,
    FieldType.DATE: 2,
    FieldType.NUMBER: 3,
    FieldType.ENUM: 4,
    FieldType.JSON: 5,
}
_LIST_OPERATORS = frozenset({_O.IN, _O.IN_IC, _O.NIN, _O.NIN_IC})
_SORTABLE = frozenset(FieldType) - {FieldType.JSON}
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


def parse_list_query(arguments: Mapping[str, Sequence[str]], fields: Filterable) -> ListQuery:
    """The page that a query string without a bookmark asks for.

    Raises `Malformed` for what names an unknown field or operator, or has an unreadable value.
    """
    texts = arguments.get("filter", ())
    if len(texts) > _MAX_FILTERS:
        raise Malformed(f"at most {_MAX_FILTERS} filters at once", field="filter")
    sort_by, sort_path = _sort_field(_last(arguments, "sort_by") or "", fields)
    return ListQuery(
        page_size=_page_size(_last(arguments, "page_size")),
        sort_by=sort_by,
        sort_path=sort_path,
        descending=_last(arguments, "sort_mode") == "desc",
        filters=tuple(parse_filter(text, fields) for text in texts if text),
    )


def parse_filter(text: str, fields: Filterable) -> Filter:
    """One `field[operator]value`, also with a `=` before the value. Raises `Malformed`."""
    opening, closing = text.find("["), text.find("]")
    if opening < 1 or closing < opening:
        raise _bad(f"the filter {shown(text)} is not of the form field[operator]value")
    name, operand, value = text[:opening], text[opening + 1 : closing], text[closing + 1 :]
    kind = fields.fields.get(name)
    if kind is None:
        raise _bad(_unknown(name, "filter", sorted(fields.fields)), code="unknown_filter_field")
    value = value.removeprefix("=")
    if "\0" in value or len(value) > _MAX_VALUE_LENGTH:
        raise _bad(f"the filter on {name} has a value that no field can have")
    operator = _operator(name, operand, kind)
    return Filter(name, operator, _filter_value(name, kind, operator, value, fields))


def _operator(name: str, operand: str, kind: FieldType) -> Operator:
    word = operand.lower()
    try:
        operator = Operator(_ALIASES.get(word, word))
    except ValueError:
        operator = None
    if operator is None or operator not in OPERATORS[kind]:
        raise _bad(
            f"invalid filter operand '{operand[:32]}' for field '{name}' of type "
            f"{_TYPE_NUMBERS[kind]}",
            code="invalid_filter_operator",
        )
    return operator


def _filter_value(
    name: str, kind: FieldType, operator: Operator, text: str, fields: Filterable
) -> FilterValue:
    if kind is FieldType.DATE:
        return _date(name, text)
    if kind is FieldType.NUMBER:
        return _number(name, text)
    if kind is FieldType.JSON:
        return _json_question(name, text)
    values = tuple(filter(None, text.split(","))) if operator in _LIST_OPERATORS else (text,)
    if len(values) > _MAX_LIST_VALUES:
        raise _bad(f"the filter on {name} lists more than {_MAX_LIST_VALUES} values")
    choices = fields.choices.get(name)
    if choices is not None:
        for value in values:
            if value not in choices:
                raise _bad(
                    f"the filter on {name} has {shown(value)}; it may be one of "
                    f"{', '.join(sorted(choices))}"
                )
    return values if operator in _LIST_OPERATORS else text


def _date(name: str, text: str) -> datetime:
    # a `+` that nobody escaped arrives as a space
    repaired = re.sub(r"(\d) (\d\d:?\d\d)$", r"\1+\2", text) if "T" in text else text
    try:
        if len(text) > 40:
            raise ValueError
        time = datetime.fromisoformat(repaired)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _bad(
            f"the filter on {name} needs a date such as 2030-12-31 or 2030-12-31T23:59:59Z, "
            f"found {shown(text)}"
        ) from None


def _number(name: str, text: str) -> float:
    number = float(text) if len(text) <= 64 and _NUMBER.fullmatch(text) else math.inf
    if not math.isfinite(number):
        raise _bad(f"the filter on {name} needs a number, found {shown(text)}")
    return number


def _json_question(name: str, text: str) -> str:
    """A JSON path predicate, in one canonical way. It comes encoded twice, as the original
    wants it: what the query string's decoding left is decoded again."""
    try:
        return written(parse_predicate(unquote_plus(text, errors="strict")))
    except UnicodeDecodeError:
        raise _bad(f"the filter on {name} is not percent-encoded UTF-8") from None
    except Malformed as fault:
        raise _bad(f"the filter on {name}: {fault.text}", code=fault.code) from None


def _sort_field(text: str, fields: Filterable) -> tuple[str | None, tuple[str, ...]]:
    """The field, and within one that holds JSON the keys of the value to go by."""
    if not text:
        return None, ()
    name, bracket, path = text.partition("[jsonpath]")
    kind = fields.fields.get(name)
    if kind is not None and (kind is FieldType.JSON) == bool(bracket):
        return name, _sort_path(name, path) if bracket else ()
    if kind is FieldType.JSON:
        wanted = f"{name}[jsonpath]$.key"
        raise Malformed(
            f"{name} holds JSON; name the value to sort by, as in sort_by={wanted}",
            code="unknown_sort_field",
            field="sort_by",
        )
    sortable = sorted(name for name, kind in fields.fields.items() if kind in _SORTABLE)
    raise Malformed(_unknown(text, "sort", sortable), code="unknown_sort_field", field="sort_by")


def _sort_path(name: str, text: str) -> tuple[str, ...]:
    try:
        return parse_sort_path(text)
    except Malformed as fault:
        raise Malformed(
            f"the sort by {name}: {fault.text}", code=fault.code, field="sort_by"
        ) from None


def _page_size(text: str | None) -> int:
    if text is None or not _INTEGER.fullmatch(text):
        return DEFAULT_PAGE_SIZE
    size = int(text)
    return min(size, MAX_PAGE_SIZE) if size > 0 else _PAGE_SIZE_OF_NONSENSE


def _last(arguments: Mapping[str, Sequence[str]], name: str) -> str | None:
    values = arguments.get(name)
    return values[-1] if values else None


def _unknown(name: str, what: str, known: Sequence[str]) -> str:
    return f"unknown {what} field {shown(name)}; the known ones are {', '.join(known) or 'none'}"


def _bad(text: str, *, code: str = "invalid_filter") -> Malformed:
    return Malformed(text, code=code, field="filter")
