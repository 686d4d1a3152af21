"""JSON Patch as the original applies it."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamassu.kernel.errors import LamassuError, RuleViolation, TooLarge
from lamassu.kernel.json_patch import Patch, apply, apply_to_object


def patched(document: Any, *patches: tuple[Any, ...]) -> Any:
    return apply(document, [Patch(*patch) for patch in patches])


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [
        ({}, ("add", "/a", 1), {"a": 1}),
        ({"a": 1}, ("add", "/a", 2), {"a": 2}),
        ({}, ("add", "/a/b/c", 1), {"a": {"b": {"c": 1}}}),
        ({}, ("add", "/x/-", 1), {"x": [1]}),
        ({}, ("add", "/x/0", 1), {"x": [1]}),
        ({}, ("add", "/x/0/y", 1), {"x": [{"y": 1}]}),
        ({"x": None}, ("add", "/x/y", 1), {"x": {"y": 1}}),
        (None, ("add", "/x", 1), {"x": 1}),
        ({"x": [1, 3]}, ("add", "/x/1", 2), {"x": [1, 2, 3]}),
        ({"x": [1]}, ("add", "/x/-", 2), {"x": [1, 2]}),
        ({"x": [1]}, ("add", "/x/1", 2), {"x": [1, 2]}),
        ({}, ("add", "/a~1b~0c", 1), {"a/b~c": 1}),
        ({}, ("add", "/~01", 1), {"~1": 1}),
        ({}, ("add", "/", 1), {"": 1}),
        ({"a": 1}, ("add", "", {"b": 2}), {"b": 2}),
        ({"a": 1}, ("replace", "", {"b": 2}), {"b": 2}),
        ({"a": 1}, ("replace", "/a", {"b": 2}), {"a": {"b": 2}}),
        ({"a": [1, 2]}, ("replace", "/a/1", 3), {"a": [1, 3]}),
        ({"a": 1}, ("remove", "/a"), {}),
        ({"a": [1, 2]}, ("remove", "/a/0"), {"a": [2]}),
        ({"a": 1}, ("remove", "/b"), {"a": 1}),
        ({"a": 1}, ("remove", "/b/c"), {"a": 1}),
        ({"a": 1}, ("remove", "/a/c"), {"a": 1}),
        ({"a": [1]}, ("remove", "/a/5"), {"a": [1]}),
        ({"a": {"b": [1]}}, ("test", "/a", {"b": [1.0]}), {"a": {"b": [1]}}),
    ],
)
def test_what_a_patch_does(document: Any, patch: tuple[Any, ...], result: Any) -> None:
    before = copy.deepcopy(document)

    assert patched(document, patch) == result
    assert document == before


@pytest.mark.parametrize(
    ("document", "patch"),
    [
        ({}, ("replace", "/a", 1)),
        ({"a": [1]}, ("replace", "/a/1", 1)),
        ({"a": [1]}, ("replace", "/a/-", 1)),
        ({"a": 1}, ("test", "/a", 2)),
        ({"a": 1}, ("test", "/a", True)),
        ({}, ("test", "/a", 1)),
        ({"a": 1}, ("move", "/a", 1)),
        ({"a": 1}, ("copy", "/a", 1)),
        ({"a": 1}, ("ADD", "/a", 1)),
        ({"a": 1}, ("add", "/a")),
        ({"a": 1}, ("add", "/a", None)),
        ({"a": 1}, ("replace", "/a", None)),
        ({"a": 1}, ("add", "a", 1)),
        ({"a": 1}, ("add", "/a/b", 1)),
        ({"a": 1}, ("add", "/a/b/c", 1)),
        ({"a": [1]}, ("add", "/a/5", 1)),
        ({"a": [1]}, ("add", "/a/-1", 1)),
        ({"a": [1]}, ("add", "/a/00", 1)),
        ({"a": [1]}, ("add", "/a/x", 1)),
        ({"a": [1]}, ("add", "/a/²", 1)),
        ({"a": 1}, ("remove", "")),
        ({}, ("add", "/a" * 33, 1)),
    ],
)
def test_a_patch_that_fails_is_named(document: Any, patch: tuple[Any, ...]) -> None:
    before = copy.deepcopy(document)

    with pytest.raises(RuleViolation) as caught:
        patched(document, ("add", "/first", 1), patch)

    assert (caught.value.code, caught.value.field) == ("patch_failed", "patches.1")
    assert document == before


def test_no_patches_change_nothing() -> None:
    assert patched({"a": 1}) == {"a": 1}
    assert patched(None) is None


def test_a_document_that_has_to_be_an_object_stays_one() -> None:
    assert apply_to_object({"a": 1}, [Patch("add", "", {"b": 1})]) == {"b": 1}
    with pytest.raises(RuleViolation, match="object"):
        apply_to_object({"a": 1}, [Patch("add", "", [1])])


def test_patches_and_their_result_are_bounded() -> None:
    with pytest.raises(RuleViolation, match="256"):
        patched({}, *[("add", "/a", 1)] * 257)
    with pytest.raises(TooLarge):
        patched({"a": "x" * 200_000}, ("add", "/b", "x" * 200_000))


POINTERS = st.lists(
    st.sampled_from(["a", "b", "0", "1", "-", "", "~0", "~1", "~2"]) | st.text(max_size=3),
    max_size=4,
).map(lambda tokens: "".join(f"/{token}" for token in tokens))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "0"]), inner, max_size=3)
    ),
    max_leaves=8,
)
PATCHES = st.builds(
    Patch,
    op=st.sampled_from(["add", "remove", "replace", "test", "move", "nonsense"]),
    path=POINTERS | st.text(max_size=4),
    value=VALUES,
)


@given(VALUES, st.lists(PATCHES, max_size=4))
def test_any_patch_applies_or_is_refused(document: Any, patches: list[Patch]) -> None:
    before = json.dumps(document)
    try:
        result = apply(document, patches)
    except LamassuError:
        result = None
    json.dumps(result)
    assert json.dumps(document) == before
