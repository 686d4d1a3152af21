"""Answers as tables for people, JSON for programs, PEM for other tools."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from lamassu.cli.options import fail, out

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?Z")
_COLOURS = {
    "ACTIVE": "green",
    "REVOKED": "red",
    "EXPIRED": "red",
    "DECOMMISSIONED": "dim",
    "NO_IDENTITY": "yellow",
    "EXPIRING_SOON": "yellow",
    "RENEWAL_PENDING": "yellow",
    "INACTIVE": "yellow",
}


class Format(StrEnum):
    """What `-o` takes."""

    TABLE = "table"
    JSON = "json"
    PEM = "pem"


class PlainFormat(StrEnum):
    """What `-o` takes where there is no certificate to show."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("-o", "--output", help="How to show it.")]
PlainOutput = Annotated[PlainFormat, typer.Option("-o", "--output", help="How to show it.")]


@dataclass(frozen=True)
class Column:
    """A heading and where its value stands: a dotted path, or a function of the item."""

    heading: str
    value: str | Callable[[Mapping[str, Any]], object]

    def of(self, item: Mapping[str, Any]) -> str:
        """The value as text, without characters that a terminal would obey."""
        found = self.value(item) if callable(self.value) else at(item, self.value)
        return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in _text(found))


def at(item: object, path: str) -> object:
    """What stands at a dotted path; `None` where the path ends early."""
    for part in path.split("."):
        item = item.get(part) if isinstance(item, Mapping) else None
    return item


def revocation_reason(certificate: str) -> Callable[[Mapping[str, Any]], object]:
    """The reason that stands at a path; the wire has one for certificates never revoked too."""

    def reason(item: Mapping[str, Any]) -> object:
        found = at(item, certificate) if certificate else item
        if not isinstance(found, Mapping) or found.get("status") != "REVOKED":
            return None
        return found.get("revocation_reason")

    return reason


def show_list(
    items: Sequence[Mapping[str, Any]],
    columns: Sequence[Column],
    output: Format | PlainFormat,
    *,
    certificate: str = "",
) -> None:
    """Show a list; `certificate` is the path of the certificate that `pem` writes."""
    if output.value == Format.JSON:
        typer.echo(json.dumps(list(items), indent=2, ensure_ascii=False))
    elif output.value == Format.PEM:
        for item in items:
            _write_pem(item, certificate)
    elif not items:
        out.print("[dim]none[/dim]")
    else:
        table = _table(items, columns)
        if _fits(table):
            _print(table)
            return
        for number, item in enumerate(items):
            if number:
                out.print()
            _print(_sheet(item, columns))


def show_one(
    item: Mapping[str, Any],
    columns: Sequence[Column],
    output: Format | PlainFormat,
    *,
    certificate: str = "",
) -> None:
    """Show one resource."""
    if output.value == Format.JSON:
        typer.echo(json.dumps(item, indent=2, ensure_ascii=False))
    elif output.value == Format.PEM:
        _write_pem(item, certificate)
    else:
        _print(_sheet(item, columns))


def _table(items: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> Table:
    """A row for each. What has no space is never folded: ids are there to be copied."""
    rows = [[column.of(item) for column in columns] for item in items]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, texts in zip(columns, zip(*rows, strict=True), strict=True):
        whole = not any(" " in text for text in texts)
        table.add_column(column.heading, overflow="fold", no_wrap=whole)
    for row in rows:
        table.add_row(*map(_coloured, row))
    return table


def _sheet(item: Mapping[str, Any], columns: Sequence[Column]) -> Table:
    """A line for each of one item's values."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for column in columns:
        if text := column.of(item):
            table.add_row(f"[bold]{column.heading}[/bold]", _coloured(text))
    return table


def _fits(table: Table) -> bool:
    """Whether the terminal is wide enough for every word."""
    if not out.is_terminal:
        return True
    widest = out.options.update(max_width=10_000)
    return Measurement.get(out, widest, table).minimum <= out.width


def _print(table: Table) -> None:
    """As wide as the terminal; as wide as it takes where something else reads it."""
    if out.is_terminal:
        out.print(table)
        return
    widest = out.options.update(max_width=10_000)
    Console(width=Measurement.get(out, widest, table).maximum, highlight=False).print(table)


def _write_pem(item: Mapping[str, Any], path: str) -> None:
    found = at(item, path)
    try:
        pem = base64.b64decode(str(found or ""), validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        pem = ""
    if not pem.startswith("-----BEGIN"):
        fail("the answer holds no certificate")
    typer.echo(pem, nl=not pem.endswith("\n"))


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_text(member) for member in value)
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False) if value else ""
    return _short_time(str(value))


def _short_time(text: str) -> str:
    """A time of the wire to the minute; the one that means "never" as nothing."""
    found = _TIME.fullmatch(text)
    if found is None:
        return text
    return "" if found[1] == "0001-01-01" else f"{found[1]} {found[2]}"


def _coloured(text: str) -> str:
    colour = _COLOURS.get(text)
    return f"[{colour}]{text}[/{colour}]" if colour else escape(text)
