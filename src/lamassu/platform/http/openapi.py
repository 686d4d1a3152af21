"""The API's description (OpenAPI 3.1), made from the table of routes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from lamassu.kernel.listing import Filterable
from lamassu.platform.http.listing_query import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, OPERATORS
from lamassu.platform.http.openapi_responses import (
    ERROR_SCHEMA,
    HEADERS,
    JSON,
    responses_of,
    shared_responses,
)
from lamassu.platform.http.routing import AccessKind, MountedRoute, Route

_REF = "#/components/schemas/{model}"
# How pydantic names a model whose name another has, too.
_MODULE_NAME = re.compile(
    r"lamassu__services__([a-z]+)__(?:[a-z_]+__)?([A-Z][A-Za-z]*(?:-[A-Za-z]+)?)"
)
_PARAMETER = re.compile(r"\{([A-Za-z0-9_-]+)(?::path)?\}")
_SEGMENT = {"type": "string", "minLength": 1}
_APPROVAL_HEADER = {
    "name": "Lamassu-Approval",
    "in": "header",
    "description": "The approval that this very request was given, once enough approvers agreed",
    "schema": {"type": "string"},
}

_KEY_HEADER = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "A string of your own for this request, such as a UUID in quotes. The same "
    "request under the same key, within 24 hours, is answered as it was the first time (with "
    "Idempotency-Replayed: true) and not done again; another request under it is refused (422).",
    "schema": {"type": "string", "minLength": 1, "maxLength": 257},
}

_Models = dict[tuple[type[BaseModel], JsonSchemaMode], dict[str, Any]]


def openapi_document(routes: Iterable[MountedRoute]) -> dict[str, Any]:
    """The documented routes as an OpenAPI document."""
    shown = [mounted for mounted in routes if mounted.route.documented]
    references, definitions = _schemas(shown)
    paths: dict[str, dict[str, Any]] = {}
    for mounted in shown:
        path = _PARAMETER.sub(r"{\1}", mounted.path)
        operation = _operation(mounted, references)
        paths.setdefault(path, {})[mounted.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lamassu",
            "version": "1",
            "description": "Callers are known by the client certificate of their TLS connection.",
        },
        "tags": [{"name": name} for name in dict.fromkeys(m.service for m in shown)],
        "paths": paths,
        "components": {
            "schemas": {**definitions, "Error": ERROR_SCHEMA},
            "responses": shared_responses(),
            "headers": HEADERS,
            "securitySchemes": {"certificate": {"type": "mutualTLS"}},
        },
    }


def _schemas(routes: Iterable[MountedRoute]) -> tuple[_Models, dict[str, Any]]:
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = []
    for mounted in routes:
        if mounted.route.body is not None:
            wanted.append((mounted.route.body, "validation"))
        if mounted.route.answer is not None:
            wanted.append((mounted.route.answer, "serialization"))
        wanted += [(one, "serialization") for one in mounted.route.other_answers.values()]
    references, schema = models_json_schema(list(dict.fromkeys(wanted)), ref_template=_REF)
    definitions: dict[str, Any] = schema.get("$defs", {})
    written = json.dumps([[references[key] for key in wanted], definitions])
    for long, short in _short_names(definitions).items():
        written = written.replace(f'"{long}"', f'"{short}"').replace(f'/{long}"', f'/{short}"')
    shortened, definitions = json.loads(written)
    return dict(zip(wanted, shortened, strict=True)), definitions


def _short_names(names: Iterable[str]) -> dict[str, str]:
    """Names for models that slices call alike, which are told apart by their modules: the slice
    and the model, where that is enough."""
    short = {
        name: f"{found[1]}_{found[2]}" for name in names if (found := _MODULE_NAME.fullmatch(name))
    }
    return {long: one for long, one in short.items() if list(short.values()).count(one) == 1}


def _operation(mounted: MountedRoute, references: _Models) -> dict[str, Any]:
    route = mounted.route
    answers = {
        status: references[(model, "serialization")] for status, model in _answers(route).items()
    }
    operation: dict[str, Any] = {
        "operationId": _operation_id(mounted),
        "tags": [mounted.service],
        "summary": route.summary,
        "parameters": _parameters(mounted),
        "responses": responses_of(mounted, answers),
        "security": [] if route.access.kind is AccessKind.PUBLIC else [{"certificate": []}],
        "x-lamassu-access": describe_access(mounted),
    }
    if route.description:
        operation["description"] = route.description
    if route.body is not None:
        operation["requestBody"] = {
            "required": not route.empty_body,
            "content": {JSON: {"schema": references[(route.body, "validation")]}},
        }
    return operation


def _answers(route: Route) -> dict[int, type[BaseModel]]:
    """What each status of success has in its body."""
    if route.answer is None:
        return dict(route.other_answers)
    statuses = (route.status, *route.other_statuses)
    return {**dict.fromkeys(statuses, route.answer), **route.other_answers}


def describe_access(mounted: MountedRoute) -> str:
    """Who may, in a few words."""
    access = mounted.access
    if access.kind is AccessKind.ACTION:
        return f"{access.name} on {access.scope}" if access.scope else access.name
    if access.kind is AccessKind.INTERNAL:
        return "only " + ", ".join(access.principals)
    return "everybody" if access.kind is AccessKind.PUBLIC else "whom the DMS lets in"


def _operation_id(mounted: MountedRoute) -> str:
    words = re.sub(r"[^A-Za-z0-9]+", "_", mounted.path).strip("_")
    return f"{mounted.method.lower()}_{words}" if words else mounted.method.lower()


def _parameters(mounted: MountedRoute) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _SEGMENT}
        for name in _PARAMETER.findall(mounted.path)
    ]
    if mounted.route.deferrable:
        parameters.append(_APPROVAL_HEADER)
    if mounted.route.creates:
        parameters.append(_KEY_HEADER)
    if mounted.route.listing is not None:
        parameters += _list_parameters(mounted.route.listing)
    return parameters


def _list_parameters(fields: Filterable) -> list[dict[str, Any]]:
    lines = [
        f"{name} ({kind.value}: {' '.join(sorted(OPERATORS[kind])) or 'not available yet'})"
        for name, kind in fields.fields.items()
    ]
    page_size = {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_PAGE_SIZE,
        "default": DEFAULT_PAGE_SIZE,
    }
    return [
        _query("page_size", "Items on a page", page_size),
        _query("bookmark", "`next` of the page before; all other arguments are then ignored"),
        _query("sort_by", "A field to sort by", {"type": "string", "enum": list(fields.fields)}),
        _query("sort_mode", "The order", {"type": "string", "enum": ["asc", "desc"]}),
        _query(
            "filter",
            "`field[operator]value`, repeatable, all must hold. Fields: " + "; ".join(lines),
            {"type": "array", "items": {"type": "string"}},
        ),
    ]


def _query(name: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "description": description,
        "schema": schema or {"type": "string"},
    }
