"""Bad requests to the JSON routes, over real TLS: each has its own refusal, nothing is stored.

What every route must refuse is sent to every route that is mounted.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lamassu.platform.http.routing import MountedRoute
from tests.support import csrs
from tests.support.bodies import sample
from tests.support.est import Credential, bootstrap, make_dms
from tests.support.footprint import Watched
from tests.support.routes import mounted, name_of, path_of
from tests.support.server import Server, make_installation, serving
from tests.support.tables import Tables

BODIES = {name_of(route): route for route in mounted()["https"] if route.route.body is not None}
LISTS = {name_of(route): route for route in mounted()["https"] if route.route.listing is not None}
KEY = {"type": "ECDSA", "bits": 256}
SIGN = "/api/ca/v1/cas/manufacturing-ca/certificates/sign"


@dataclass
class World:
    """A platform, its admin, and one thing of every kind to be named in a path."""

    server: Server
    admin: httpx.Client
    watched: Watched
    certificate: Credential
    values: Mapping[str, str]

    def ask(self, route: MountedRoute, **content: Any) -> httpx.Response:
        return self.admin.request(route.method, path_of(route, self.values), **content)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    url = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
    folder = tmp_path_factory.mktemp("bad-bodies")
    directory = make_installation(folder / "var", database=url, key_type="ecdsa-p256")
    with serving(directory, database=url) as server, server.admin() as admin:
        make_dms(server, "plant")
        certificate = bootstrap(server, folder, "certificate")
        made = admin.post(
            "/api/kms/v1/keys", json={"algorithm": "ECDSA", "size": 256, "name": "one"}
        )
        assert made.status_code == 201, made.text
        device = {"id": "device", "dms_id": "plant", "icon": "i", "icon_color": "#112233"}
        assert admin.post("/api/devmanager/v1/devices", json=device).status_code == 201
        ca = admin.get("/api/ca/v1/cas/manufacturing-ca").json()
        values = {
            "/api/kms {id}": made.json()["key_id"],
            "/api/ca/v1/cas {id}": "manufacturing-ca",
            "/api/ca/v1/stats {id}": "manufacturing-ca",
            "/api/ca/v1/cas {cn}": "Lamassu Root CA",
            "/api/ca {sn}": certificate.serial_number,
            "/api/ca {status}": "ACTIVE",
            "/api/ca/v1/profiles {id}": "device-profile",
            "/api/ca/v1/issuanceprofiles {id}": "device-profile",
            "/api/va {ski}": ca["certificate"]["subject_key_id"],
            "/api/dmsmanager {id}": "plant",
            "/api/devmanager {id}": "device",
            "/api/devmanager {dms_id}": "plant",
        }
        watched = Watched(directory, Tables.of(directory, url))
        watched.settle()
        yield World(server, admin, watched, certificate, values)


def refusal(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and field of the one error object."""
    body = answer.json()
    assert set(body) == {"err", "code", "field"}, answer.text
    assert body["err"]
    return answer.status_code, body["code"], body["field"]


# What every route refuses

NONSENSE: Mapping[str, tuple[bytes, str]] = {
    "no JSON": (b'{"id": ', "malformed"),
    "something behind it": (b"{} {}", "malformed"),
    "no UTF-8": (b'{"id": "\xff"}', "malformed"),
    "a list": (b"[1]", "wrong_type"),
    "a text": (b'"text"', "wrong_type"),
    "a number": (b"5", "wrong_type"),
    "an unknown field": (b'{"no_such_field": 1}', "unknown_field"),
    "a key twice": (b'{"x": "", "x": ""}', "duplicate_key"),
    "a key twice but for case": (b'{"x": "", "X": ""}', "duplicate_key"),
    "a key twice further in": (b'{"metadata": {"a": [{"b": 1, "b": 1}]}}', "duplicate_key"),
    "not a number": (b'{"x": NaN}', "malformed"),
    "an endless number": (b'{"x": 1e999}', "malformed"),
    "a number beyond 64 bits": (b'{"x": %d}' % 2**63, "malformed"),
    "a very long number": (b'{"x": ' + b"9" * 100_000 + b"}", "malformed"),
    "a NUL": (b'{"x": "\\u0000"}', "malformed"),
    "half a character": (b'{"x": "\\ud800"}', "malformed"),
    "a deep nest": (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "malformed"),
    "many values": (b'{"x": [' + b"0," * 70_000 + b"0]}", "malformed"),
}


