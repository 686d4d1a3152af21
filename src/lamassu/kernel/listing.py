"""The questions a list route can be asked, as values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class FieldType(StrEnum):
    """What a filterable field holds; decides which operators it takes."""

    STRING = "string"
    STRING_ARRAY = "string array"
    DATE = "date"
    NUMBER = "number"
    ENUM = "enum"
    JSON = "json"


class Operator(StrEnum):
    """Canonical operators (aliases are resolved by the parser)."""

    EQ = "eq"
    EQ_IC = "eq_ic"
    NE = "ne"
    NE_IC = "ne_ic"
    CT = "ct"
    CT_IC = "ct_ic"
    NC = "nc"
    NC_IC = "nc_ic"
    IN = "in"
    IN_IC = "in_ic"
    NIN = "nin"
    NIN_IC = "nin_ic"
    BF = "bf"
    AF = "af"
    LT = "lt"
    LE = "le"
    GT = "gt"
    GE = "ge"
    JSONPATH = "jsonpath"


FilterValue = str | datetime | float | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """One condition; all of a query's conditions must hold."""

    field: str
    operator: Operator
    value: FilterValue


@dataclass(frozen=True, slots=True)
class ListQuery:
    """A page of a list: conditions, order, size, and where the page before it ended.

    `sort_path` are the keys that lead to the value to sort by, within a JSON field.
    `after` holds the last row's sort value and primary key (keyset paging), or is empty.
    """

    page_size: int = 25
    sort_by: str | None = None
    descending: bool = False
    filters: Sequence[Filter] = ()
    after: tuple[str | float | None, str] | None = None
    sort_path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`items` in order; `after` is the keyset position of the next page, `None` at the end."""

    items: Sequence[T]
    after: tuple[str | float | None, str] | None = None


@dataclass(frozen=True, slots=True)
class Filterable:
    """The fields of a list that can be filtered and sorted: wire name to type.

    `choices` holds, for enum fields, the values that a filter may name.
    """

    fields: Mapping[str, FieldType] = field(default_factory=dict)
    choices: Mapping[str, Collection[str]] = field(default_factory=dict)
