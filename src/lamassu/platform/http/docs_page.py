"""The API's description as one page for people: nothing is fetched, everything is in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from typing import Any

_ASSETS = files("lamassu.platform.http") / "assets"
_STYLE = (_ASSETS / "docs.css").read_text("utf-8")
_SCRIPT = (_ASSETS / "docs.js").read_text("utf-8")
_METHODS = ("get", "post", "put", "patch", "delete")
_MAX_DEPTH = 6


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def docs_page(document: dict[str, Any]) -> str:
    """The page for an OpenAPI document of `openapi_document`."""
    schemas: dict[str, Any] = document["components"]["schemas"]
    services = [tag["name"] for tag in document["tags"]]
    sections = "".join(_section(name, document, schemas) for name in services)
    links = "".join(f'<a href="#{escape(name)}">{escape(name)}</a>' for name in services)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Lamassu API</title><style>{_STYLE}</style></head><body>"
        '<header><h1>Lamassu API</h1><input id="filter" type="search" '
        'placeholder="Filter by path, method or word" aria-label="Filter" autofocus>'
        f'<nav>{links}<a href="/api/openapi.json">openapi.json</a></nav></header>'
        f"<main><p>{escape(document['info']['description'])}</p>{sections}"
        '<p id="nothing" hidden>Nothing matches.</p></main>'
        f"<script>{_SCRIPT}</script></body></html>"
    )


def _section(service: str, document: dict[str, Any], schemas: dict[str, Any]) -> str:
    operations = "".join(
        _operation(method, path, item[method], schemas)
        for path, item in document["paths"].items()
        for method in _METHODS
        if method in item and service in item[method]["tags"]
    )
    return f'<section id="{escape(service)}"><h2>{escape(service)}</h2>{operations}</section>'


def _operation(method: str, path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    summary = escape(operation["summary"])
    words = escape(f"{method} {path} {operation['summary']}".lower(), quote=True)
    description = operation.get("description")
    parts = [f"<p>{escape(description)}</p>" if description else ""]
    parts.append(f"<p>Allowed to: <code>{escape(operation['x-lamassu-access'])}</code></p>")
    if operation["parameters"]:
        parts.append(_table("Parameters", _parameter_rows(operation["parameters"])))
    if "requestBody" in operation:
        parts.append(_content("Body", operation["requestBody"], schemas))
    for status, answer in operation["responses"].items():
        if "$ref" not in answer:  # refusals are the same for all
            parts.append(_content(f"Answer {status}", answer, schemas))
    return (
        f'<details class="operation" id="{escape(operation["operationId"])}" data-words="{words}">'
        f'<summary><b class="{method}">{method.upper()}</b><code>{escape(path)}</code>'
        f"<span>{summary}</span></summary>{''.join(parts)}</details>"
    )


def _parameter_rows(parameters: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for parameter in parameters:
        note = parameter.get("description", "")
        yield parameter["name"], f"{parameter['in']}, {_type_name(parameter['schema'])}", note


def _content(title: str, holder: dict[str, Any], schemas: dict[str, Any]) -> str:
    content = holder.get("content")
    if not content:
        return f"<h3>{escape(title)}</h3><p>{escape(holder.get('description', ''))}</p>"
    schema = next(iter(content.values()))["schema"]
    return _table(title, _rows(schema, schemas, "", 0))


def _table(title: str, rows: Iterator[tuple[str, str, str]]) -> str:
    lines = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td><td>{escape(note)}</td></tr>"
        for name, kind, note in rows
    )
    return f"<h3>{escape(title)}</h3><table>{lines}</table>"


def _rows(
    schema: dict[str, Any], schemas: dict[str, Any], prefix: str, depth: int
) -> Iterator[tuple[str, str, str]]:
    """A row for each field, nested ones under dotted names."""
    schema = _resolved(schema, schemas)
    if "items" in schema and isinstance(schema["items"], dict):
        yield from _rows(schema["items"], schemas, f"{prefix}[].", depth + 1)
        return
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        inner = _resolved(field, schemas)
        kind = _type_name(inner) + (", required" if name in required else "")
        note = field.get("description") or inner.get("description") or ""
        dotted = f"{prefix}{name}"
        yield dotted, kind, note.partition("\n\n")[0]
        if depth < _MAX_DEPTH:
            items = inner.get("items")
            if isinstance(items, dict):
                yield from _rows(items, schemas, f"{dotted}[].", depth + 1)
            elif "properties" in inner:
                yield from _rows(inner, schemas, f"{dotted}.", depth + 1)


def _resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema behind references and `X or null`."""
    for _ in range(_MAX_DEPTH):
        if "$ref" in schema:
            schema = schemas.get(schema["$ref"].rpartition("/")[2], {})
        elif "anyOf" in schema:
            concrete = [part for part in schema["anyOf"] if part.get("type") != "null"]
            if len(concrete) != 1:
                return schema
            schema = concrete[0]
        else:
            return schema
    return schema


def _type_name(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type_name(part) for part in schema["anyOf"])
    if schema.get("contentEncoding") == "base64":
        return "base64"
    kind = schema.get("format") or schema.get("type") or "any"
    return "duration" if kind == "lamassu-duration" else str(kind)