# These end before any database: one of them is enough.
walk = pytest.mark.parametrize("world", ["sqlite"], indirect=True)


@walk
@pytest.mark.parametrize("what", NONSENSE)
def test_every_route_refuses(world: World, what: str) -> None:
    body, code = NONSENSE[what]

    with world.watched.nothing_stored():
        got = {name: refusal(world.ask(route, content=body)) for name, route in BODIES.items()}

    assert {name: (status, code) for name, (status, code, _) in got.items()} == dict.fromkeys(
        BODIES, (400, code)
    )


@walk
def test_every_route_that_needs_a_body_says_so(world: World) -> None:
    needing = {name: route for name, route in BODIES.items() if not route.route.empty_body}

    with world.watched.nothing_stored():
        got = {name: refusal(world.ask(route)) for name, route in needing.items()}

    assert got == dict.fromkeys(needing, (400, "empty_body", None))


@walk
def test_every_field_of_every_route_is_held_to_its_type(world: World) -> None:
    taken = []
    with world.watched.nothing_stored():
        for name, route in BODIES.items():
            model = route.route.body
            assert model is not None
            for field in sample(model, whole=True):
                # nothing that any field takes, in lists and objects neither
                body = {**sample(model, whole=False), field: [[[5]]]}
                answer = world.ask(route, content=json.dumps(body))
                status, _, at = refusal(answer)
                if status != 400 or not (at or "").startswith(field):
                    taken.append(f"{name} {field}: {answer.status_code} {answer.text}")

    assert not taken, "\n".join(taken)


def test_every_list_refuses_what_it_does_not_know(world: World) -> None:
    queries = {
        "filter=no_such_field[eq]x": "unknown_filter_field",
        "filter=nonsense": "invalid_filter",
        "bookmark=bm90IGEgYm9va21hcms": "invalid_bookmark",
        "x=%ff": "malformed",
        "x=%00": "malformed",
    }
    with world.watched.nothing_stored():
        for query, code in queries.items():
            for name, route in LISTS.items():
                answer = world.admin.get(f"{path_of(route, world.values)}?{query}")
                assert refusal(answer)[:2] == (400, code), f"{name}?{query}: {answer.text}"


# What one route refuses


def ca(**changes: object) -> dict[str, object]:
    return {
        "id": "new-ca",
        "subject": {"common_name": "New CA"},
        "key_metadata": KEY,
        "profile_id": "device-profile",
        "ca_expiration": {"type": "Duration", "duration": "8760h"},
        **changes,
    }


def lasting(duration: object) -> dict[str, object]:
    return {"type": "Duration", "duration": duration}


def until(time: object) -> dict[str, object]:
    return {"type": "Time", "time": time}


def dms(**settings: object) -> dict[str, object]:
    return {"id": "new-dms", "name": "new", "settings": settings}


def pem(csr: bytes, label: str = "CERTIFICATE REQUEST") -> str:
    text = f"-----BEGIN {label}-----\n{base64.encodebytes(csr).decode()}-----END {label}-----\n"
    return base64.b64encode(text.encode()).decode()


def signing(csr: bytes, **more: object) -> dict[str, object]:
    return {"csr": pem(csr), "profile_id": "device-profile", **more}


Refused = tuple[str, str, object, tuple[int, str, str | None]]
CAS, PROFILES, DMSS = "/api/ca/v1/cas", "/api/ca/v1/profiles", "/api/dmsmanager/v1/dms"
KEYS, DEVICES = "/api/kms/v1/keys", "/api/devmanager/v1/devices"
GOOD = csrs.request("someone")

