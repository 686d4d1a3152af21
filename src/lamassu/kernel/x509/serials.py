"""Serial numbers: random, positive, and lower-case hex of even length on the wire."""

from __future__ import annotations

import secrets

from lamassu.kernel.errors import Malformed

_LONGEST_HEX = 40  # RFC 5280 §4.1.2.2: at most 20 octets


def new_serial_number() -> int:
    """A positive number of 128 random bits."""
    while True:
        number = secrets.randbits(128)
        if number:
            return number


def serial_hex(number: int) -> str:
    """Lower-case hex, even length, without a sign octet; zero is `00`. Raises `Malformed` for
    a negative number, which RFC 5280 §4.1.2.2 knows some CAs to have used."""
    if number < 0:
        raise Malformed(
            "a serial number is not negative", code="serial_number_malformed", field="serial_number"
        )
    return number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big").hex()


def serial_int(text: str) -> int:
    """The number that hex `text` spells. Raises `Malformed`."""
    digits = text.lower()
    if not 0 < len(digits) <= _LONGEST_HEX or any(c not in "0123456789abcdef" for c in digits):
        raise Malformed(
            "a serial number is 1 to 40 hex digits",
            code="serial_number_malformed",
            field="serial_number",
        )
    return int(digits, 16)
