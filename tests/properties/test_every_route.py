"""Mutated JSON to every mounted route, and senseless queries: an answer or a refusal, never a 500.

Routes, their bodies and the fields of these are taken from the product; a new route is covered
by being mounted.
"""

from __future__ import annotations

import base64
import copy
import json
import re
import tracemalloc
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamassu.platform.http.routing import MountedRoute
from tests.properties.assembled import ADMIN, EDGE, Answer, Assembled, ca, dms
from tests.support.bodies import CSR, sample
from tests.support.routes import mounted, name_of, path_of

TABLES = mounted()
WITH_BODY = {
    name_of(route): (listener, route)
    for listener, table in TABLES.items()
    for route in table
    if route.route.body is not None
}
ROUTES = {
    f"{listener} {name_of(route)}": (listener, route)
    for listener, table in TABLES.items()
    for route in table
}
LISTS = {name_of(route): route for route in TABLES["https"] if route.route.listing is not None}
READS = {name_of(route): route for route in TABLES["https"] if route.method == "GET"}

_few = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


# What an honest client sends, where that goes deeper than what a route's own fields tell.

PRIVATE_KEY = base64.b64encode(
    ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
).decode()
MESSAGE = {"message": base64.b64encode(b"hello").decode(), "message_type": "raw"}
PROFILE = {
    "name": "p",
    "validity": {"type": "Duration", "duration": "100d"},
    "key_usage": ["DigitalSignature", "KeyEncipherment"],
    "extended_key_usages": ["ClientAuth", "1.2.3.4"],
    "honor_subject": True,
    "subject": {"organization": "Lamassu"},
    "crypto_enforcement": {"enabled": True, "allowed_ecdsa_key_sizes": [256]},
    "extensions": {"authority_info_access": {"ocsp_server": ["http://ocsp.example"]}},
}
PATCHES = {
    "patches": [
        {"op": "add", "path": "/a/-", "value": {"b": [1, "x"]}},
        {"op": "replace", "path": "/a/0", "value": 1.5},
        {"op": "test", "path": "/~1x", "value": None},
        {"op": "remove", "path": "/a~0b"},
    ]
}
HONEST: Mapping[str, Any] = {
    "POST /api/kms/v1/keys": {
        "algorithm": "ECDSA",
        "size": 256,
        "name": "k",
        "tags": ["a"],
        "metadata": {"a": {"b": [1]}},
    },
    "POST /api/kms/v1/keys/import": {"private_key": PRIVATE_KEY, "name": "k", "tags": ["a"]},
    "POST /api/kms/v1/keys/{id}/sign": {"algorithm": "ECDSA_SHA_256", **MESSAGE},
    "POST /api/ca/v1/cas": ca("one-more"),
    "POST /api/ca/v1/cas/{id}/status": {
        "status": "REVOKED",
        "revocation_reason": "CertificateHold",
    },
    "POST /api/ca/v1/cas/{id}/certificates/sign": {"csr": CSR, "profile": PROFILE},
    "POST /api/ca/v1/cas/{id}/signature/sign": {"signature_algorithm": "ECDSA_SHA_256", **MESSAGE},
    "POST /api/ca/v1/profiles": PROFILE,
    "PUT /api/va/v1/roles/{ski}": {
        "refresh_interval": "6d",
        "validity": "7d",
        "regenerate_on_revoke": True,
    },
    "POST /api/dmsmanager/v1/dms": dms("one-more"),
    "PUT /api/dmsmanager/v1/dms/{id}": dms("plant"),
    "PUT /api/devmanager/v1/devices/{id}/idslot": {
        "status": "ACTIVE",
        "active_version": 0,
        "type": "x509",
        "versions": {"0": "aa"},
        "events": {"2026-01-01T00:00:00Z": {"type": "PROVISIONED", "description": "x"}},
    },
    "POST /internal/dms/{id}/enroll": {
        "peer": {"chain": [base64.b64encode(b"\x30\x00").decode()], "address": "192.0.2.9"},
        "csr": base64.b64encode(b"\x30\x00").decode(),
        "request_id": "r",
    },
}


def bodies_of(name: str, route: MountedRoute) -> list[Any]:
    """Bodies that the route takes, from the barest to the fullest."""
    model = route.route.body
    assert model is not None
    found = [sample(model, whole=False), sample(model, whole=True)]
    if "patches" in model.model_fields:
        found.append(PATCHES)
    return [*found, HONEST[name]] if name in HONEST else found


