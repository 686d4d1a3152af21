"""Ribbon filters: a function from keys to a few bits, in little more than those bits.

Each key stands for a linear equation over GF(2): `WIDTH` coefficients from its digest, at a place
of it, applied to a vector of unknowns give its value. The vector is all that is kept. A key that
was not among the equations gets a value that is as good as random. (Dillinger, Walzer: "Ribbon
filter: practically smaller than Bloom and Xor", 2021.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDTH = 128  # coefficients of an equation
_COEFFICIENTS = (1 << WIDTH) - 1
_SPARE = 1.025  # unknowns per equation at first; more when they cannot be solved
_MORE = 1.005
_TRIES = 64


@dataclass(frozen=True, slots=True)
class Equation:
    """Where a key's coefficients begin is `place` modulo the number of places."""

    place: int
    coefficients: int
    value: int


@dataclass(frozen=True, slots=True)
class Ribbon:
    """Solved: `columns` are as many vectors of `length` bits as a value has bits, the first bit
    of a vector the lowest of its first octet."""

    length: int
    columns: Sequence[bytes]

    def value(self, place: int, coefficients: int) -> int:
        """What a key's equation gives, its first bit the lowest."""
        if not self.length:
            return 0
        start = place % (self.length - WIDTH + 1)
        octet, bit = start >> 3, start & 7
        found = 0
        for number, column in enumerate(self.columns):
            window = int.from_bytes(column[octet : octet + WIDTH // 8 + 1], "little") >> bit
            found |= ((window & coefficients).bit_count() & 1) << number
        return found


def place_of(digest: bytes) -> tuple[int, int]:
    """Place and coefficients, from the first 24 octets of a digest."""
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:24], "big") | 1


def solve(equations: Sequence[Equation], bits: int) -> Ribbon | None:
    """Values of `bits` bits for all equations at once; `None` if no length up to a third more
    than their number solves them: other digests are needed then."""
    if not equations or not bits:
        return Ribbon(0, (b"",) * bits)
    length = max(WIDTH, int(len(equations) * _SPARE) + WIDTH // 4)
    for _ in range(_TRIES):
        rows = _eliminate(equations, length)
        if rows is not None:
            return Ribbon(length, _substitute(rows, length, bits))
        length = int(length * _MORE) + 1
    return None


def _eliminate(equations: Iterable[Equation], length: int) -> list[tuple[int, int]] | None:
    """Rows whose first coefficient is one, each at its place; `None` for a contradiction."""
    rows: list[tuple[int, int]] = [(0, 0)] * length
    places = length - WIDTH + 1
    for equation in equations:
        start, coefficients, value = (
            equation.place % places,
            equation.coefficients,
            equation.value,
        )
        while True:
            present, known = rows[start]
            if not present:
                rows[start] = coefficients, value
                break
            coefficients ^= present
            value ^= known
            if not coefficients:
                if value:
                    return None
                break
            shift = (coefficients & -coefficients).bit_length() - 1
            coefficients >>= shift
            start += shift
    return rows


def _substitute(rows: Sequence[tuple[int, int]], length: int, bits: int) -> list[bytes]:
    solution = [bytearray((length + 7) // 8) for _ in range(bits)]
    windows = [0] * bits  # of the unknowns from the next one on
    for start in range(length - 1, -1, -1):
        coefficients, value = rows[start]
        for number in range(bits):
            window = windows[number] << 1 & _COEFFICIENTS
            if coefficients and (value >> number ^ (window & coefficients).bit_count()) & 1:
                window |= 1
                solution[number][start >> 3] |= 1 << (start & 7)
            windows[number] = window
    return [bytes(column) for column in solution]
