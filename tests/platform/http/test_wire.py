"""Bodies as old clients write them, and as attackers do."""

from __future__ import annotations

import base64
import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from lamassu.kernel.errors import LamassuError, Malformed, RuleViolation
from lamassu.kernel.wire_text import ZERO_TIME, format_duration, format_time, parse_duration
from lamassu.platform.http import WireModel, json_answer
from lamassu.platform.http.json_input import parse_json
from lamassu.platform.http.wire import (
    FreeForm,
    JsonPatches,
    WireCsr,
    WireDuration,
    WireTime,
    WireTimeOrZero,
    decode,
    parse_time,
)
from tests.platform.http.conftest import Client, Colour, Seen, Thing

THINGS = "/api/things/v1/things"


def thing(**members: Any) -> Thing:
    return decode(Thing, json.dumps({"id": "x", **members}).encode())


def refusal(body: str | bytes, model: type[WireModel] = Thing) -> LamassuError:
    with pytest.raises(LamassuError) as caught:
        decode(model, body.encode() if isinstance(body, str) else body)
    return caught.value


# --- keys -----------------------------------------------------------------------------------


def test_keys_are_read_in_any_case_at_every_depth() -> None:
    body = b'{"ID": "x", "Part": {"COUNTRY": "ES"}, "pArts": [{"Country": "FR"}]}'

    read = decode(Thing, body)

    assert (read.id, read.part.country, read.parts[0].country) == ("x", "ES", "FR")


def test_the_keys_of_free_form_objects_are_the_clients_own() -> None:
    metadata = {"Env": 1, "env": {"ID": None, "x": [1.5, True]}}

    assert thing(METADATA=metadata).metadata == metadata
    assert thing(by_name={"A": {}, "a": {"size": 1}}).by_name["a"].size == 1


def test_another_spelling_is_honoured_and_must_agree() -> None:
    assert decode(Thing, b'{"name": "x"}').id == "x"
    assert decode(Thing, b'{"name": "x", "id": "x"}').id == "x"
    error = refusal('{"Name": "x", "id": "y"}')
    assert (error.code, error.field) == ("conflicting_fields", "id")
    assert refusal('{"name": 1, "id": true}').code == "conflicting_fields"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"id": "x", "id": "x"}', "id"),
        ('{"id": "x", "ID": "x"}', "ID"),
        ('{"id": "x", "part": {"size": 1, "Size": 1}}', "part.Size"),
        ('{"id": "x", "metadata": {"a": {"b": 1, "b": 1}}}', "b"),
        ('{"id": "x", "ca_type": 1, "CA_TYPE": 1}', "CA_TYPE"),
        ('{"id": "x", "unknown": "", "unKnown": ""}', "unKnown"),
        ('{"id": "x", "part": {"\u017fize": 1, "size": 2}}', "part.size"),
    ],
)
def test_a_key_that_stands_twice_is_refused(body: str, field: str) -> None:
    error = refusal(body)

    assert (error.code, error.field) == ("duplicate_key", field)


@pytest.mark.parametrize("empty", ["null", '""', "[]", "{}", "0", "false", '{"a": {"b": ""}}'])
def test_an_unknown_field_is_passed_over_when_empty(empty: str) -> None:
    assert decode(Thing, f'{{"id": "x", "unknown": {empty}}}'.encode()).id == "x"


@pytest.mark.parametrize("value", ['"a"', "1", "true", "[0]", '{"a": 1}', "0.5", '" "'])
def test_an_unknown_field_with_a_value_is_refused(value: str) -> None:
    error = refusal(f'{{"id": "x", "unknown": {value}}}')
    nested = refusal(f'{{"id": "x", "parts": [{{}}, {{"Bogus": {value}}}]}}')

    assert (error.code, error.field) == ("unknown_field", "unknown")
    assert (nested.code, nested.field) == ("unknown_field", "parts.1.Bogus")


def test_known_leftovers_are_passed_over_where_they_belong() -> None:
    assert thing(ca_type="MANAGED", part={"State_Province": "x"}).id == "x"
    assert refusal('{"id": "x", "part": {"ca_type": "MANAGED"}}').code == "unknown_field"


def test_null_is_absent_and_an_empty_object() -> None:
    assert decode(Thing, b'{"id": "x", "part": null, "enabled": null, "parts": null}') == Thing(
        id="x"
    )
    error = refusal("null")
    assert (error.code, error.field) == ("missing_field", "id")


