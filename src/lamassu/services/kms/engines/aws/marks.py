"""The tags that our keys carry in AWS, so that people and the orphans' sweep know them.

`lamassu:installation` says whose a key is: several installations may share an account, and a
sweep touches its own keys only. The database decides over a key's purpose; the tag repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping

from lamassu.kernel.errors import Unavailable
from lamassu.services.kms.contract import KeyPurpose

INSTALLATION = "lamassu:installation"
ENGINE = "lamassu:engine"
PURPOSE = "lamassu:purpose"
ORPHAN = "lamassu:orphan"  # since when; a key that no row knew at a start


def marks(*, installation: str, engine_id: str, purpose: KeyPurpose) -> dict[str, str]:
    """What a new key is tagged with; `installation` may be unknown (empty)."""
    tags = {ENGINE: engine_id, PURPOSE: purpose.value}
    return {INSTALLATION: installation, **tags} if installation else tags


def check_mark(key_id: str, tags: Mapping[str, str], purpose: KeyPurpose) -> None:
    """Refuse a key that was made for something else; one without a tag, as the original makes
    them, passes. Raises `Unavailable` (`key_damaged`)."""
    marked = tags.get(PURPOSE, purpose.value)
    if marked != purpose.value:
        raise Unavailable(
            f"key {key_id} is tagged in AWS for the purpose {marked} and used for"
            f" {purpose.value}; name the database that belongs to it, or correct the tag {PURPOSE}",
            code="key_damaged",
        )
