"""What SQLite lacks for JSON documents: paths as PostgreSQL has them, and their values' order."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache, partial

from lamassu.kernel.json_path import Predicate, Tick, holds, parse_predicate

MATCHES = "lamassu_json_matches"
SORTED = "lamassu_json_sorted"
LARGEST = 1.7e308
"""Numbers beyond sort as this: no double holds them."""
TEXT_LENGTH = 200
"""Characters by which texts are sorted: what a bookmark carries."""

TIME = (
    r"^(?!0000)([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"([T ]([01][0-9]|2[0-3]):([0-5][0-9])(:([0-5][0-9](\.[0-9]{1,6})?))?"
    r"(Z|([+-])([01][0-9]):?([0-5][0-9]))?)?$"
)
"""A date or time as ISO 8601 has it; read by Python and PostgreSQL alike."""
_TIME = re.compile(TIME, re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Watch:
    """Until when statements of a connection may run, if they are in a hurry (`time.monotonic`).

    SQLite itself looks at the clock between its own steps only, and one call from it may take
    longer than any patience.
    """

    deadline: float | None = None

    def tick(self) -> None:
        """Raises `TimeoutError`, which ends the statement."""
        if self.is_over():
            raise TimeoutError

    def is_over(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline


class WatchedConnection(sqlite3.Connection):
    """A connection with the watch that its functions heed."""

    watch: Watch


def register(connection: WatchedConnection) -> None:
    """Let statements of this connection use them."""
    connection.watch = Watch()
    matches = partial(_matches, connection.watch.tick)
    connection.create_function(MATCHES, 2, matches, deterministic=True)
    connection.create_function(SORTED, 3, _sorted, deterministic=True)


@lru_cache(maxsize=256)
def _predicate(text: str) -> Predicate:
    return parse_predicate(text)


def _matches(tick: Tick, document: str | None, predicate: str) -> bool | None:
    if document is None:
        return None
    return holds(_predicate(predicate), json.loads(document, parse_float=Decimal), tick=tick)


def _sorted(document: str | None, path: str, kind: str) -> float | str | None:
    """The value at a path (a JSON list of keys), if it is of this kind: number, time, text."""
    value: object = json.loads(document) if document is not None else None
    for key in json.loads(path):
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return json.dumps(value) if kind == "text" else None
    if isinstance(value, int | float):
        return _number(value) if kind == "number" else None
    if not isinstance(value, str):
        return None
    found = _TIME.match(value) if "\n" not in value else None
    if kind == "time":
        return _seconds(found) if found else None
    return value[:TEXT_LENGTH] if kind == "text" and not found else None


def _number(value: int | float) -> float:
    return float(max(min(value, LARGEST), -LARGEST))


def _seconds(found: re.Match[str]) -> float:
    """Since 1970, in UTC; a day that its month lacks is one of the next month."""
    hours, minutes, seconds = found[5] or "0", found[6] or "0", found[8] or "0"
    first = datetime(int(found[1]), int(found[2]), 1, tzinfo=UTC)
    days = (first - _EPOCH).days + int(found[3]) - 1
    away = int(found[12] or 0) * 3600 + int(found[13] or 0) * 60
    local = days * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    return float(local + away if found[11] == "-" else local - away)
