"""What a ceremony needs: a token, and a place that survives a crash."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from lamassu.services.ceremony.model import EngineFacts
from lamassu.services.kms.contract import KeySpec

T = TypeVar("T")

Tell = Callable[[str], None]
"""Says a line to the people in the room."""


class RootKeys(Protocol):
    """The token. Raises `Unavailable` when it does not answer."""

    def facts(self) -> EngineFacts:
        """What it is."""
        ...

    async def check_can_make(self, spec: KeySpec) -> None:
        """Raises `RuleViolation` (`unsupported_key`) for a key that it cannot make."""
        ...

    async def held(self) -> Sequence[str]:
        """The ids of the keys in it."""
        ...

    async def make(self, spec: KeySpec) -> str:
        """Make a key that never leaves it; its id."""
        ...

    async def public_key(self, key_id: str) -> bytes:
        """The SubjectPublicKeyInfo (DER), read from the token."""
        ...

    async def use(self, key_id: str, build: Callable[[CertificateIssuerPrivateKeyTypes], T]) -> T:
        """Run `build`, which only signs, with the key."""
        ...


class Ledger(Protocol):
    """Where a ceremony is written down: what is in it survives a crash in any instant."""

    def read(self) -> str:
        """Every whole line. A line that a crash cut off was never announced, and is gone."""
        ...

    def append(self, line: str) -> None:
        """Add a line; durable when this returns."""
        ...

    def keep(self, name: str, content: bytes) -> str:
        """Write a file whole, in place of one of that name; durable when this returns.
        Where it is, for people."""
        ...