def test_no_body_is_eof_as_old_clients_know_it() -> None:
    assert (refusal("").text, refusal(" \n").text) == ("EOF", "EOF")


# --- JSON -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b'{"id": "x"}{}',
        b'{"id": "x"}x',
        b"{'id': 1}",
        b'{"id": "\xff"}',
        b"\xef\xbb\xbf{}",
        '{"id": "x"}'.encode("utf-16"),
        b'{"id": "\\u0000"}',
        b'{"id": "a\x00b"}',
        b'{"id": "\\ud800"}',
        b'{"\\udfff": ""}',
        b'{"id": "x", "metadata": {"a": ["\\u0000"]}}',
        b'{"id": "x", "metadata": {"\\u0000": 1}}',
        b'{"ratio": NaN}',
        b'{"ratio": -Infinity}',
        b'{"ratio": 1e999}',
        b'{"count": 9223372036854775808}',
        b'{"count": ' + b"9" * 5000 + b"}",
        b'{"metadata": ' + b"[" * 65 + b"]" * 65 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_no_storable_json_is_malformed(body: bytes) -> None:
    error = refusal(body)

    assert (type(error), error.code) == (Malformed, "malformed")


def test_space_around_the_value_is_fine() -> None:
    assert decode(Thing, b' \r\n{"id": "x"}\t\n').id == "x"


def test_nesting_is_fine_up_to_the_bound() -> None:
    assert parse_json(b"[" * 64 + b"]" * 64)


def test_a_body_is_bounded_in_values_and_so_is_what_a_refusal_repeats() -> None:
    assert refusal('{"parts": [' + "{}," * 70_000 + "{}]}").code == "malformed"
    for body in ('{"id": "x", "%s": 1}', '{"id": "x", "%s": 1, "%s": 2}'):
        error = refusal(body.replace("%s", "y" * 100_000))
        assert len(error.text) < 300
        assert len(error.field or "") <= 200


def test_surrogate_pairs_and_other_letters_are_text() -> None:
    assert decode(Thing, '{"id": "\\ud83d\\ude00é"}'.encode()).id == "😀é"


