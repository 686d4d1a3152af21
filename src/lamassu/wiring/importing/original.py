"""An installation of the original: its six PostgreSQL databases, read while it stands."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.keys import key_id
from lamassu.services.alerts.model import LatestEvent
from lamassu.services.ca.contract import IssuanceProfile
from lamassu.services.ca.rules.adoption import FoundCertificate
from lamassu.services.devices.usecases.adopt_devices import FoundDevice
from lamassu.wiring.importing.material import (
    PAGE,
    Certificates,
    Damaged,
    FoundDms,
    FoundKey,
    SourceAuthority,
)
from lamassu.wiring.importing.original_rows import (
    authority_of,
    certificate_of,
    device_of,
    dms_of,
    event_of,
    key_of,
    profile_of,
)
from lamassu.wiring.importing.postgres import SourceDatabase

_CERTIFICATES = """
    SELECT serial_number, certificate, status, revocation_timestamp, revocation_reason, metadata
    FROM certificates WHERE serial_number > $1 ORDER BY serial_number LIMIT $2
"""
_BY_SERIAL = """
    SELECT serial_number, certificate, status, revocation_timestamp, revocation_reason, metadata
    FROM certificates WHERE serial_number = ANY($1::text[])
"""
_AUTHORITIES = """
    SELECT a.id, a.metadata, a.creation_ts, a.profile_id, c.certificate, c.status,
           c.revocation_timestamp, c.revocation_reason, c.type, c.engine_id
    FROM ca_certificates a JOIN certificates c USING (serial_number) ORDER BY a.id
"""
_ROLES = """
    SELECT ca_ski, crl_refresh_interval, crl_validity, crl_regenerate_on_revoke,
           latest_crl_version
    FROM va_role
"""
_DEVICES = """
    SELECT id, tags, status, icon, icon_color, creation_timestamp, metadata, dms_owner,
           identity_slot, events
    FROM devices WHERE id > $1 ORDER BY id LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class OriginalPlace:
    """`server` is any database of its server. `engines` maps its engines' ids to ours, where
    they differ."""

    server: SourceDatabase
    engines: Mapping[str, str] = field(default_factory=dict)


class OriginalInstallation:
    """The `Installation` of the original's databases."""

    name = "lamassu"

    def __init__(self, place: OriginalPlace) -> None:
        self._place = place
        self._ca_keys: set[str] = set()

    async def authorities(self) -> Sequence[SourceAuthority | Damaged]:
        """Each with what the VA keeps of its CRLs."""
        roles = {row["ca_ski"]: row for row in await self._all("va", _ROLES)}
        found: list[SourceAuthority | Damaged] = []
        for row in await self._all("ca", _AUTHORITIES):
            one = authority_of(row, self._place.engines, None)
            if isinstance(one, SourceAuthority):
                facts = certificate_facts(one.found.der)
                own = key_id(facts.spki)
                self._ca_keys.add(own)
                role = roles.get(facts.ski or own)
                one = authority_of(row, self._place.engines, role)
            found.append(one)
        return found

    async def count_certificates(self) -> int | None:
        return await self._count("ca", "SELECT count(*) FROM certificates")

    async def certificates(self) -> Certificates:
        """By serial number, in pages: no cursor is held open in a system that is in use."""
        async for rows in self._pages("ca", _CERTIFICATES, "serial_number"):
            yield [certificate_of(row) for row in rows]

    async def certificates_by_serial(
        self, serial_numbers: Sequence[str]
    ) -> Sequence[FoundCertificate]:
        """Those that can be read."""
        async with self._place.server.named("ca").connected() as connection:
            rows = await connection.fetch(_BY_SERIAL, list(serial_numbers))
        found = [certificate_of(row) for row in rows]
        return [one for one in found if isinstance(one, FoundCertificate)]

    async def profiles(self) -> Sequence[IssuanceProfile | Damaged]:
        rows = await self._all("ca", "SELECT * FROM issuance_profiles ORDER BY id")
        return [profile_of(row) for row in rows]

    async def keys(self) -> Sequence[FoundKey]:
        """Those that are no CA's: a CA's came with it."""
        query = "SELECT key_id, engine_id, name, tags FROM kms_keys ORDER BY key_id"
        found = [key_of(row, self._place.engines) for row in await self._all("kms", query)]
        return [one for one in found if one.key_id not in self._ca_keys]

    async def dms(self) -> Sequence[FoundDms | Damaged]:
        query = "SELECT id, name, metadata, creation_date, settings FROM dms ORDER BY id"
        return [dms_of(row) for row in await self._all("dmsmanager", query)]

    async def count_devices(self) -> int:
        return await self._count("devicemanager", "SELECT count(*) FROM devices")

    async def devices(self) -> AsyncIterator[Sequence[FoundDevice | Damaged]]:
        """By id, in pages."""
        async for rows in self._pages("devicemanager", _DEVICES, "id"):
            yield [device_of(row) for row in rows]

    async def events(self) -> Sequence[LatestEvent]:
        query = "SELECT event_type, event, last_seen, total_seen FROM events"
        found = [event_of(row) for row in await self._all("alerts", query)]
        return [one for one in found if one is not None]

    async def left_behind(self) -> Sequence[Damaged]:
        """What has no place here yet, counted."""
        left = []
        for database, query, what in (
            ("devicemanager", "SELECT count(*) FROM device_groups", "device groups"),
            ("alerts", "SELECT count(*) FROM subscriptions", "subscriptions to alerts"),
        ):
            count = await self._count(database, query)
            if count:
                text = f"the platform has no {what} yet: write down what they are"
                left.append(Damaged(f"{count} {what}", "not_available", text))
        return left

    async def _all(self, database: str, query: str) -> Sequence[Any]:
        async with self._place.server.named(database).connected() as connection:
            rows: Sequence[Any] = await connection.fetch(query)
        return rows

    async def _count(self, database: str, query: str) -> int:
        async with self._place.server.named(database).connected() as connection:
            return int(await connection.fetchval(query))

    async def _pages(self, database: str, query: str, key: str) -> AsyncIterator[Sequence[Any]]:
        after = ""
        async with self._place.server.named(database).connected() as connection:
            while rows := await connection.fetch(query, after, PAGE):
                yield rows
                after = rows[-1][key]
