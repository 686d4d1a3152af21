"""What an installation that rose to production still has of its time in development."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from lamassu.services.access.contract import ADMIN_LIFETIME, CredentialKind, Mode
from lamassu.services.access.ports import CredentialStore
from lamassu.services.access.rules import BACKDATING
from lamassu.services.access.usecases.hierarchy import find_hierarchy


async def find_leftovers(storage: CredentialStore, *, now: datetime) -> Sequence[str]:
    """A text for people for each (security rule 4), with what to do about it."""
    texts = []
    hierarchy = await find_hierarchy(storage)
    if hierarchy is not None and hierarchy.root.key_id is not None:
        texts.append(
            "the internal root's key is on this host; take it away:"
            " lamassu init --export-root-key FILE"
        )
    longest = ADMIN_LIFETIME[Mode.PRODUCTION] + BACKDATING
    for credential in await storage.unexpired(now, kind=CredentialKind.ADMIN):
        lives_long = credential.not_after - credential.not_before > longest
        if lives_long and credential.revoked_at is None:
            texts.append(
                f"a certificate of admin {credential.name} lives until"
                f" {credential.not_after:%Y-%m-%d}, beyond production's day;"
                f" end it: lamassu admin revoke {credential.serial_number}"
            )
    return texts
