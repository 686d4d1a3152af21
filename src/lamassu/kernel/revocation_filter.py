"""Revocation filters: which of a CA's certificates are revoked, exactly, in about as few bits as
that can be said in, signed, for devices that cannot hold a CRL.

Two ribbons. The first holds a fingerprint of each revoked serial number; what does not match is
not revoked. Of the others, which are the revoked and those that match by chance, the second
holds the one bit that tells them apart. (Schanck: "Clubcards for the WebPKI", 2025.)

Exact for the certificates that were there when it was made, and only for them: one whose
notBefore is later than `covered_until` is not covered. A delta carries what changed since a full
filter: statuses by a digest of the serial number, and two ribbons of its own for certificates
that came later.

All numbers are big-endian, times are Unix seconds:

    4   "LRF1"
    1   0 full, 1 delta
    8   number
    8   number of the full filter that a delta is for, else 0
    8   this update
    8   next update
    8   covered until
    8   size of the issuance log that it covers
    32  SHA-256 of the issuer's SubjectPublicKeyInfo
    8   salt
    4   number of changes, each 8 octets of digest and 1 of status, in order; none in a full one
    1   bits of a fingerprint
    4   length of the first ribbon, then its columns
    4   length of the second ribbon, then its column
    ..  signature, by the CA's key, of all before it
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum

from lamassu.kernel.errors import Malformed, RuleViolation
from lamassu.kernel.ribbon import WIDTH, Equation, Ribbon, place_of, solve

MAGIC = b"LRF1"
MOST_OCTETS = 64 << 20
SALT = 8
_HEADER = struct.Struct(">4sBQQQQQQ32s8sI")
_CHANGE = struct.Struct(">8s?")
_MOST_BITS = 16
_SALTS = 16  # each fails about never


class Verdict(StrEnum):
    """What a filter says of a certificate."""

    GOOD = "good"
    REVOKED = "revoked"
    NOT_COVERED = "not covered"


@dataclass(frozen=True, slots=True)
class Standing:
    """A certificate as a filter needs it."""

    serial_number: int
    not_before: datetime
    revoked: bool


@dataclass(frozen=True, slots=True)
class FilterFacts:
    """What a filter says of itself; `issuer` is the SHA-256 of the CA's SubjectPublicKeyInfo,
    `base` the number of the full filter that a delta is for, 0 for a full one."""

    issuer: bytes
    number: int
    this_update: datetime
    next_update: datetime
    covered_until: datetime
    log_size: int = 0
    base: int = 0


@dataclass(frozen=True, slots=True)
class RevocationFilter:
    """A filter or a delta, its signature not judged."""

    facts: FilterFacts
    salt: bytes
    changes: Mapping[bytes, bool]
    first: Ribbon
    second: Ribbon
    signed: bytes
    signature: bytes = b""

    def is_of(self, spki: bytes) -> bool:
        """Whether it says that it is of the CA with this SubjectPublicKeyInfo."""
        return self.facts.issuer == hashlib.sha256(spki).digest()

    def revoked(self, serial_number: int) -> bool:
        """What the ribbons say; without meaning for a certificate that is not covered."""
        return _look_up(self.facts.issuer, self.salt, self.first, self.second, serial_number)


def judge(
    full: RevocationFilter,
    serial_number: int,
    not_before: datetime,
    *,
    now: datetime,
    delta: RevocationFilter | None = None,
) -> Verdict:
    """The status of a certificate of the filter's CA, newest where there is a delta.

    A filter past its next update covers nothing. Raises `RuleViolation` (`filter_mismatch`) for
    a delta of another filter.
    """
    if delta is not None and (delta.facts.issuer, delta.facts.base) != (
        full.facts.issuer,
        full.facts.number,
    ):
        raise RuleViolation("the delta belongs to another filter", code="filter_mismatch")
    newest = full if delta is None else delta
    if not newest.facts.this_update <= now < newest.facts.next_update:
        return Verdict.NOT_COVERED
    if not_before <= full.facts.covered_until:
        revoked = full.revoked(serial_number)
        if delta is not None:
            changed = _name(full.facts.issuer, delta.salt, serial_number)
            revoked = delta.changes.get(changed, revoked)
    elif not_before <= newest.facts.covered_until:
        revoked = newest.revoked(serial_number)
    else:
        return Verdict.NOT_COVERED
    return Verdict.REVOKED if revoked else Verdict.GOOD


def build_full(
    facts: FilterFacts, standings: Sequence[Standing], *, new_salt: Callable[[], bytes]
) -> bytes:
    """What is to be signed of a full filter over these certificates. Takes seconds for a
    million."""
    covered = [one for one in standings if one.not_before <= facts.covered_until]
    return _build(facts, {}, covered, new_salt)


def build_delta(
    facts: FilterFacts,
    base: RevocationFilter,
    standings: Sequence[Standing],
    *,
    new_salt: Callable[[], bytes],
) -> bytes:
    """What is to be signed of a delta from `base` to these certificates' present state."""
    older = [one for one in standings if one.not_before <= base.facts.covered_until]
    newer = [
        one for one in standings if base.facts.covered_until < one.not_before <= facts.covered_until
    ]
    changed = [one for one in older if base.revoked(one.serial_number) != one.revoked]

    def salted() -> bytes:
        """A salt under which no other certificate is taken for one that changed."""
        for _ in range(_SALTS):
            salt = new_salt()
            names = {_name(facts.issuer, salt, one.serial_number) for one in changed}
            taken = sum(_name(facts.issuer, salt, one.serial_number) in names for one in older)
            if taken == len(changed):
                return salt
        raise RuleViolation("the certificates' digests collide", code="filter_unsolvable")

    facts = replace(facts, base=base.facts.number)
    return _build(facts, {one.serial_number: one.revoked for one in changed}, newer, salted)