# Mutations

_DEEP = "(a deep nest)"  # written as one: no tree of such depth can be walked in Python
_WORDS = [
    *("", " ", "..", "../..", "/", "%00", "\u202e", "İ", "ﬀ", "'", "$.a", "=", "====", "null"),
    *("x" * 300, "é" * 5_000, "A" * 70_000, "9" * 40, "-----BEGIN CERTIFICATE-----", "REVOKED"),
    *("1y", "-1h", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2030-01-01T00:00:00+23:59"),
    *("root-ca", "nowhere", "device-profile", "http://a", "a@b", "*", "1.2.3", "RSA", "SHA_512"),
]
_BARRED = ["\0", "a\0b", "\ud800", _DEEP]  # in no text that a store can keep
_TEXT = (
    st.sampled_from(_WORDS)
    | st.sampled_from(_WORDS)
    | st.text(max_size=20)
    | (st.sampled_from(_BARRED))
)
_NUMBER = st.integers(-(2**70), 2**70) | st.sampled_from(
    [0, -1, 1, 2**31, 2**31 - 1, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 1e308, -0.0, 0.1, 1e-320]
)
_ODD = st.recursive(
    st.none() | st.booleans() | _NUMBER | _TEXT | st.floats(allow_nan=True),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=6,
)


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, value in items:
        yield from _places(value, (*path, key))


def _at(document: Any, path: tuple[Any, ...]) -> Any:
    for part in path:
        document = document[part]
    return document


@st.composite
def _changed(draw: st.DrawFn, document: Any) -> Any:
    """The document with one value swapped, moved, dropped, nested, multiplied, renamed or added."""
    places = list(_places(document))
    path = draw(st.sampled_from(places))
    if not path:
        return draw(_ODD)
    document = copy.deepcopy(document)
    owner, last = _at(document, path[:-1]), path[-1]
    match draw(st.sampled_from(["swap", "swap", "move", "drop", "nest", "many", "rename", "add"])):
        case "swap":
            owner[last] = draw(_ODD)
        case "move":
            owner[last] = copy.deepcopy(_at(document, draw(st.sampled_from(places))))
        case "drop":
            del owner[last]
        case "nest":
            owner[last] = draw(st.sampled_from([[owner[last]], {"x": owner[last]}, [[], [[[]]]]]))
        case "many":
            most = 200_000 // (len(json.dumps(owner[last])) + 1)  # so that the body stays one
            owner[last] = [owner[last]] * min(most, draw(st.sampled_from([0, 2, 300, 5_000])))
        case "rename" if isinstance(owner, dict):
            value = owner.pop(last)
            owner[draw(_TEXT | st.just(last.upper()) | st.just(last.title()))] = value
        case _ if isinstance(owner, dict):
            owner[draw(_TEXT)] = draw(_ODD)
    return document


_KEY = re.compile(r'"(?:[^"\\]|\\.)*": ')


@st.composite
def _written(draw: st.DrawFn, document: Any) -> bytes:
    """As JSON, mostly; with a key twice, a byte wrong, something missing or something behind."""
    text = json.dumps(document)
    deep = draw(st.sampled_from([2, 63, 64, 65, 2_000, 50_000]))
    text = text.replace(json.dumps(_DEEP), "[" * deep + "]" * deep, 1)
    match draw(st.sampled_from(["plain"] * 20 + ["twice", "case", "cut", "behind", "byte", "nul"])):
        case "twice" | "case" as how if keys := list(_KEY.finditer(text)):
            found = draw(st.sampled_from(keys))
            again = found[0] if how == "twice" else found[0].swapcase()
            text = f"{text[: found.start()]}{again}null, {text[found.start() :]}"
        case "cut":
            text = text[: draw(st.integers(0, len(text)))]
        case "behind":
            text += draw(st.sampled_from([" ", "{}", ",", "\0", "x"]))
        case "byte":
            at = draw(st.integers(0, len(text)))
            return text[:at].encode() + draw(st.binary(max_size=3)) + text[at:].encode()
        case "nul":
            at = draw(st.integers(0, len(text)))
            text = f"{text[:at]}\\u0000{text[at:]}"
    return text.encode()


def check(answer: Answer, sent: bytes = b"") -> None:
    """No fault of ours, and a refusal is the one error object, of bounded size."""
    assert answer.status < 500 or (answer.status, _code(answer)) in (
        (501, "not_available"),
        (503, "not_available"),
    ), (answer, sent[:500])
    if answer.status >= 400 and answer.body:
        document = answer.json
        assert set(document) - {"request_id"} == {"err", "code", "field"}, answer
        assert document["err"]
        assert document["code"]
        assert len(answer.body) < 8_192, "a refusal does not repeat what was sent"


def _code(answer: Answer) -> str:
    try:
        return str(answer.json["code"])
    except (ValueError, KeyError):
        return ""


def peer_of(listener: str) -> Any:
    return EDGE if listener == "internal" else ADMIN


@pytest.mark.parametrize("name", WITH_BODY)
def test_honest_bodies_are_no_fault_of_ours(assembled: Assembled, name: str) -> None:
    listener, route = WITH_BODY[name]
    path = path_of(route, assembled.values)
    for body in bodies_of(name, route):
        sent = json.dumps(body).encode()
        check(assembled.ask(route.method, path, sent, listener=listener, peer=peer_of(listener)))


@pytest.mark.parametrize("name", WITH_BODY)
def test_a_mutated_body_is_read_or_refused(assembled: Assembled, name: str) -> None:
    listener, route = WITH_BODY[name]
    path = path_of(route, assembled.values)
    honest = st.sampled_from(bodies_of(name, route))
    once = honest.flatmap(_changed)
    twice = once.flatmap(_changed)

    @_few
    @given((honest | once | once | twice | twice).flatmap(_written))
    def ask(body: bytes) -> None:
        answer = assembled.ask(route.method, path, body, listener=listener, peer=peer_of(listener))
        check(answer, body)

    ask()


# Paths and queries

_SEGMENT = st.text(st.characters(exclude_characters="/"), min_size=1, max_size=12) | (
    st.sampled_from(["..", ".", "\0", "%00", "{id}", "é", "a" * 5_000, "'--", "-1", "00", "\ud800"])
)
_BYTES = st.binary(max_size=30) | st.sampled_from(
    [b"%", b"%zz", b"%ff", b"%00=%00", b"a=b&" * 2_000, b"=", b"&&&", b"a" * 8_000]
)


@pytest.mark.parametrize("name", ROUTES)
def test_any_path_is_answered_or_refused(assembled: Assembled, name: str) -> None:
    listener, route = ROUTES[name]
    if "{" not in route.path:
        return

    @settings(_few, max_examples=15)
    @given(st.lists(_SEGMENT, min_size=3, max_size=3))
    def ask(segments: list[str]) -> None:
        left = iter(segments)
        path = re.sub(r"\{[^}]+\}", lambda _: next(left), route.path)
        answer = assembled.ask(route.method, path, b"{}", listener=listener, peer=peer_of(listener))
        check(answer, path.encode(errors="replace"))

    ask()


_OPERATORS = [
    *("eq", "eq_ic", "ne", "ct", "ct_ic", "nc", "in", "in_ic", "nin"),
    *("bf", "af", "lt", "le", "gt", "ge", "jsonpath", "xx"),
]


@st.composite
def _query(draw: st.DrawFn, fields: list[str]) -> bytes:
    """A list's query: of the right shape, with the wrong things in it."""
    value = _TEXT | _NUMBER.map(str) | st.sampled_from(["true", "ACTIVE", "a,b,,c", "2030-01-01"])
    pairs = []
    for _ in range(draw(st.integers(1, 4))):
        field = draw(st.sampled_from([*fields, "no_such_field", ""]))
        operator, given_ = draw(st.sampled_from(_OPERATORS)), str(draw(value))
        pairs.append(
            draw(
                st.sampled_from(
                    [
                        ("filter", f"{field}[{operator}]{given_}"),
                        ("filter", f"{field}[{operator}]={given_}"),
                        ("filter", given_),
                        ("sort_by", field),
                        ("sort_by", f"{field}[jsonpath]$.{given_}"),
                        ("sort_mode", given_),
                        ("page_size", given_),
                        ("bookmark", given_),
                        ("ca_filter", f"{field}[{operator}]{given_}"),
                        ("cert_filter", f"{field}[{operator}]{given_}"),
                        ("expires_before", given_),
                    ]
                )
            )
        )
    text = "&".join(f"{name}={quote(value, errors='replace')}" for name, value in pairs)
    return text.encode()[:8_000]


@pytest.mark.parametrize("name", LISTS)
def test_any_query_of_a_list_is_answered_or_refused(assembled: Assembled, name: str) -> None:
    route = LISTS[name]
    assert route.route.listing is not None
    path, fields = path_of(route, assembled.values), sorted(route.route.listing.fields)

    @_few
    @given(_query(fields) | _BYTES)
    def ask(query: bytes) -> None:
        check(assembled.ask("GET", path, query=query), query)

    ask()


@pytest.mark.parametrize("name", READS)
def test_any_query_of_another_route_is_answered_or_refused(assembled: Assembled, name: str) -> None:
    route = READS[name]
    path = path_of(route, assembled.values)

    @settings(_few, max_examples=15)
    @given(_query(["status", "id"]) | _BYTES)
    def ask(query: bytes) -> None:
        check(assembled.ask("GET", path, query=query), query)

    ask()


# Memory

LARGE = 256 * 1024  # bytes; the server takes four times as much
MULTIPLE = 64


def _repeated(head: str, item: str, tail: str) -> bytes:
    """As often as makes a large body; `#` is the item's number."""
    count = (LARGE - len(head) - len(tail)) // (len(item) + 4)
    items = "".join(item.replace("#", f"{n:x}") for n in range(count))
    return f"{head}{items}{tail}".encode()


GREEDY: Mapping[str, bytes] = {
    "lists": b"[" * (LARGE // 2) + b"]" * (LARGE // 2),
    "objects": b'{"a":' * (LARGE // 6) + b"0" + b"}" * (LARGE // 6),
    "empty lists": _repeated('{"metadata":[', "[],", "[]]}"),
    "numbers": _repeated('{"metadata":[', "0,", "0]}"),
    "keys": _repeated('{"metadata":{', '"#":0,', '"":0}}'),
    "one text": _repeated('{"id":"', "a", '"}'),
    "one escaped text": _repeated('{"metadata":{"a":"', "\\u00e9", '"}}'),
    "one number": _repeated('{"id":', "1", "}"),
    "one exponent": _repeated('{"id":1e', "9", "}"),
    "unknown fields": _repeated("{", '"f#":"",', '"f":""}'),
    "patches": _repeated('{"patches":[', '{"op":"add","path":"/a/-","value":1},', "{}]}"),
}


@pytest.mark.parametrize("what", GREEDY)
def test_memory_stays_within_a_multiple_of_the_body(assembled: Assembled, what: str) -> None:
    body = GREEDY[what]
    assert len(body) <= LARGE
    of_each_model = {one[1].route.body: one for one in WITH_BODY.values()}
    tracemalloc.start()
    try:
        for listener, route in of_each_model.values():
            name = name_of(route)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            answer = assembled.ask(
                route.method,
                path_of(route, assembled.values),
                body,
                listener=listener,
                peer=peer_of(listener),
            )
            _, peak = tracemalloc.get_traced_memory()
            check(answer)
            assert peak - before < MULTIPLE * LARGE, f"{name}: {peak - before} bytes"
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("POST /api/devmanager/v1/devices", {"icon": "A"}),
        ("POST /api/devmanager/v1/devices", {"tags": ["A"]}),
        ("POST /api/kms/v1/keys", {"name": "A"}),
        ("POST /api/kms/v1/keys", {"tags": ["A"]}),
        ("POST /api/ca/v1/profiles", {"name": "A"}),
        ("POST /api/dmsmanager/v1/dms", {"name": "A"}),
    ],
)
def test_a_text_that_is_kept_is_bounded(
    assembled: Assembled, route: str, body: dict[str, Any]
) -> None:
    path = route.partition(" ")[2]
    honest = bodies_of(route, WITH_BODY[route][1])[-1]
    long = json.dumps({**honest, **body}).replace('"A"', json.dumps("A" * 100_000))

    answer = assembled.ask("POST", path, long.encode())

    check(answer)
    assert answer.status == 400


def test_what_was_refused_leaves_the_platform_well(assembled: Assembled) -> None:
    assert assembled.ask("GET", "/api/ca/v1/cas").status == 200
    assert assembled.make("/api/kms/v1/keys", HONEST["POST /api/kms/v1/keys"])
