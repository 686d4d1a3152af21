"""The internal root and issuing CA as they stand."""

from __future__ import annotations

from lamassu.kernel.errors import NotFound
from lamassu.services.access.model import AuthorityRole, Hierarchy
from lamassu.services.access.ports import CredentialStore


async def find_hierarchy(storage: CredentialStore) -> Hierarchy | None:
    """The newest of each role; `None` before `establish`."""
    newest = {authority.role: authority for authority in reversed(await storage.authorities())}
    if len(newest) < len(AuthorityRole):
        return None
    return Hierarchy(newest[AuthorityRole.ROOT], newest[AuthorityRole.ISSUING])


async def get_hierarchy(storage: CredentialStore) -> Hierarchy:
    """The same. Raises `NotFound` (`internal_ca_missing`)."""
    hierarchy = await find_hierarchy(storage)
    if hierarchy is None:
        raise NotFound(
            "this installation has no internal CA yet; `lamassu init` makes it",
            code="internal_ca_missing",
        )
    return hierarchy
