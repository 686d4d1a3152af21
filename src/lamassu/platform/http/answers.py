"""Answers as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response

from lamassu.platform.http.errors import JSON_TYPE


def json_answer(
    value: BaseModel | Sequence[BaseModel] | Mapping[str, object],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """`value` as JSON, fields under their wire names."""
    return json_bytes_answer(json_bytes(value), status=status, headers=headers)


def json_bytes_answer(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """JSON that is already written."""
    return Response(body, status, {"content-type": JSON_TYPE, **(headers or {})})


def empty_answer(status: int = 204, *, headers: Mapping[str, str] | None = None) -> Response:
    """No body."""
    return Response(None, status, headers)


def json_bytes(value: BaseModel | Sequence[BaseModel] | Mapping[str, object]) -> bytes:
    """`value` written as JSON."""
    if isinstance(value, BaseModel):
        return value.__pydantic_serializer__.to_json(value, by_alias=True)
    plain = dict(value) if isinstance(value, Mapping) else list(value)
    return to_json(plain, by_alias=True)