# --- refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "field", "words"),
    [
        ({"id": 5}, "id", ["text", "whole number"]),
        ({"id": "x" * 65}, "id", ["64"]),
        ({"count": "5"}, "count", ["whole number", "text"]),
        ({"count": 1.0}, "count", ["whole number"]),
        ({"count": True}, "count", ["whole number"]),
        ({"count": 101}, "count", ["100"]),
        ({"count": -1}, "count", ["0"]),
        ({"enabled": 1}, "enabled", ["true or false"]),
        ({"enabled": "true"}, "enabled", ["true or false"]),
        ({"ratio": "1"}, "ratio", ["number"]),
        ({"sizes": [1, "2"]}, "sizes.1", ["whole number", "text"]),
        ({"sizes": [True]}, "sizes.0", ["whole number"]),
        ({"sizes": {"a": 1}}, "sizes", ["list"]),
        ({"flags": {"a": 1}}, "flags.a", ["true or false"]),
        ({"part": []}, "part", ["object", "list"]),
        ({"part": {"size": "x"}}, "part.size", ["whole number"]),
        ({"parts": {}}, "parts", ["list", "object"]),
        ({"parts": [1]}, "parts.0", ["object"]),
        ({"by_name": {"k.1": {"size": []}}}, "by_name.k.1.size", ["whole number"]),
        ({"metadata": "x"}, "metadata", ["object"]),
        ({"colour": "red"}, "colour", ["RED", "BLUE", '"red"']),
        ({"colour": 7}, "colour", ["RED", "7"]),
        ({"lifetime": "1x"}, "lifetime", ["duration", "1x"]),
        ({"lifetime": ""}, "lifetime", ["duration"]),
        ({"lifetime": 7}, "lifetime", ["duration", "number"]),
        ({"lifetime": "300y"}, "lifetime", ["292"]),
        ({"since": "2030-01-01"}, "since", ["RFC 3339"]),
        ({"since": 0}, "since", ["time"]),
        ({"since": "2030-13-01T00:00:00Z"}, "since", ["exists"]),
        ({"data": "%"}, "data", ["base64"]),
        ({"data": "AA"}, "data", ["base64"]),
        ({"data": 1}, "data", ["base64"]),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(
    members: dict[str, Any], field: str, words: list[str]
) -> None:
    error = refusal(json.dumps({"id": "x", **members}))

    assert error.field == field
    assert [word for word in [*words, field] if word not in error.text] == []


async def test_a_refused_body_reaches_no_handler(client: Client, seen: Seen) -> None:
    response = await client("POST", THINGS, content=b'{"id": "x", "colour": "pink"}')

    assert response.status_code == 400
    assert response.json()["field"] == "colour"
    assert seen.calls == []


async def test_the_content_type_of_a_request_does_not_matter(client: Client, seen: Seen) -> None:
    for kind in ("application/x-www-form-urlencoded", "text/plain", ""):
        body = b'{"id": "x"}'
        response = await client("POST", THINGS, content=body, headers={"content-type": kind})
        assert response.status_code == 200
    assert seen.last.decoded(Thing).id == "x"


async def test_a_body_may_be_missing_where_the_route_says_so(client: Client, seen: Seen) -> None:
    for body in (b"", b"null", b"{}"):
        assert (await client("POST", f"{THINGS}/a/touch", content=body)).status_code == 200
    refused = await client("POST", THINGS, content=b"")
    assert (refused.status_code, refused.json()["err"]) == (400, "EOF")


class Nested(WireModel):
    missing_text = "struct validation error"

    text: str


class Outer(WireModel):
    inner: Nested
    many: list[Nested] = Field(default_factory=list)


def test_a_text_that_clients_know_is_kept_for_its_model() -> None:
    assert refusal('{"inner": {}}', Outer).text == "struct validation error"
    assert refusal("{}", Outer).text == "inner is missing"
    patches = refusal('{"patches": null}', JsonPatches)
    assert (patches.text, patches.field) == ("struct validation error", "patches")


def test_an_error_of_the_platform_passes_through_a_validator() -> None:
    class Judged(WireModel):
        @classmethod
        def check(cls, value: str) -> str:
            raise RuleViolation("not this one", code="judged")

        name: str

    from pydantic import field_validator

    class Checked(Judged):
        _check = field_validator("name")(Judged.check)

    assert refusal('{"name": "x"}', Checked).code == "judged"


def test_models_are_built_in_the_program_by_their_own_names() -> None:
    answer = Thing(id="x", colour=Colour.BLUE, lifetime=timedelta(days=365))

    body = json.loads(bytes(json_answer(answer).body))

    assert (body["id"], body["colour"], body["lifetime"]) == ("x", "BLUE", "1y1d")
    assert (body["since"], body["until"]) == (None, ZERO_TIME)
    with pytest.raises(ValueError, match="typo"):
        Thing(id="x", typo=1)  # type: ignore[call-arg]


# --- durations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "hours", "normal"),
    [
        ("365d", 8760, "1y1d"),
        ("100d", 2400, "14w2d"),
        ("1y", 8736, "1y"),
        ("87600h", 87600, "10y1w3d"),
        ("1.5h", 1.5, "1h30m"),
        (".5h", 0.5, "30m"),
        ("1w2d3h4m5s", 219 + 4 / 60 + 5 / 3600, "1w2d3h4m5s"),
        ("-1h30m", -1.5, "-1h30m"),
        ("+1h", 1, "1h"),
        ("0", 0, "0s"),
        ("0s", 0, "0s"),
        ("-0s", 0, "0s"),
        ("6d23h", 167, "6d23h"),
        ("1s1ms", 1.001 / 3600, "1s1ms"),
    ],
)
def test_durations_as_the_original_spells_them(text: str, hours: float, normal: str) -> None:
    duration = parse_duration(text)

    assert abs(duration - timedelta(hours=hours)) <= timedelta(microseconds=1)
    assert format_duration(duration) == normal


@pytest.mark.parametrize("text", ["1500ms", "7us", "7µs", "7μs", "7000ns"])
def test_small_units(text: str) -> None:
    assert parse_duration(text) in (timedelta(seconds=1.5), timedelta(microseconds=7))


