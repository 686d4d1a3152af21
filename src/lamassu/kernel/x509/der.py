"""DER (X.690) read with bounds, before any richer parser sees it."""

from __future__ import annotations

from typing import NamedTuple

from lamassu.kernel.errors import Malformed

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
OBJECT_IDENTIFIER = 0x06
SEQUENCE = 0x30
SET = 0x31

# No sound CSR or certificate of ours has more; each element costs a step of this walk.
_MOST_ELEMENTS = 4096


class Element(NamedTuple):
    """One TLV: it spans `[start, end)` of the data, its value `[value, end)`."""

    tag: int
    start: int
    value: int
    end: int


def read_element(data: bytes, start: int, limit: int) -> Element:
    """The element at `start`, which must end by `limit`.

    Raises `Malformed` unless identifier and length are DER: low tag numbers (no structure
    of PKIX uses others), definite and shortest lengths.
    """
    if limit - start < 2:
        raise Malformed("DER ends inside an element", code="der_malformed")
    tag = data[start]
    if tag & 0x1F == 0x1F:
        raise Malformed("DER has a tag number above 30", code="der_malformed")
    length = data[start + 1]
    value = start + 2
    if length >= 0x80:
        octets = length & 0x7F
        if octets == 0 or octets > 4 or value + octets > limit:
            raise Malformed("DER length is indefinite or too long", code="der_malformed")
        length = int.from_bytes(data[value : value + octets], "big")
        if length < 0x80 or length >> (8 * (octets - 1)) == 0:
            raise Malformed("DER length is not in its shortest form", code="der_malformed")
        value += octets
    end = value + length
    if end > limit:
        raise Malformed("DER element is longer than what holds it", code="der_malformed")
    return Element(tag, start, value, end)


def children(data: bytes, parent: Element) -> list[Element]:
    """The elements inside a constructed one. Raises `Malformed`."""
    found: list[Element] = []
    position, limit = parent.value, parent.end
    while position < limit:
        # most are short: told apart here, at a third of a call's price
        end = position + 2 + data[position + 1] if limit - position >= 2 else limit + 1
        if end <= limit and data[position + 1] < 0x80 and data[position] & 0x1F != 0x1F:
            found.append(Element(data[position], position, position + 2, end))
            position = end
            continue
        element = read_element(data, position, limit)
        found.append(element)
        position = element.end
    return found


def object_identifier(data: bytes, element: Element) -> bytes:
    """The octets inside an OBJECT IDENTIFIER, each number in its shortest form (X.690 §8.19).

    Raises `Malformed`.
    """
    octets = data[element.value : element.end]
    if element.tag != OBJECT_IDENTIFIER or not octets or octets[-1] >= 0x80:
        raise Malformed("no OBJECT IDENTIFIER", code="der_malformed")
    before = 0
    for octet in octets:
        if octet == 0x80 and before < 0x80:
            raise Malformed("a number is not in its shortest form", code="der_malformed")
        before = octet
    return octets


def sole_element(data: bytes) -> Element:
    """The element that `data` consists of. Raises `Malformed` when there is more or less."""
    limit = len(data)
    if limit >= 2 and data[1] == limit - 2 < 0x80 and data[0] & 0x1F != 0x1F:
        return Element(data[0], 0, 2, limit)
    element = read_element(data, 0, limit)
    if element.end != limit:
        raise Malformed("DER is followed by other bytes", code="der_malformed")
    return element


def check_der(data: bytes, *, max_length: int, max_depth: int) -> None:
    """Refuse what is not one DER element within the bounds (octets, nesting).

    A plain walk over identifiers and lengths: linear time, no recursion, nothing decoded.
    Raises `Malformed` (`der_malformed`, `der_too_long`, `der_too_deep`).
    """
    if len(data) > max_length:
        raise Malformed(f"DER is longer than {max_length} octets", code="der_too_long")
    pending = [(sole_element(data), 1)]
    seen = 1
    while pending:
        element, depth = pending.pop()
        if depth > max_depth:
            raise Malformed(f"DER is nested deeper than {max_depth}", code="der_too_deep")
        if not element.tag & 0x20:
            continue
        position, end = element.value, element.end
        while position < end:
            child = read_element(data, position, end)
            seen += 1
            if seen > _MOST_ELEMENTS:
                raise Malformed("DER has too many elements", code="der_too_long")
            if child.tag & 0x20:
                pending.append((child, depth + 1))
            position = child.end


def encode(tag: int, *parts: bytes) -> bytes:
    """One DER element around the parts."""
    value = b"".join(parts)
    length = len(value)
    if length < 0x80:
        return bytes((tag, length)) + value
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + value


def is_one_sequence_or_set(message: bytes) -> bool:
    """Whether some BER reader could take `message` for exactly one SEQUENCE or SET.

    Security rule 8: a CA key must not sign such a message through the API, for it could be
    a to-be-signed structure. Judged by tag and length alone, and generously: whatever a
    sloppy reader might accept (long lengths, tag numbers in the long form, a cleared
    constructed bit, lengths that fit only after wrapping round) counts.
    """
    after_tag = _after_sequence_or_set_tag(message)
    if after_tag is None or after_tag >= len(message):
        return False
    first = message[after_tag]
    rest = after_tag + 1
    if first < 0x80:
        return first == len(message) - rest
    if first == 0x80:
        return message.endswith(b"\x00\x00") and len(message) - rest >= 2
    rest += first & 0x7F
    if rest > len(message):
        return False
    claimed = int.from_bytes(message[after_tag + 1 : rest], "big")
    actual = len(message) - rest
    return any(claimed & mask == actual for mask in (-1, 0xFFFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF))


def _after_sequence_or_set_tag(message: bytes) -> int | None:
    """Where the length starts, if the tag is universal 16 or 17; else `None`."""
    if not message or message[0] & 0xC0:
        return None
    number = message[0] & 0x1F
    if number in (16, 17):
        return 1
    if number != 0x1F:
        return None
    number = 0
    for position in range(1, len(message)):
        number = (number << 7 | message[position] & 0x7F) & 0xFFFF_FFFF
        if not message[position] & 0x80:
            return position + 1 if number in (16, 17) else None
    return None
