"""The table of routes: what there is, who may, and how a path finds its route."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel
from starlette.responses import Response

from lamassu.kernel.errors import LamassuError
from lamassu.kernel.listing import Filterable
from lamassu.platform.http.wire import WireModel

if TYPE_CHECKING:
    from lamassu.platform.http.call import Call

INTERNAL_PREFIX = "/internal"
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})

# Decision 1: what is open to everybody, by the path as mounted; nothing else can be.
# All are read; only OCSP is asked by POST as well.
PUBLIC_PATHS: Mapping[str, re.Pattern[str]] = {
    "health": re.compile(r"(/api/[a-z]+)?/health(/live|/ready)?"),
    "OCSP": re.compile(r"(/api/va)?(/v1)?/ocsp(/\{[^/]+\})?|/|/\{[^/]+\}"),
    "CRL": re.compile(r"(/api/va)?(/v1)?/crl/\{[^/]+\}|/(ca|crl)/\{[^/]+\}\.crl"),
    "revocation filter": re.compile(
        r"/api/va/filter/\{[^/]+\}(/delta)?|/ca/\{[^/]+\}\.filter(-delta)?"
    ),
    "caIssuers": re.compile(r"(/api/va)?/(ca|ca-issuers|aia)/\{[^/]+\}(\.(cer|crt|p7c))?"),
    "EST": re.compile(
        r"(/api/dmsmanager)?/\.well-known/est(/\{[^/]+\})?/(cacerts|csrattrs|renewal-info/\{[^/]+\})"
    ),
    "API description": re.compile(r"/api/(openapi\.json|docs)"),  # in development mode only
}


class AccessKind(StrEnum):
    """How a route decides who may."""

    PUBLIC = "public"  # anybody
    EST = "est"  # the DMS judges the peer, behind the route
    ACTION = "action"  # a principal with the right
    INTERNAL = "internal"  # the named service principals


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call a route. `scope` names the path parameter of the object that the right is on."""

    kind: AccessKind
    name: str = ""
    scope: str | None = None
    principals: tuple[str, ...] = ()

    PUBLIC: ClassVar[Access]
    EST: ClassVar[Access]

    @classmethod
    def action(cls, name: str, scope: str | None = None) -> Access:
        """A principal that has the right `resource:verb`, such as `ca:read`."""
        if not re.fullmatch(r"[a-z][a-z_-]*:[a-z][a-z_-]*", name):
            raise ValueError(f"an action is resource:verb, not {name!r}")
        return cls(AccessKind.ACTION, name, scope)

    @classmethod
    def internal(cls, *principals: str) -> Access:
        """Only these principals (`service/est`), whoever else may everything."""
        if not principals:
            raise ValueError("an internal route names its principals")
        return cls(AccessKind.INTERNAL, principals=principals)


Access.PUBLIC = Access(AccessKind.PUBLIC)
Access.EST = Access(AccessKind.EST)


@dataclass(frozen=True, slots=True)
class Creation:
    """The event that says what a request made, and so holds its answer: all of its data, or
    `part` of it. It carries no secret, so neither does what is kept of the answer. With `etag`
    the event's version is the answer's ETag. `completed` adds what the answer tells beside what
    was made, and tells anew."""

    event_type: str
    answer: type[BaseModel]
    part: str | None = None
    etag: bool = False
    completed: Callable[[Any], Awaitable[BaseModel]] | None = None