REFUSED: Mapping[str, Refused] = {
    "a CA that would outlive its issuer": (
        "POST",
        CAS,
        ca(parent_id="intermediate-ca", ca_expiration=lasting("87600h")),
        (400, "validity_exceeds_issuer", "ca_expiration"),
    ),
    "a CA until after its issuer's end": (
        "POST",
        CAS,
        ca(parent_id="intermediate-ca", ca_expiration=until("2199-01-01T00:00:00Z")),
        (400, "validity_exceeds_issuer", "ca_expiration"),
    ),
    "a CA below a CA that has none": (
        "POST",
        CAS,
        ca(parent_id="manufacturing-ca", ca_expiration=lasting("1h")),
        (400, "path_length_exceeded", "parent_id"),
    ),
    "a CA without an end": (
        "POST",
        CAS,
        ca(ca_expiration={}),
        (400, "missing_field", "ca_expiration"),
    ),
    "a CA that ended": (
        "POST",
        CAS,
        ca(ca_expiration=until("2020-01-01T00:00:00Z")),
        (400, "validity_out_of_range", "ca_expiration"),
    ),
    "a CA until no time that exists": (
        "POST",
        CAS,
        ca(ca_expiration=until("2030-02-30T00:00:00Z")),
        (400, "invalid_time", "ca_expiration.time"),
    ),
    **{
        f"a CA for {duration!r}": (
            "POST",
            CAS,
            ca(ca_expiration=lasting(duration)),
            (400, code, field),
        )
        for duration, code, field in (
            ("300y", "invalid_duration", "ca_expiration.duration"),
            ("9" * 60 + "h", "invalid_duration", "ca_expiration.duration"),
            ("ten years", "invalid_duration", "ca_expiration.duration"),
            (87600, "invalid_duration", "ca_expiration.duration"),
            ("-1h", "validity_out_of_range", "ca_expiration"),
            ("0s", "missing_field", "ca_expiration"),
        )
    },
    "a profile for no time": (
        "POST",
        PROFILES,
        {"name": "p", "validity": lasting("-1h")},
        (400, "validity_out_of_range", "validity"),
    ),
    "a renewal window of a century and a day": (
        "POST",
        DMSS,
        dms(reenrollment_settings={"reenrollment_delta": "36501d"}),
        (400, "out_of_range", "settings.reenrollment_settings.reenrollment_delta"),
    ),
    "a renewal window of no days": (
        "POST",
        DMSS,
        dms(renewal_policy={"renewal_window_days": 0}),
        (400, "invalid_value", "settings.renewal_policy.renewal_window_days"),
    ),
    "CRLs for too long": (
        "PUT",
        "/api/va/v1/roles/{ski}",
        {"validity": "367d"},
        (400, "invalid_value", "validity"),
    ),
    "CRLs made too seldom": (
        "PUT",
        "/api/va/v1/roles/{ski}",
        {"crl_update_interval_hours": 1e9},
        (400, "invalid_value", "crl_update_interval_hours"),
    ),
    "two spellings that differ": (
        "POST",
        SIGN,
        {"csr": pem(GOOD), "profile_id": "device-profile", "issuance_profile_id": "bootstrap"},
        (400, "conflicting_fields", "issuance_profile_id"),
    ),
    "two spellings of a whole part that differ": (
        "POST",
        DMSS,
        dms(
            enrollment_settings={
                "est_rfc7030_settings": {
                    "client_certificate_settings": {"validation_cas": ["bootstrap-ca"]},
                    "authentication": {"client_certificate": {"validation_cas": ["root-ca"]}},
                }
            }
        ),
        (
            400,
            "conflicting_fields",
            "settings.enrollment_settings.est_rfc7030_settings.authentication.client_certificate",
        ),
    ),
    "a CA that is there": ("POST", CAS, ca(id="root-ca"), (409, "ca_exists", "id")),
    "a DMS that is there": (
        "POST",
        DMSS,
        {"id": "plant", "name": "p"},
        (409, "already_exists", "id"),
    ),
    "a device that is there": (
        "POST",
        DEVICES,
        {"id": "device", "dms_id": "plant", "icon": "i", "icon_color": "#112233"},
        (409, "device_exists", "id"),
    ),
    "a weak key of a CA": (
        "POST",
        CAS,
        ca(key_metadata={"type": "RSA", "bits": 1024}),
        (400, "key_not_supported", "key_metadata"),
    ),
    "a weak key": (
        "POST",
        KEYS,
        {"algorithm": "RSA", "size": 1024, "name": "weak"},
        (400, "unsupported_key", "size"),
    ),
    "a CSR that is none": (
        "POST",
        SIGN,
        signing(b"\x30\x03nonsense"),
        (400, "csr_malformed", "csr"),
    ),
    "a CSR as a certificate": (
        "POST",
        SIGN,
        {"csr": pem(GOOD, "CERTIFICATE")},
        (400, "invalid_pem", "csr"),
    ),
    "a CSR without its PEM": (
        "POST",
        SIGN,
        {"csr": base64.b64encode(GOOD).decode()},
        (400, "invalid_pem", "csr"),
    ),
    "a CSR in bad base64": ("POST", SIGN, {"csr": "!!!"}, (400, "invalid_base64", "csr")),
    "a CSR with a wrong signature": (
        "POST",
        SIGN,
        signing(csrs.forged("someone")),
        (400, "csr_signature_invalid", "csr"),
    ),
    "a CSR with a weak key": (
        "POST",
        SIGN,
        signing(csrs.request("someone", key=rsa.generate_private_key(65537, 1024))),
        (400, "key_not_allowed", "csr"),
    ),
    "a CSR on a foreign curve": (
        "POST",
        SIGN,
        signing(csrs.request("someone", key=ec.generate_private_key(ec.SECP256K1()))),
        (400, "key_not_allowed", "csr"),
    ),
    "a CSR with an admin's name": (
        "POST",
        SIGN,
        signing(csrs.request("a", names=[x509.UniformResourceIdentifier("Lamassu://admin/admin")])),
        (400, "platform_name", "csr"),
    ),
    "a CSR under a profile that makes CAs": (
        "POST",
        SIGN,
        {"csr": pem(GOOD), "profile_id": "issuing-ca-profile"},
        (400, "profile_signs_as_ca", "profile"),
    ),
    "a CSR under an unknown profile": (
        "POST",
        SIGN,
        {"csr": pem(GOOD), "profile_id": "nowhere"},
        (404, "profile_not_found", None),
    ),
    "a CSR for an unknown CA": (
        "POST",
        "/api/ca/v1/cas/nowhere/certificates/sign",
        signing(GOOD),
        (404, "ca_not_found", "ca_id"),
    ),
    "a bad patch": (
        "PATCH",
        "/api/devmanager/v1/devices/device/metadata",
        {"patches": [{"op": "replace", "path": "/nothing", "value": 1}]},
        (400, "patch_failed", "patches.0"),
    ),
    "a reason that is none": (
        "POST",
        "/api/ca/v1/certificates/{sn}/revoke",
        {"reason": "boredom"},
        (400, "invalid_value", "reason"),
    ),
    "a status that is none": (
        "PUT",
        "/api/ca/v1/certificates/{sn}/status",
        {"status": "GONE"},
        (400, "invalid_value", "status"),
    ),
}

