"""A CA's line: the same subject, one key after another."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.errors import Conflict, NotFound
from lamassu.services.ca.contract import CertificationAuthority


def in_succession(
    generations: Sequence[CertificationAuthority],
) -> list[CertificationAuthority]:
    """The first generation first, each followed by its successor."""
    by_id = {one.id: one for one in generations}
    current = next((one for one in generations if one.lineage_id is None), None)
    line: list[CertificationAuthority] = []
    while current is not None and len(line) < len(by_id):
        line.append(current)
        current = by_id.get(current.successor_id or "")
    return line


def generation_id(generations: Sequence[CertificationAuthority], number: int) -> str:
    """The id of a generation that follows: the line's, and its number."""
    return f"{generations[0].first_generation}.{number}"


def check_has_key_here(authority: CertificationAuthority) -> None:
    """Only who has both keys can vouch in both directions. Raises `NotFound`."""
    if not authority.key_id:
        raise NotFound(
            f"the key of {authority.id}, which has to sign, is offline; make a new CA under it"
            " instead: lamassu ca create --external-root, then lamassu ceremony",
            code="ca_key_offline",
        )


def check_is_newest(authority: CertificationAuthority, planned: CertificationAuthority) -> None:
    """Refuse a rekey that another one overtook. Raises `Conflict` (`ca_changed`)."""
    if authority.successor_id is not None or authority.version != planned.version:
        raise Conflict("the CA was changed meanwhile; look at it and ask again", code="ca_changed")
