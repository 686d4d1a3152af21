"""Find the key that an identifier names."""

from __future__ import annotations

from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key
from lamassu.services.kms.ports import KeyStorage


async def find_key(identifier: str, *, storage: KeyStorage) -> Key | None:
    """By key id, then by alias; the identifier may be a PKCS#11 URI. Case-sensitive."""
    name = rules.parse_identifier(identifier)
    return await storage.find(name) or await storage.find_by_alias(name)


async def get_visible_key(identifier: str, *, storage: KeyStorage) -> Key:
    """The same for the API: raises `NotFound` for a key that it must not know of."""
    return rules.check_visible(await find_key(identifier, storage=storage))
