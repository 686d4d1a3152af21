"""One request, as a handler sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, overload
from urllib.parse import parse_qsl

from pydantic import BaseModel
from starlette.responses import Response

from lamassu.kernel.errors import Malformed
from lamassu.kernel.identity import Caller, Peer
from lamassu.kernel.listing import FieldType, Filterable, ListQuery, Page
from lamassu.kernel.records import Json
from lamassu.platform.http.answers import json_bytes, json_bytes_answer
from lamassu.platform.http.bookmarks import Bookmarks
from lamassu.platform.http.json_input import parse_json
from lamassu.platform.http.listing_query import parse_list_query
from lamassu.platform.http.wire import WireModel

if TYPE_CHECKING:
    from lamassu.platform.http.routing import MountedRoute

M = TypeVar("M", bound=WireModel)
T = TypeVar("T")
_MAX_ARGUMENTS = 128


class Call:
    """A request that was let in: its caller may, its body is read and decoded."""

    def __init__(
        self,
        *,
        route: MountedRoute,
        scope: Mapping[str, Any],
        caller: Caller,
        peer: Peer,
        path: Mapping[str, str],
        public_host: str,
        bookmarks: Bookmarks,
    ) -> None:
        """`public_host` is the configured name (with its port) that clients know us by."""
        self.route = route
        self.caller = caller
        self.peer = peer
        self.path = path
        self.public_host = public_host
        self.raw = b""
        self.body: WireModel | None = None
        self._scope = scope
        self._bookmarks = bookmarks

    @property
    def method(self) -> str:
        """The method as sent (`HEAD` stays `HEAD`)."""
        return str(self._scope["method"])

    @property
    def url_path(self) -> str:
        """The decoded path of the request, without its query."""
        return str(self._scope["path"])

    @property
    def request_id(self) -> str:
        return self.caller.request_id

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """Header fields by lower-case name; of a repeated one, the last."""
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self._scope["headers"]
        }

    @cached_property
    def query(self) -> Mapping[str, Sequence[str]]:
        """The query string, all values of each name. Raises `Malformed`."""
        raw: bytes = self._scope.get("query_string", b"")
        if not raw:
            return {}
        try:
            pairs = parse_qsl(
                raw.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_MAX_ARGUMENTS,
            )
        except ValueError:
            raise Malformed(
                f"the query string is not percent-encoded UTF-8 of at most {_MAX_ARGUMENTS} fields"
            ) from None
        values: dict[str, list[str]] = {}
        for name, value in pairs:
            if "\0" in value:
                raise Malformed("an argument holds a NUL character", field=name)
            values.setdefault(name, []).append(value)
        return values

    @overload
    def argument(self, name: str) -> str | None: ...
    @overload
    def argument(self, name: str, default: str) -> str: ...
    def argument(self, name: str, default: str | None = None) -> str | None:
        """A query argument; of a repeated one, the last."""
        values = self.query.get(name)
        return values[-1] if values else default

    def decoded(self, model: type[M]) -> M:
        """The body, typed; `model` is the route's `body`."""
        if not isinstance(self.body, model):
            raise TypeError(f"the route decodes {type(self.body)}, not {model}")
        return self.body

    @property
    def document(self) -> Mapping[str, Json]:
        """What is asked, for people to read and to be compared: two ways to write one JSON body
        make no difference. Raises `Malformed`."""
        return {
            "method": self.method,
            "route": self.route.path,
            "path": self.url_path.rstrip("/"),
            "query": {name: list(values) for name, values in self.query.items()},
            "body": parse_json(self.raw) if self.raw else None,
        }

    @cached_property
    def listing(self) -> ListQuery:
        """The page asked for. Raises `Malformed`."""
        fields = self.route.route.listing
        if fields is None:
            raise TypeError(f"{self.route.path} is no list route")
        bookmark = self.argument("bookmark")
        if not bookmark:
            return parse_list_query(self.query, fields)
        query = self._bookmarks.read(bookmark, binding=self._binding)
        if not _known(query, fields):  # the fields changed with an upgrade
            raise Malformed("not a valid bookmark", code="invalid_bookmark", field="bookmark")
        return query

    def bookmark(self, after: tuple[str | float | None, str]) -> str:
        """The bookmark of the page after this one."""
        return self._bookmarks.write(self.listing, after, binding=self._binding)

    @property
    def _binding(self) -> str:
        path = self.url_path
        return f"{path.rstrip('/')} {self.caller.principal.id}"


def page_answer(call: Call, page: Page[T], encode: Callable[[T], BaseModel]) -> Response:
    """`{"next": bookmark or "", "list": [...]}`."""
    following = call.bookmark(page.after) if page.after is not None else ""
    items = b",".join(json_bytes(encode(item)) for item in page.items)
    # a bookmark is base64url: nothing in it to escape
    return json_bytes_answer(b'{"next":"%b","list":[%b]}' % (following.encode("ascii"), items))


def _known(query: ListQuery, fields: Filterable) -> bool:
    names = [condition.field for condition in query.filters]
    if query.sort_by is not None:
        names.append(query.sort_by)
        if bool(query.sort_path) != (fields.fields.get(query.sort_by) is FieldType.JSON):
            return False
    return all(name in fields.fields for name in names)