@pytest.mark.parametrize(
    "text",
    [
        *("", "5", "d", "1", ".", ".d", "1 d", " 1d", "1d ", "1dd", "1h-3m", "--1h", "1e3s"),
        *("1M", "1D", "٣d", "P1D", "1d" * 40, "106752d", "9" * 60 + "s", "1_0s", "inf", "nand"),
    ],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


LIMIT = timedelta(microseconds=(2**63 - 1) // 1000)


@given(st.timedeltas(min_value=-LIMIT, max_value=LIMIT))
def test_a_duration_survives_the_wire(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(alphabet="0123456789.+-ynuµmshdw ", max_size=70) | st.text())
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        duration = parse_duration(text)
    except ValueError:
        return
    assert parse_duration(format_duration(duration)) == duration


# --- times ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2030-01-02T03:04:05Z", "2030-01-02T03:04:05Z"),
        ("2030-01-02t03:04:05.500z", "2030-01-02T03:04:05.5Z"),
        ("2030-01-02T03:04:05.123456789+02:00", "2030-01-02T01:04:05.123456Z"),
        ("0001-01-01T00:00:00Z", ZERO_TIME),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_times_with_their_zone(text: str, shown: str) -> None:
    assert format_time(parse_time(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("2030-01-02", "2030-01-02T03:04:05", "2030-01-02 03:04:05Z", "", "now"),
        *("0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "2030-02-30T00:00:00Z"),
        *("2030-01-02T24:00:01Z", "2030-01-02T03:04:05+99:99", "２030-01-02T03:04:05Z"),
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        parse_time(text)


class Times(WireModel):
    at: WireTime | None = None
    unset: WireTimeOrZero = None
    for_: WireDuration = Field(default=timedelta(), alias="for")


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_survives_the_wire(time: datetime) -> None:
    assert parse_time(format_time(time)) == time


def test_an_unset_time_is_the_zero_time() -> None:
    read = decode(Times, f'{{"unset": "{ZERO_TIME}", "for": "2d"}}'.encode())

    assert (read.unset, read.for_) == (None, timedelta(days=2))
    assert json.loads(read.model_dump_json(by_alias=True)) == {
        "at": None,
        "unset": ZERO_TIME,
        "for": "2d",
    }


# --- PEM ------------------------------------------------------------------------------------


class Pems(WireModel):
    csr: WireCsr | None = None


def pem(der: bytes, label: str = "CERTIFICATE REQUEST") -> bytes:
    lines = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{lines}-----END {label}-----\n".encode()


def sent(content: bytes) -> bytes:
    return json.dumps({"csr": base64.b64encode(content).decode()}).encode()


@given(st.binary(min_size=1, max_size=200))
def test_a_csr_survives_the_wire(der: bytes) -> None:
    read = decode(Pems, sent(pem(der)))

    assert read.csr == der
    assert decode(Pems, read.model_dump_json().encode()).csr == der


def test_only_pem_of_the_right_kind_is_taken() -> None:
    assert refusal(sent(b"\x30\x00"), Pems).text.startswith("csr: missing CSR block")
    assert refusal(sent(pem(b"x", "PUBLIC KEY")), Pems).field == "csr"
    assert refusal(sent(pem(b"x") + pem(b"y")), Pems).field == "csr"
    assert decode(Pems, sent(pem(b"x", "NEW CERTIFICATE REQUEST"))).csr == b"x"
    assert refusal('{"csr": "-----BEGIN"}', Pems).field == "csr"
    assert refusal('{"csr": 5}', Pems).field == "csr"


# --- garbage --------------------------------------------------------------------------------

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1d", "RED", ZERO_TIME, "QQ=="]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*Thing.model_fields, "NAME", "country", "Size"]) | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*Thing.model_fields, "name", "x"]), JSON_VALUES))
def test_any_json_is_read_or_refused(document: dict[str, Any]) -> None:
    try:
        read = decode(Thing, json.dumps(document).encode())
    except LamassuError:
        return
    assert decode(Thing, bytes(json_answer(read).body)) == read


VALID = json.dumps(
    {"id": "x", "lifetime": "1d", "part": {"country": "ES"}, "metadata": {"a": [1, None]}}
).encode()


@given(st.data())
def test_mutated_bytes_are_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(body)))
        body[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with contextlib.suppress(LamassuError):
        decode(Thing, bytes(body))


class Loose(WireModel):
    metadata: FreeForm


@given(st.dictionaries(st.text(max_size=4), st.floats(allow_nan=False, allow_infinity=False)))
def test_metadata_survives_the_wire(metadata: dict[str, float]) -> None:
    body = json.dumps({"metadata": metadata}).encode()
    if any("\0" in key for key in metadata):
        assert refusal(body, Loose).code == "malformed"
    else:
        assert decode(Loose, bytes(json_answer(decode(Loose, body)).body)).metadata == metadata