# Refused, and the trail tells of the try (decision 19).
AUDITED: Mapping[str, Refused] = {
    "a digest for a CA's key": (
        "POST",
        "/api/ca/v1/cas/manufacturing-ca/signature/sign",
        {
            "message": base64.b64encode(bytes(32)).decode(),
            "message_type": "hash",
            "signature_algorithm": "ECDSA_SHA_256",
        },
        (403, "ca_key_digest_refused", "message_type"),
    ),
    "what could be a certificate for a CA's key": (
        "POST",
        "/api/ca/v1/cas/manufacturing-ca/signature/sign",
        {
            "message": base64.b64encode(b"\x30\x03\x02\x01\x05").decode(),
            "message_type": "raw",
            "signature_algorithm": "ECDSA_SHA_256",
        },
        (403, "ca_key_message_refused", "message"),
    ),
}


@pytest.mark.parametrize("what", AUDITED)
def test_what_a_cas_key_never_signs_is_refused(world: World, what: str) -> None:
    method, path, body, expected = AUDITED[what]

    with world.watched.nothing_stored(audited="kms"):
        answer = world.admin.request(method, path, json=body)

    assert refusal(answer) == expected, answer.text


@pytest.mark.parametrize("what", REFUSED)
def test_a_bad_body_is_refused(world: World, what: str) -> None:
    method, path, body, expected = REFUSED[what]
    path = path.replace("{ski}", world.values["/api/va {ski}"])
    path = path.replace("{sn}", world.certificate.serial_number)

    with world.watched.nothing_stored():
        answer = world.admin.request(method, path, json=body)

    assert refusal(answer) == expected, answer.text