@dataclass(frozen=True, kw_only=True)
class Route:
    """One method on one path, with all that is decided before its handler runs.

    `path` is relative to the mount; `{id}` takes a segment, `{rest:path}` all that is left.
    `body` is decoded into `call.body`; with `empty_body` no bytes at all act as `{}`.
    `answer` is for the API description, and so are `media_types` where it is not JSON,
    `other_statuses` and what they mean, of the same form unless `other_answers` has theirs, and
    `headers` that it may carry, each with what it means; so is `deferrable`: the request may have
    to wait for somebody's agreement (202), and is repeated with the header that names it.
    Refusals are known by the route's kind; `refuses` are statuses that its kind has not.
    `creates` tells what it makes: it may be sent again with the same Idempotency-Key, and what it
    answers must be what the event says.
    `body_limit` is in bytes, in place of the application's. `encode_error` answers every error
    of the route in place of the JSON error object (OCSP).
    """

    method: str
    path: str
    access: Access
    handler: Callable[[Call], Awaitable[Response]]
    summary: str
    description: str = ""
    body: type[WireModel] | None = None
    empty_body: bool = False
    answer: type[BaseModel] | None = None
    media_types: Sequence[str] = ()
    status: int = 200
    other_statuses: Mapping[int, str] = field(default_factory=dict)
    other_answers: Mapping[int, type[BaseModel]] = field(default_factory=dict)
    refuses: Collection[int] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    listing: Filterable | None = None
    body_limit: int | None = None
    encode_error: Callable[[LamassuError], Response] | None = None
    deferrable: bool = False
    creates: Sequence[Creation] = ()
    documented: bool = True


@dataclass(frozen=True)
class Mount:
    """A service's routes under a prefix (`""` for the root)."""

    prefix: str
    service: str
    routes: Sequence[Route]


@dataclass(frozen=True, slots=True)
class MountedRoute:
    """A route where it can be reached; `path` is the whole template."""

    service: str
    path: str
    route: Route

    @property
    def method(self) -> str:
        return self.route.method

    @property
    def access(self) -> Access:
        return self.route.access


@dataclass(slots=True)
class _Node:
    """What may follow a segment: literals first, then patterns, then the rest of the path."""

    routes: dict[str, MountedRoute] = field(default_factory=dict)
    literals: dict[str, _Node] = field(default_factory=dict)
    patterns: list[tuple[str, re.Pattern[str] | None, str, _Node]] = field(default_factory=list)
    rest: tuple[str, dict[str, MountedRoute]] | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """The route found, or the methods that the path would have had."""

    route: MountedRoute | None
    values: dict[str, str]
    allowed: frozenset[str] = frozenset()


_PARAMETER = re.compile(r"\{([A-Za-z0-9_-]+)(:path)?\}")


class RouteTable:
    """All mounted routes. Iterating walks them; `find` is the one way that a request takes."""

    def __init__(self, mounts: Sequence[Mount]) -> None:
        """Raises `ValueError` for a route that breaks the rules of access or stands twice."""
        self._routes: list[MountedRoute] = []
        self._static: dict[str, dict[str, MountedRoute]] = {}
        self._root = _Node()
        for mount in mounts:
            for route in mount.routes:
                self.add(mount, route)

    def __iter__(self) -> Iterator[MountedRoute]:
        return iter(self._routes)

    def __len__(self) -> int:
        return len(self._routes)

    def add(self, mount: Mount, route: Route) -> None:
        """Mount one route."""
        mounted = MountedRoute(mount.service, (mount.prefix + route.path) or "/", route)
        _check(mounted)
        methods = self._methods_at(mounted.path)
        if route.method in methods:
            raise ValueError(f"{route.method} {mounted.path} is mounted twice")
        methods[route.method] = mounted
        self._routes.append(mounted)

    def find(self, method: str, path: str) -> Match:
        """The route of a request; one trailing slash is forgiven. HEAD finds GET's."""
        if method == "HEAD":
            method = "GET"
        match = self._find(method, path)
        if match.route is None and len(path) > 1 and path.endswith("/"):
            shorter = self._find(method, path[:-1])
            if shorter.route is not None or not match.allowed:
                return shorter
        return match

    def _find(self, method: str, path: str) -> Match:
        methods = self._static.get(path)
        if methods is not None:
            return Match(methods.get(method), {}, frozenset(methods))
        allowed: set[str] = set()
        values: dict[str, str] = {}
        found = _descend(
            self._root, path.split("/"), 1, method=method, values=values, allowed=allowed
        )
        return Match(found, values, frozenset(allowed))

    def _methods_at(self, path: str) -> dict[str, MountedRoute]:
        if not path.startswith("/"):
            raise ValueError(f"the path {path!r} does not begin with /")
        if "{" not in path:
            return self._static.setdefault(path, {})
        node = self._root
        segments = path.split("/")[1:]
        for index, segment in enumerate(segments):
            whole = _PARAMETER.fullmatch(segment)
            if whole and whole[2]:
                if index != len(segments) - 1:
                    raise ValueError(f"{path}: nothing can follow {segment}")
                if node.rest is None:
                    node.rest = (whole[1], {})
                elif node.rest[0] != whole[1]:
                    raise ValueError(f"{path}: {segment} has another name elsewhere")
                return node.rest[1]
            node = _child(node, segment, whole[1] if whole else None)
        return node.routes


