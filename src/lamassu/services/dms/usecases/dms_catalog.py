"""DMSs and CAs as enrolment reads them: remembered for a moment, never for long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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

    async def find(self, key: str) -> T | None:
        """The value, at most `lifetime` old."""
        entry = self._entries.get(key)
        now = self._clock.now()
        if entry is not None and timedelta(0) <= now - entry[0] < self._lifetime:
            return entry[1]
        self.forget(key)
        value = await self._read(key)
        if value is not None:
            if len(self._entries) >= _MOST_ENTRIES:
                self._entries.clear()
            self._entries[key] = (now, value)
        return value

    def forget(self, key: str) -> None:
        """Read it anew next time."""
        self._entries.pop(key, None)


class DmsCatalog:
    """DMSs by id, at most a second old; a change in this process shows at once."""

    def __init__(self, store: DmsStore, *, defaults: DmsDefaults, clock: Clock) -> None:
        self._memory = Memory(store.find, lifetime=defaults.dms_cache, clock=clock)

    async def get(self, dms_id: str) -> Dms:
        """Raises `NotFound` (`DMS not found`)."""
        dms = await self._memory.find(dms_id)
        if dms is None:
            raise dms_not_found()
        return dms

    def forget(self, dms_id: str) -> None:
        """It was changed."""
        self._memory.forget(dms_id)


class AuthorityCatalog:
    """CAs by id, a few seconds old: their certificates. Their standing is always asked anew."""

    def __init__(self, authorities: Authorities, *, defaults: DmsDefaults, clock: Clock) -> None:
        self._authorities = authorities
        self._memory = Memory(self._read, lifetime=defaults.authority_cache, clock=clock)

    async def find(self, ca_id: str) -> CertificationAuthority | None:
        """The CA, or `None` when it is gone."""
        return await self._memory.find(ca_id)

    async def _read(self, ca_id: str) -> CertificationAuthority | None:
        try:
            return await self._authorities.get_ca(ca_id)
        except NotFound:
            return None
