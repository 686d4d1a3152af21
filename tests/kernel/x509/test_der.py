"""Bounds of DER, and rule 8's question."""

from __future__ import annotations

import time

import pytest

from lamassu.kernel.errors import Malformed
from lamassu.kernel.x509.der import check_der, encode, is_one_sequence_or_set


def nested(depth: int) -> bytes:
    data = b"\x05\x00"
    for _ in range(depth):
        data = encode(0x30, data)
    return data


def test_depth_and_length_are_bounded() -> None:
    check_der(nested(8), max_length=100, max_depth=8)
    with pytest.raises(Malformed) as deep:
        check_der(nested(9), max_length=100, max_depth=8)
    assert deep.value.code == "der_too_deep"
    with pytest.raises(Malformed) as long:
        check_der(nested(8), max_length=10, max_depth=8)
    assert long.value.code == "der_too_long"


def test_a_flood_of_elements_ends_the_walk_soon() -> None:
    flood = encode(0x30, b"\x05\x00" * 1_000_000)
    began = time.perf_counter()
    with pytest.raises(Malformed):
        check_der(flood, max_length=1 << 24, max_depth=8)
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    "data",
    [
        b"\x30\x81\x01\x00",  # length not in the short form
        b"\x30\x82\x00\x80" + b"\0" * 128,  # leading zero
        b"\x30\x80\x00\x00",  # indefinite
        b"\x1f\x20\x00",  # long tag
        b"\x30\x02\x05",  # too short
        b"\x30\x02\x05\x01",  # inner too long
        b"\x30\x00\x00",  # trailing byte
    ],
)
def test_what_is_not_der_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        check_der(data, max_length=1000, max_depth=8)


BODY = b"\x02\x01\x05"


@pytest.mark.parametrize(
    "message",
    [
        b"\x30\x00",
        b"\x31\x00",
        b"\x30\x03" + BODY,
        b"\x31\x03" + BODY,
        b"\x10\x03" + BODY,  # primitive bit
        b"\x30\x81\x03" + BODY,  # longer length than needed
        b"\x30\x84\x00\x00\x00\x03" + BODY,
        b"\x30\x90" + b"\0" * 15 + b"\x03" + BODY,
        b"\x30\x80" + BODY + b"\0\0",  # indefinite
        b"\x30\x80\0\0",
        b"\x31\x80" + BODY + b"\0\0",
        b"\x3f\x10\x03" + BODY,  # tag number 16 in the long form
        b"\x3f\x80\x80\x11\x03" + BODY,
        b"\x30\x85\x01\x00\x00\x00\x03" + BODY,  # fits after wrapping at 32 bits
        b"\x30\x89\x01" + b"\0" * 7 + b"\x03" + BODY,
        b"\x30\x03\xff\xff\xff",  # contents our parser refuses
    ],
)
def test_what_could_be_one_sequence_or_set_is_named_so(message: bytes) -> None:
    assert is_one_sequence_or_set(message)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x30",
        b"hello",
        b"0 is not a sequence",
        b"\x30\x03" + BODY + b"\0",
        b"\x30\x04" + BODY,
        b"\x04\x03" + BODY,
        b"\xa0\x03" + BODY,
        b"\x70\x03" + BODY,
        b"\x30\x80" + BODY,
        b"\x30\x82\x01",
        b"\x3f\x90",
        b"\x3f\x12\x03" + BODY,
    ],
)
def test_what_could_not_be_one_is_not(message: bytes) -> None:
    assert not is_one_sequence_or_set(message)
