"""`docs/compatibility.md` says of each route whether it works; the mounted routes must agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.routes import mounted

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


@pytest.mark.parametrize(("method", "path", "today"), rows())
def test_the_page_tells_the_truth(method: str, path: str, today: str) -> None:
    there = {(route.method, shape(route.path)) for route in mounted()["https"]}

    assert ((method, shape(path)) in there) == (today != "later")


def test_the_page_has_every_route_of_the_original() -> None:
    assert len(rows()) >= 85
