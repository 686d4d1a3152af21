"""Values inside access."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class AuthorityRole(StrEnum):
    """The two CAs of the internal hierarchy."""

    ROOT = "root"
    ISSUING = "issuing"


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA of the internal hierarchy. `key_id` is `None` once its key has left the host."""

    role: AuthorityRole
    generation: int
    der: bytes
    key_id: str | None
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The present root and issuing CA."""

    root: Authority
    issuing: Authority
