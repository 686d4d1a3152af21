"""Whatever creates can be sent again: walked over every mounted route (security rule 32)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lamassu.kernel.x509.pem import pem_of
from lamassu.platform.http.routing import MountedRoute
from tests.properties.assembled import Assembled, ca, dms
from tests.properties.test_every_route import HONEST
from tests.support.bodies import CSR
from tests.support.pki import ec_key, make
from tests.support.routes import mounted, name_of, path_of

ROUTES = {name_of(route): route for route in mounted()["https"]}
CREATING = {name: route for name, route in ROUTES.items() if route.route.creates}

# Posts that make nothing, or that are asked for again by what they are about.
OTHERS = {
    "POST /api/ca/v1/approvals/{id}/approve": "a vote replaces the one before",
    "POST /api/ca/v1/approvals/{id}/reject": "a vote replaces the one before",
    "POST /api/ca/v1/cas/import-signed": "a repeated delivery changes nothing",
    "POST /api/ca/v1/cas/{id}/key/move": "a move that has begun goes on",
    "POST /api/va/v1/crls/import": "a repeated delivery changes nothing",
}
MAKING_WORDS = ("import", "sign", "rekey", "reissue", "create", "keys", "responders")

NOW = datetime.now(UTC)


def b64(der: bytes) -> str:
    return base64.b64encode(pem_of(der)).decode()


def elsewhere(name: str, *, is_ca: bool) -> bytes:
    return make(
        name, ca=is_ca, not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=100)
    ).der


def fresh_key() -> str:
    """One that nobody has imported; other files of the run share the platform."""
    pem = ec_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return base64.b64encode(pem).decode()


BODIES: Mapping[str, Callable[[], Any]] = {
    "POST /api/kms/v1/keys": lambda: HONEST["POST /api/kms/v1/keys"] | {"name": "repeated"},
    "POST /api/kms/v1/keys/import": lambda: (
        HONEST["POST /api/kms/v1/keys/import"] | {"private_key": fresh_key()}
    ),
    "POST /api/ca/v1/cas": lambda: ca("repeated"),
    "POST /api/ca/v1/cas/import": lambda: {"ca": b64(elsewhere("Far CA", is_ca=True))},
    "POST /api/ca/v1/certificates/import": lambda: {
        "certificate": b64(elsewhere("far leaf", is_ca=False))
    },
    "POST /api/ca/v1/certificates": lambda: {
        "ca_id": "bystander-ca",
        "key_spec": {"type": "ECDSA", "bits": 256},
        "subject": {"common_name": "repeated"},
        "issuance_profile_id": "device-profile",
    },
    "POST /api/ca/v1/cas/{id}/certificates/sign": lambda: {"csr": CSR},
    "POST /api/ca/v1/cas/{id}/rekey": lambda: {},
    "POST /api/ca/v1/cas/{id}/reissue": lambda: {},
    "POST /api/ca/v1/profiles": lambda: HONEST["POST /api/ca/v1/profiles"],
    "POST /api/ca/v1/issuanceprofiles": lambda: HONEST["POST /api/ca/v1/profiles"],
    "POST /api/va/v1/responders": lambda: {"ca_id": "far-root"},
    "POST /api/dmsmanager/v1/dms": lambda: dms("repeated"),
    "POST /api/devmanager/v1/devices": lambda: {
        "id": "repeated",
        "dms_id": "plant",
        "icon": "i",
        "icon_color": "#112233",
    },
}


@pytest.fixture(scope="module")
def repeated_ca(assembled: Assembled) -> str:
    """A CA of this file's own, to be given a new key."""
    return str(assembled.make("/api/ca/v1/cas", ca("to-repeat"))["id"])


@pytest.mark.parametrize("name", CREATING)
def test_what_creates_is_answered_the_same_again(
    assembled: Assembled, repeated_ca: str, name: str
) -> None:
    route: MountedRoute = CREATING[name]
    changed = {"id": repeated_ca} if name.endswith(("/rekey", "/reissue")) else {}
    values = assembled.values | {f"/api/ca/v1/cas {{{k}}}": v for k, v in changed.items()}
    path = path_of(route, values)
    body = json.dumps(BODIES[name]()).encode()
    headers = [(b"idempotency-key", b'"%s"' % name.encode().hex().encode()[:200])]

    first = assembled.ask("POST", path, body, headers=headers)
    again = assembled.ask("POST", path, body, headers=headers)
    other = assembled.ask("POST", path, body, query=b"other=1", headers=headers)

    assert first.status == route.route.status, first.body
    assert "idempotency-replayed" not in first.headers
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["idempotency-replayed"] == "true"
    told = ("content-type", "etag", "location")
    assert [again.headers.get(one) for one in told] == [first.headers.get(one) for one in told]
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")


def test_every_route_that_makes_something_can_be_repeated() -> None:
    """A new one is noticed by its name, or by its answer of 201."""
    posts = {name: route for name, route in ROUTES.items() if route.method == "POST"}
    making = {
        name
        for name, route in posts.items()
        if route.route.access.kind.value == "action"
        and (route.route.status == 201 or any(word in name.split("/")[-1] for word in MAKING_WORDS))
    }
    without = {
        name
        for name in making - CREATING.keys() - OTHERS.keys()
        if not name.endswith(("/status", "/sign")) and "signature" not in name
    }
    assert without == set()
    assert set(BODIES) >= set(CREATING)


def test_nothing_that_is_kept_has_a_private_key() -> None:
    """An answer that has one must not be kept: its route says nothing of what it creates."""
    for name, route in CREATING.items():
        for creation in route.route.creates:
            schema = json.dumps(creation.answer.model_json_schema(mode="serialization")).lower()
            assert "private_key" not in schema.replace("has_private_key", ""), name
            assert "pkcs12" not in schema, name
