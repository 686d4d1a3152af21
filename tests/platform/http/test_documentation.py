"""The API describes itself from the table that serves it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from lamassu.platform.http import Application
from lamassu.platform.http.docs_page import docs_page
from tests.platform.http.conftest import ADMIN, STRANGER, Client


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return found.union(*(references(member) for member in value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


@pytest.fixture
async def document(client: Client) -> dict[str, Any]:
    response = await client("GET", "/api/openapi.json")
    assert response.status_code == 200
    body: dict[str, Any] = response.json()
    return body


async def test_the_description_has_every_route(app: Application, document: dict[str, Any]) -> None:
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    mounted = {
        (route.method, route.path.replace(":path}", "}"))
        for route in app.routes
        if route.route.documented
    }

    assert described == mounted


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = references(document)

    assert found
    for reference in found:
        kind, name = reference.removeprefix("#/components/").split("/")
        assert name in document["components"][kind]


async def test_a_route_is_described_with_body_answer_and_access(document: dict[str, Any]) -> None:
    create = document["paths"]["/api/things/v1/things"]["post"]
    listed = document["paths"]["/api/things/v1/things"]["get"]
    one = document["paths"]["/api/things/v1/things/{id}"]["get"]

    body = create["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    properties = document["components"]["schemas"][body.rpartition("/")[2]]["properties"]
    assert {"id", "lifetime", "metadata"} <= set(properties)
    assert "201" in create["responses"]
    assert {p["name"] for p in listed["parameters"]} >= {"filter", "bookmark", "page_size"}
    assert one["x-lamassu-access"] == "thing:read on id"
    assert document["paths"]["/api/va/ocsp/{request}"]["get"]["security"] == []


async def test_the_description_is_public_in_development_only(
    client: Client, build: Callable[..., Application]
) -> None:
    development = Client(build(mode="development"))

    for path in ("/api/docs", "/api/openapi.json"):
        assert (await client("GET", path, peer=STRANGER)).status_code == 401
        assert (await client("GET", path, peer=ADMIN)).status_code == 200
        assert (await development("GET", path, peer=STRANGER)).status_code == 200


async def test_the_page_for_people_fetches_nothing(client: Client) -> None:
    response = await client("GET", "/api/docs")
    page = response.text

    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.search(r"""(src|srcset)=|https?://|@import|url\(""", page)
    assert "/api/things/v1/things/{id}" in page
    assert "lifetime" in page


async def test_nothing_on_the_page_is_markup_of_a_text(document: dict[str, Any]) -> None:
    operation = document["paths"]["/api/things/v1/things"]["post"]
    operation["summary"] = operation["description"] = '<script>"&'

    page = docs_page(document)

    assert page.count("<script>") == 1