def _build(
    facts: FilterFacts,
    changes: Mapping[int, bool],
    covered: Sequence[Standing],
    new_salt: Callable[[], bytes],
) -> bytes:
    for _ in range(_SALTS):
        salt = new_salt()
        ribbons = _solved(facts.issuer, salt, covered)
        if ribbons is not None:
            named = sorted(
                (_name(facts.issuer, salt, serial), status) for serial, status in changes.items()
            )
            return _encoded(facts, salt, named, *ribbons)
    raise RuleViolation("the filter's equations have no solution", code="filter_unsolvable")


def _solved(
    issuer: bytes, salt: bytes, covered: Sequence[Standing]
) -> tuple[Ribbon, Ribbon] | None:
    revoked = [one for one in covered if one.revoked]
    bits = _best_bits(len(revoked), len(covered))
    mask = (1 << bits) - 1
    held = [_hashed(b"\x01", issuer, salt, one.serial_number) for one in revoked]
    first = solve([_equation(digest, mask) for digest in held], bits)
    if first is None:
        return None
    doubtful: list[Equation] = []
    if revoked:  # else nothing is in doubt
        for one in covered:
            digest = _hashed(b"\x01", issuer, salt, one.serial_number)
            if one.revoked or first.value(*place_of(digest)) == _fingerprint(digest, mask):
                second_digest = _hashed(b"\x02", issuer, salt, one.serial_number)
                doubtful.append(Equation(*place_of(second_digest), int(one.revoked)))
    second = solve(doubtful, 1)
    return None if second is None else (first, second)


def _best_bits(revoked: int, covered: int) -> int:
    """Bits of a fingerprint with which both ribbons together are smallest."""
    if not revoked:
        return 0

    def size(bits: int) -> float:
        return revoked * (bits + 1) + (covered - revoked) / (1 << bits)

    return min(range(_MOST_BITS + 1), key=size)


def _look_up(issuer: bytes, salt: bytes, first: Ribbon, second: Ribbon, serial_number: int) -> bool:
    if not second.length:
        return False
    digest = _hashed(b"\x01", issuer, salt, serial_number)
    mask = (1 << len(first.columns)) - 1
    if first.value(*place_of(digest)) != _fingerprint(digest, mask):
        return False
    return bool(second.value(*place_of(_hashed(b"\x02", issuer, salt, serial_number))))


