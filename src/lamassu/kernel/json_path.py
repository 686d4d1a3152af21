"""Questions to JSON documents: the part of SQL/JSON paths that all our databases answer alike.

PostgreSQL answers them itself (`jsonb @@ jsonpath`, lax mode), for SQLite `holds` does. Only what
both understand in the same way is taken: member and element steps, filters, comparisons,
`exists`, `starts with`, `is unknown`, and `&&`, `||`, `!`. Regular expressions, arithmetic,
methods, variables and strict mode are refused with what to write in their place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TypeAlias

from lamassu.kernel.errors import Malformed

MAX_LENGTH = 500
_MAX_DEPTH = 32
_MAX_KEYS = 16

Scalar: TypeAlias = str | bool | Decimal | None
Truth: TypeAlias = bool | None  # None is unknown, as SQL has it

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")
      | (?P<number>-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?(?![\w.]))
      | (?P<symbol>\?|==|!=|<>|<=|>=|<|>|&&|\|\||!|\(|\)|\[|\]|\.|\*|\$(?!\w)|@|,)
      | (?P<word>[^\W\d]\w*)
    )""",
    re.X | re.ASCII,
)
_COMPARISONS = {"==": "==", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


@dataclass(frozen=True, slots=True)
class Member:
    """`.key`; without a key `.*`."""

    key: str | None


@dataclass(frozen=True, slots=True)
class Element:
    """`[n]`; without a number `[*]`."""

    index: int | None


@dataclass(frozen=True, slots=True)
class Where:
    """`?(predicate)`."""

    predicate: Predicate


@dataclass(frozen=True, slots=True)
class Path:
    """What steps lead to, from `$` or, in a filter, from `@`."""

    from_root: bool
    steps: tuple[Member | Element | Where, ...]


@dataclass(frozen=True, slots=True)
class Literal:
    """A scalar."""

    value: Scalar


Operand: TypeAlias = Path | Literal


@dataclass(frozen=True, slots=True)
class Comparison:
    """Any item of one side with any of the other."""

    left: Operand
    operator: str
    right: Operand


@dataclass(frozen=True, slots=True)
class StartsWith:
    """Whether any item is a text that begins so."""

    left: Operand
    beginning: str


@dataclass(frozen=True, slots=True)
class Exists:
    """Whether a path leads anywhere."""

    path: Path


@dataclass(frozen=True, slots=True)
class Not:
    """Unknown stays unknown."""

    predicate: Predicate


@dataclass(frozen=True, slots=True)
class IsUnknown:
    """Whether nobody can say."""

    predicate: Predicate


@dataclass(frozen=True, slots=True)
class Both:
    """`&&`."""

    left: Predicate
    right: Predicate


@dataclass(frozen=True, slots=True)
class Either:
    """`||`."""

    left: Predicate
    right: Predicate


Predicate: TypeAlias = Comparison | StartsWith | Exists | Not | IsUnknown | Both | Either
Tick: TypeAlias = Callable[[], None]


def _unhurried() -> None:
    """For those who wait as long as it takes."""


def parse_predicate(text: str) -> Predicate:
    """The question that a text asks. Raises `Malformed` (`invalid_json_path`)."""
    parser = _Parser(text)
    parser.skip_lax()
    predicate = parser.predicate(0)
    parser.end()
    return predicate


def parse_sort_path(text: str) -> tuple[str, ...]:
    """The keys of `$.a.b`. Raises `Malformed` (`invalid_json_path`)."""
    parser = _Parser(text)
    path = parser.operand(0)
    parser.end()
    keys = [step.key for step in path.steps if isinstance(step, Member) and step.key is not None]
    if not path.from_root or not keys or len(keys) != len(path.steps) or len(keys) > _MAX_KEYS:
        raise _bad(f"a sort goes by a path of at most {_MAX_KEYS} keys such as $.site.name")
    return tuple(keys)


def written(predicate: Predicate) -> str:  # noqa: PLR0911 - one for each kind
    """The same question in one canonical way, which PostgreSQL and `parse_predicate` read."""
    match predicate:
        case Comparison(left, operator, right):
            return f"({_operand(left)} {operator} {_operand(right)})"
        case StartsWith(left, beginning):
            return f"({_operand(left)} starts with {_quoted(beginning)})"
        case Exists(path):
            return f"exists ({_operand(path)})"
        case Not(inner):
            return f"!({written(inner)})"
        case IsUnknown(inner):
            return f"({written(inner)}) is unknown"
        case Both(left, right):
            return f"({written(left)} && {written(right)})"
        case Either(left, right):
            return f"({written(left)} || {written(right)})"


def holds(predicate: Predicate, document: object, *, tick: Tick = _unhurried) -> Truth:
    """What PostgreSQL's `document @@ predicate` gives.

    `document` is decoded JSON whose numbers are `int` or `Decimal`. Filters within filters take
    a time that no document's size bounds: `tick` is called now and then, and may raise.
    """
    return _Judge(document, tick).judged(predicate, document)


def top_keys(predicate: Predicate) -> frozenset[str] | None:
    """The keys of the document itself that a question looks at; `None` for all of them."""
    found: set[str] = set()
    for path in _paths(predicate):
        if not path.from_root:
            continue
        first = next((step for step in path.steps if not isinstance(step, Element)), None)
        if not isinstance(first, Member) or first.key is None:
            return None
        found.add(first.key)
    return frozenset(found)


# --- reading --------------------------------------------------------------------------------


def _bad(text: str) -> Malformed:
    return Malformed(text, code="invalid_json_path")


class _Parser:
    """Recursive descent; each level of nesting is counted."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise _bad(f"a JSON path has at most {MAX_LENGTH} characters")
        self._tokens = list(_tokens(text))
        self._at = 0
        self._filters = 0  # that we are within

    def skip_lax(self) -> None:
        """`lax` is how we read anyway."""
        if self._peek() == ("word", "strict"):
            raise _bad("strict JSON paths are not offered; leave out 'strict'")
        if self._peek() == ("word", "lax"):
            self._at += 1

    def end(self) -> None:
        kind, text = self._peek()
        if kind == "word" and text == "like_regex":
            raise _bad("like_regex is not offered; use starts with, ==, or several filters")
        if kind:
            raise _bad(f"unexpected {text!r} in the JSON path")

    def predicate(self, depth: int) -> Predicate:
        left = self._conjunction(depth)
        while self._took("||"):
            left = Either(left, self._conjunction(depth))
        return left

    def _conjunction(self, depth: int) -> Predicate:
        left = self._negation(depth)
        while self._took("&&"):
            left = Both(left, self._negation(depth))
        return left

    def _negation(self, depth: int) -> Predicate:
        if depth > _MAX_DEPTH:
            raise _bad(f"a JSON path is nested at most {_MAX_DEPTH} deep")
        if self._took("!"):
            if self._peek() not in (("symbol", "("), ("word", "exists")):
                raise _bad("after ! comes a condition in parentheses")
            return Not(self._delimited(depth + 1))
        if self._peek() in (("symbol", "("), ("word", "exists")):
            return self._delimited(depth + 1)
        return self._comparison(depth + 1)

    def _delimited(self, depth: int) -> Predicate:
        if self._peek() == ("word", "exists"):
            self._at += 1
            self._expect("(")
            path = self.operand(depth)
            self._expect(")")
            return Exists(path)
        self._expect("(")
        inner = self.predicate(depth)
        self._expect(")")
        if self._peek() == ("word", "is"):
            self._at += 1
            if self._next() != ("word", "unknown"):
                raise _bad("after 'is' comes 'unknown'")
            return IsUnknown(inner)
        return inner

    def _comparison(self, depth: int) -> Predicate:
        left = self._operand_or_literal(depth)
        kind, text = self._peek()
        if (kind, text) == ("word", "starts"):
            self._at += 1
            if self._next() != ("word", "with"):
                raise _bad("after 'starts' comes 'with'")
            kind, text = self._next()
            if kind != "string":
                raise _bad("after 'starts with' comes a text in double quotes")
            return StartsWith(left, _unquoted(text))
        if kind != "symbol" or text not in _COMPARISONS:
            self._tell_what_is_missing(left)
        self._at += 1
        return Comparison(left, _COMPARISONS[text], self._operand_or_literal(depth))

    def _tell_what_is_missing(self, left: Operand) -> None:
        if self._peek()[0] == "" or self._peek() == ("symbol", ")"):
            shown = _operand(left)
            raise _bad(
                f"{shown} asks nothing; compare it ({shown} == ...) or write exists({shown})"
            )
        self.end()

    def _operand_or_literal(self, depth: int) -> Operand:
        kind, text = self._peek()
        if kind == "string":
            self._at += 1
            return Literal(_unquoted(text))
        if kind == "number":
            self._at += 1
            return Literal(_number(text))
        if kind == "word" and text in ("true", "false", "null"):
            self._at += 1
            return Literal({"true": True, "false": False, "null": None}[text])
        return self.operand(depth)

    def operand(self, depth: int) -> Path:
        """A path from `$` or `@`."""
        kind, text = self._next()
        if kind != "symbol" or text not in ("$", "@") or (text == "@" and not self._filters):
            raise _bad("a JSON path begins with $, as in $.site; @ stands in filters only")
        steps: list[Member | Element | Where] = []
        while True:
            if self._took("."):
                steps.append(self._member())
            elif self._took("["):
                steps.append(self._element())
            elif self._took("?"):
                self._expect("(")
                self._filters += 1
                steps.append(Where(self.predicate(depth + 1)))
                self._filters -= 1
                self._expect(")")
            else:
                return Path(text == "$", tuple(steps))

    def _member(self) -> Member:
        kind, text = self._next()
        if (kind, text) == ("symbol", "*") and self._peek() != ("symbol", "*"):
            return Member(None)
        if kind == "string":
            return Member(_unquoted(text))
        if kind != "word":
            raise _bad('after a dot comes a key; quote one with other characters: $."a-b"')
        if self._peek() == ("symbol", "("):
            raise _bad(f"the method .{text}() is not offered")
        return Member(text)

    def _element(self) -> Element:
        kind, text = self._next()
        index: int | None = None
        if kind == "number" and text.isdigit() and len(text) < 10:
            index = int(text)
        elif (kind, text) != ("symbol", "*"):
            raise _bad("in brackets stands * or the number of an element, from 0")
        if not self._took("]"):
            raise _bad("of the elements either one or all ([*]) can be named")
        return Element(index)

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _took(self, symbol: str) -> bool:
        if self._peek() != ("symbol", symbol):
            return False
        self._at += 1
        return True

    def _expect(self, symbol: str) -> None:
        if not self._took(symbol):
            self.end()
            raise _bad(f"the JSON path lacks a {symbol!r}")


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at, end = 0, len(text.rstrip())
    while at < end:
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise _bad(
                f"the JSON path cannot be read from {text[at : at + 20]!r} on; it may hold keys, "
                'elements, filters and comparisons, as in $.env == "prod"'
            )
        yield found.lastgroup, found[found.lastgroup]
        at = found.end()


def _unquoted(text: str) -> str:
    try:
        value: str = json.loads(text)
        value.encode()
    except (ValueError, UnicodeEncodeError):
        raise _bad(f"the text {text[:20]} in the JSON path has an unknown escape") from None
    if "\0" in value:
        raise _bad("a text in a JSON path has no NUL")
    return value


def _number(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise _bad(f"{text[:20]} is no number") from None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _operand(operand: Operand) -> str:
    if isinstance(operand, Literal):
        value = operand.value
        return f"{value:f}" if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False)
    parts = ["$" if operand.from_root else "@"]
    for step in operand.steps:
        match step:
            case Member(key):
                parts.append(".*" if key is None else f".{_quoted(key)}")
            case Element(index):
                parts.append("[*]" if index is None else f"[{index}]")
            case Where(predicate):
                parts.append(f"?({written(predicate)})")
    return "".join(parts)


def _paths(predicate: Predicate) -> Iterator[Path]:
    match predicate:
        case Not(inner) | IsUnknown(inner):
            yield from _paths(inner)
        case Both(left, right) | Either(left, right):
            yield from _paths(left)
            yield from _paths(right)
        case Comparison() | StartsWith() | Exists():
            for operand in _operands(predicate):
                if isinstance(operand, Path):
                    yield operand
                    for step in operand.steps:
                        if isinstance(step, Where):
                            yield from _paths(step.predicate)


def _operands(predicate: Comparison | StartsWith | Exists) -> Sequence[Operand]:
    match predicate:
        case Comparison(left, _, right):
            return left, right
        case StartsWith(left, _):
            return (left,)
        case Exists(path):
            return (path,)


# --- judging (lax mode, as PostgreSQL has it) -----------------------------------------------


class _Judge:
    """Asks questions of one document."""

    def __init__(self, root: object, tick: Tick) -> None:
        self._root = root
        self._tick = tick

    def judged(  # noqa: PLR0911 - one for each kind
        self, predicate: Predicate, current: object
    ) -> Truth:
        self._tick()
        match predicate:
            case Both(left, right):
                first = self.judged(left, current)
                second = False if first is False else self.judged(right, current)
                both = (first, second)
                return False if False in both else None if None in both else True
            case Either(left, right):
                first = self.judged(left, current)
                second = True if first is True else self.judged(right, current)
                both = (first, second)
                return True if True in both else None if None in both else False
            case Not(inner):
                verdict = self.judged(inner, current)
                return None if verdict is None else not verdict
            case IsUnknown(inner):
                return self.judged(inner, current) is None
            case Exists(path):
                return any(True for _ in self._items(path, current))
            case StartsWith(left, beginning):
                return _any(
                    item.startswith(beginning) if isinstance(item, str) else None
                    for item in self._compared(left, current)
                )
            case Comparison(left, operator, right):
                others = list(self._compared(right, current))
                return _any(
                    _compare(item, operator, other)
                    for item in self._ticking(self._compared(left, current))
                    for other in others
                )

    def _compared(self, operand: Operand, current: object) -> Iterator[object]:
        """A comparison looks into arrays."""
        if isinstance(operand, Literal):
            yield operand.value
            return
        for item in self._items(operand, current):
            if isinstance(item, list):
                yield from item
            else:
                yield item

    def _items(self, path: Path, current: object) -> Iterator[object]:
        items: list[object] = [self._root if path.from_root else current]
        for step in path.steps:
            items = [found for item in items for found in self._step(step, item)]
        yield from items

    def _step(self, step: Member | Element | Where, item: object) -> Iterator[object]:
        if isinstance(step, Element):
            elements = item if isinstance(item, list) else [item]
            if step.index is None:
                yield from elements
            elif step.index < len(elements):
                yield elements[step.index]
            return
        for each in item if isinstance(item, list) else [item]:
            if isinstance(step, Where):
                if self.judged(step.predicate, each):
                    yield each
            elif isinstance(each, Mapping):
                if step.key is None:
                    yield from each.values()
                elif step.key in each:
                    yield each[step.key]

    def _ticking(self, items: Iterator[object]) -> Iterator[object]:
        for item in items:
            self._tick()
            yield item


def _any(verdicts: Iterator[Truth]) -> Truth:
    unknown = False
    for verdict in verdicts:
        if verdict:
            return True
        unknown = unknown or verdict is None
    return None if unknown else False


def _compare(left: object, operator: str, right: object) -> Truth:
    if (left is None) != (right is None):
        return operator == "!="
    if isinstance(left, list | Mapping) or isinstance(right, list | Mapping):
        return None
    if left is None:
        return operator in ("==", "<=", ">=")
    if _kind(left) != _kind(right):
        return None
    order: int = (left > right) - (left < right)  # type: ignore[operator]
    return {
        "==": order == 0,
        "!=": order != 0,
        "<": order < 0,
        "<=": order <= 0,
        ">": order > 0,
        ">=": order >= 0,
    }[operator]


def _kind(value: object) -> type:
    if isinstance(value, bool):
        return bool
    return str if isinstance(value, str) else Decimal