def _child(node: _Node, segment: str, whole: str | None) -> _Node:
    if "{" not in segment:
        return node.literals.setdefault(segment, _Node())
    for known, _, _, child in node.patterns:
        if known == segment:
            return child
    child = _Node()
    if whole is not None:
        node.patterns.append((segment, None, whole, child))
        return child
    found = _PARAMETER.search(segment)
    if found is None:
        raise ValueError(f"{segment!r} is no path segment")
    before, after = segment[: found.start()], segment[found.end() :]
    pattern = re.compile(f"{re.escape(before)}([^/]+){re.escape(after)}")
    # `{id}.crl` is asked before `{id}`, which would take it too
    node.patterns.insert(0, (segment, pattern, found[1], child))
    return child


def _descend(
    node: _Node,
    segments: list[str],
    index: int,
    *,
    method: str,
    values: dict[str, str],
    allowed: set[str],
) -> MountedRoute | None:
    if index == len(segments):
        allowed.update(node.routes)
        return node.routes.get(method)
    segment = segments[index]
    literal = node.literals.get(segment)
    if literal is not None:
        here: set[str] = set()
        found = _descend(literal, segments, index + 1, method=method, values=values, allowed=here)
        allowed |= here
        if found is not None or here:  # a path that is spelt out is what it says, and no id
            return found
    for _, pattern, name, child in node.patterns:
        value = segment
        if pattern is not None:
            matched = pattern.fullmatch(segment)
            if matched is None:
                continue
            value = matched[1]
        if not value:
            continue
        found = _descend(child, segments, index + 1, method=method, values=values, allowed=allowed)
        if found is not None:
            values[name] = value
            return found
    if node.rest is not None:
        rest = "/".join(segments[index:])
        name, methods = node.rest
        if rest:
            allowed.update(methods)
            if method in methods:
                values[name] = rest
                return methods[method]
    return None


def _check(mounted: MountedRoute) -> None:
    route, path = mounted.route, mounted.path
    name = f"{route.method} {path}"
    if route.method not in METHODS:
        raise ValueError(f"{name}: the method is one of {', '.join(sorted(METHODS))}")
    if not isinstance(route.access, Access):
        raise ValueError(f"{name}: has no access")
    kind, scope = route.access.kind, route.access.scope
    if kind is AccessKind.PUBLIC and not _may_be_public(route.method, path):
        raise ValueError(f"{name}: is no route that may be public ({', '.join(PUBLIC_PATHS)})")
    if kind is AccessKind.EST and "/.well-known/est/" not in path:
        raise ValueError(f"{name}: only EST paths leave the judging to a DMS")
    inside = path.startswith(f"{INTERNAL_PREFIX}/")
    if inside != (kind is AccessKind.INTERNAL):
        raise ValueError(f"{name}: internal routes, and no others, stand under {INTERNAL_PREFIX}")
    parameters = [found[1] for found in _PARAMETER.finditer(path)]
    if len(parameters) != len(set(parameters)):
        raise ValueError(f"{name}: a path parameter stands twice")
    if scope is not None and scope not in parameters:
        raise ValueError(f"{name}: its scope {scope!r} is no parameter of the path")


def _may_be_public(method: str, path: str) -> bool:
    kinds = [name for name, pattern in PUBLIC_PATHS.items() if pattern.fullmatch(path)]
    return bool(kinds) and (method == "GET" or (method == "POST" and kinds == ["OCSP"]))
