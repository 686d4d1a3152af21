"""Bookmarks: where a list goes on, signed, for the same route and the same principal only."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from lamassu.kernel.errors import Malformed
from lamassu.kernel.listing import Filter, FilterValue, ListQuery, Operator

_TAG_LENGTH = 16
_MAX_LENGTH = 16 * 1024
_VERSION = 2


class Bookmarks:
    """Makes and reads bookmarks under one key of the installation."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError("a bookmark key has at least 32 bytes")
        self._key = key

    def write(
        self, query: ListQuery, after: tuple[str | float | None, str], *, binding: str
    ) -> str:
        """The bookmark of the page of `query` that follows `after`.

        `binding` names route and principal; only the same binding reads it.
        """
        document = [
            _VERSION,
            query.page_size,
            query.sort_by,
            list(query.sort_path),
            query.descending,
            [[f.field, f.operator.value, _plain(f.value)] for f in query.filters],
            list(after),
        ]
        payload = json.dumps(document, separators=(",", ":")).encode("ascii")
        token = base64.urlsafe_b64encode(self._tag(payload, binding) + payload)
        return token.rstrip(b"=").decode("ascii")

    def read(self, bookmark: str, *, binding: str) -> ListQuery:
        """The query in a bookmark that `write` made. Raises `Malformed` for any other text."""
        payload = self._verified(bookmark, binding)
        version, *content = json.loads(payload)
        if version != _VERSION:  # made by another release
            raise _not_valid()
        page_size, sort_by, sort_path, descending, filters, after = content
        query = ListQuery(page_size=page_size, sort_by=sort_by, descending=descending)
        return replace(
            query,
            sort_path=tuple(sort_path),
            filters=tuple(Filter(name, Operator(op), _value(v)) for name, op, v in filters),
            after=(after[0], after[1]),
        )

    def _verified(self, bookmark: str, binding: str) -> bytes:
        if len(bookmark) > _MAX_LENGTH or not bookmark.isascii():
            raise _not_valid()
        try:
            token = base64.b64decode(
                bookmark + "=" * (-len(bookmark) % 4), altchars=b"-_", validate=True
            )
        except (binascii.Error, ValueError):
            raise _not_valid() from None
        tag, payload = token[:_TAG_LENGTH], token[_TAG_LENGTH:]
        if not hmac.compare_digest(tag, self._tag(payload, binding)):
            raise _not_valid()
        return payload

    def _tag(self, payload: bytes, binding: str) -> bytes:
        bound = binding.encode("utf-8", "surrogatepass")
        message = len(bound).to_bytes(4, "big") + bound + payload
        return hmac.digest(self._key, message, hashlib.sha256)[:_TAG_LENGTH]


def _not_valid() -> Malformed:
    return Malformed("not a valid bookmark", code="invalid_bookmark", field="bookmark")


def _plain(value: FilterValue) -> Any:
    if isinstance(value, datetime):
        return {"t": value.astimezone(UTC).isoformat()}
    return list(value) if isinstance(value, tuple) else value


def _value(plain: Any) -> FilterValue:
    if isinstance(plain, dict):
        return datetime.fromisoformat(plain["t"])
    if isinstance(plain, list):
        return tuple(plain)
    value: str | float = plain
    return value
