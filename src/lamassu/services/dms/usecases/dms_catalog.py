"""DMSs and CAs as enrolment reads them: remembered for a moment, never for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import NotFound
from lamassu.services.ca.contract import Authorities, CertificationAuthority
from lamassu.services.dms.model.defaults import DmsDefaults
from lamassu.services.dms.model.dms import Dms
from lamassu.services.dms.ports import DmsStore

T = TypeVar("T")
_MOST_ENTRIES = 1000


def dms_not_found() -> NotFound:
    """The refusal of an unknown DMS, in the words that old clients know."""
    return NotFound("DMS not found", code="dms_not_found")


class Memory(Generic[T]):
    """What was read lately, by key. Absence is not remembered: strangers could fill it."""

    def __init__(
        self, read: Callable[[str], Awaitable[T | None]], *, lifetime: timedelta, clock: Clock
    ) -> None:
        self._read = read
        self._lifetime = lifetime
        self._clock = clock
        self._entries: dict[str, tuple[datetime, T]] = {}
        self._readers: dict[str, asyncio.Lock] = {}
        self._changes = 0

    async def find(self, key: str) -> T | None:
        """The value, at most `lifetime` old; of many who miss it at once, one reads."""
        value = self._fresh(key)
        if value is not None:
            return value
        reader = self._readers.setdefault(key, asyncio.Lock())
        try:
            async with reader:
                value = self._fresh(key)
                return value if value is not None else await self._read_anew(key)
        finally:
            if not reader.locked():
                self._readers.pop(key, None)

    def forget(self, key: str) -> None:
        """Read it anew next time; what is being read now may be old already."""
        self._changes += 1
        self._entries.pop(key, None)

    def _fresh(self, key: str) -> T | None:
        entry = self._entries.get(key)
        if entry is None or not timedelta(0) <= self._clock.now() - entry[0] < self._lifetime:
            return None
        return entry[1]

    async def _read_anew(self, key: str) -> T | None:
        now, changes = self._clock.now(), self._changes
        value = await self._read(key)
        if value is not None and changes == self._changes:
            if len(self._entries) >= _MOST_ENTRIES:
                self._entries.clear()
            self._entries[key] = (now, value)
        return value


class DmsCatalog:
    """DMSs by id, at most a second old; a change in this process shows at once."""

    def __init__(self, store: DmsStore, *, defaults: DmsDefaults, clock: Clock) -> None:
        self._memory = Memory(store.find, lifetime=defaults.dms_cache, clock=clock)

    async def get(self, dms_id: str) -> Dms:
        """Raises `NotFound` (`DMS not found`)."""
        dms = await self.find(dms_id)
        if dms is None:
            raise dms_not_found()
        return dms

    async def find(self, dms_id: str) -> Dms | None:
        """The DMS, or `None` when it is gone."""
        return await self._memory.find(dms_id)

    def forget(self, dms_id: str) -> None:
        """It was changed."""
        self._memory.forget(dms_id)


class AuthorityCatalog:
    """CAs by id, a few seconds old: their certificates. Their standing is always asked anew."""

    def __init__(self, authorities: Authorities, *, defaults: DmsDefaults, clock: Clock) -> None:
        self._authorities = authorities
        self._memory = Memory(self._read, lifetime=defaults.authority_cache, clock=clock)

    async def find(self, ca_id: str) -> Sequence[CertificationAuthority]:
        """The CA in all its generations: what each of them issued is the CA's. Empty when it is
        gone."""
        return await self._memory.find(ca_id) or ()

    async def _read(self, ca_id: str) -> Sequence[CertificationAuthority] | None:
        try:
            return await self._authorities.generations_of(ca_id)
        except NotFound:
            return None
