"""`docs/threat-model.md` names the test that attacks each rule; each has to exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs" / "threat-model.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
RULES = (1, 2, 3, 4, 7, 8, 9, 10, 12, 13, 15, 16, 17, 21, 24, 25, 28, 31, 32, 35)


def functions_of(path: Path) -> set[str]:
    """The test functions that a file defines."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, functions)}


def test_every_test_that_the_page_names_exists() -> None:
    files = {name: REPOSITORY / name for name, _ in NAMED}
    missing = [name for name, path in files.items() if not path.is_file()]
    assert not missing
    defined = {name: functions_of(path) for name, path in files.items()}
    assert not [f"{file}::{test}" for file, test in NAMED if test not in defined[file]]


def test_every_rule_has_a_test_that_attacks_it() -> None:
    rows = dict(re.findall(r"^\| (\d+) \|.*\|(.*)\|$", PAGE, re.MULTILINE))
    for rule in RULES:
        assert "tests/" in rows.get(str(rule), ""), f"rule {rule} has no attack"
