"""`docs/compatibility.md` says of each route whether it works; the mounted routes must agree."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lamassu.platform.http import RouteTable
from lamassu.wiring.routes import public_mounts

PAGE = Path(__file__).resolve().parents[1] / "docs" / "compatibility.md"
ROW = re.compile(r"^\| (GET|POST|PUT|PATCH|DELETE) (\S+) \| (works|later|501) \|", re.MULTILINE)
SECTION = re.compile(r"^## .*?`(/api/[a-z]+)`.*?$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)


def rows() -> list[tuple[str, str, str]]:
    """(method, whole path, works or later) of every row of the page."""
    found = []
    for prefix, text in SECTION.findall(PAGE.read_text()):
        for method, path, today in ROW.findall(text):
            found.append((method, prefix + path, today))
    return found


def shape(path: str) -> str:
    """A path with the names of its parameters forgotten."""
    return re.sub(r"\{[^}]+\}", "{}", path)


def all_routes() -> RouteTable:
    """The table of the HTTPS listener; no handler is called, so no service is needed."""
    names = ("kms", "ca", "va", "dms", "devices", "alerts", "issuance_log")
    return RouteTable(public_mounts(cast(Any, SimpleNamespace(**dict.fromkeys(names)))))


@pytest.mark.parametrize(("method", "path", "today"), rows())
def test_the_page_tells_the_truth(method: str, path: str, today: str) -> None:
    mounted = {(route.method, shape(route.path)) for route in all_routes()}

    assert ((method, shape(path)) in mounted) == (today != "later")


def test_the_page_has_every_route_of_the_original() -> None:
    assert len(rows()) >= 85