def _equation(digest: bytes, mask: int) -> Equation:
    return Equation(*place_of(digest), _fingerprint(digest, mask))


def _fingerprint(digest: bytes, mask: int) -> int:
    return int.from_bytes(digest[24:28], "big") & mask


def _name(issuer: bytes, salt: bytes, serial_number: int) -> bytes:
    return _hashed(b"\x03", issuer, salt, serial_number)[:8]


def _hashed(level: bytes, issuer: bytes, salt: bytes, serial_number: int) -> bytes:
    octets = serial_number.to_bytes((serial_number.bit_length() + 7) // 8, "big")
    return hashlib.sha256(level + salt + issuer + octets).digest()


# --- octets ---------------------------------------------------------------------------------


def _encoded(
    facts: FilterFacts,
    salt: bytes,
    changes: Sequence[tuple[bytes, bool]],
    first: Ribbon,
    second: Ribbon,
) -> bytes:
    times = (facts.this_update, facts.next_update, facts.covered_until)
    header = _HEADER.pack(
        MAGIC,
        int(facts.base > 0),
        facts.number,
        facts.base,
        *(int(time.timestamp()) for time in times),
        facts.log_size,
        facts.issuer,
        salt,
        len(changes),
    )
    parts = [header, *(_CHANGE.pack(*change) for change in changes)]
    parts.append(struct.pack(">BI", len(first.columns), first.length))
    parts += first.columns
    parts.append(struct.pack(">I", second.length))
    parts += second.columns
    return b"".join(parts)


def parse_filter(content: bytes) -> RevocationFilter:
    """Read a filter or a delta. Raises `Malformed` (`filter_malformed`)."""
    try:
        return _parsed(content)
    except (struct.error, ValueError, OverflowError, OSError, IndexError):
        raise Malformed(
            "the revocation filter cannot be read; fetch it again",
            code="filter_malformed",
            field="filter",
        ) from None


def _parsed(content: bytes) -> RevocationFilter:
    if len(content) > MOST_OCTETS:
        raise ValueError("too long")
    magic, kind, number, base, this, following, until, log_size, issuer, salt, count = (
        _HEADER.unpack_from(content)
    )
    if magic != MAGIC or kind > 1 or bool(base) != bool(kind) or (count and not kind):
        raise ValueError("not a filter")
    offset = _HEADER.size
    changes: dict[bytes, bool] = {}
    if count * _CHANGE.size > len(content) - offset:
        raise ValueError("cut off")
    for name, status in _CHANGE.iter_unpack(content[offset : offset + count * _CHANGE.size]):
        changes[name] = status
    offset += count * _CHANGE.size
    bits, length = struct.unpack_from(">BI", content, offset)
    first, offset = _ribbon(content, offset + 5, length, bits)
    (length,) = struct.unpack_from(">I", content, offset)
    second, offset = _ribbon(content, offset + 4, length, 1)
    return RevocationFilter(
        facts=FilterFacts(
            issuer=issuer,
            number=number,
            this_update=datetime.fromtimestamp(this, UTC),
            next_update=datetime.fromtimestamp(following, UTC),
            covered_until=datetime.fromtimestamp(until, UTC),
            log_size=log_size,
            base=base,
        ),
        salt=salt,
        changes=changes,
        first=first,
        second=second,
        signed=content[:offset],
        signature=content[offset:],
    )


def _ribbon(content: bytes, offset: int, length: int, bits: int) -> tuple[Ribbon, int]:
    octets = math.ceil(length / 8)
    end = offset + octets * bits
    if bits > _MOST_BITS or 0 < length < WIDTH or end > len(content):
        raise ValueError("not a ribbon")
    columns = [content[offset + n * octets : offset + (n + 1) * octets] for n in range(bits)]
    return Ribbon(length, columns), end
