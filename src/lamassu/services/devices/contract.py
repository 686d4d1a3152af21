"""What other slices may know of the device manager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from lamassu.kernel.identity import Caller
from lamassu.kernel.records import Json


class DeviceStatus(StrEnum):
    """As the wire spells them."""

    NO_IDENTITY = "NO_IDENTITY"
    ACTIVE = "ACTIVE"
    RENEWAL_PENDING = "RENEWAL_PENDING"
    EXPIRING_SOON = "EXPIRING_SOON"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    DECOMMISSIONED = "DECOMMISSIONED"


class SlotStatus(StrEnum):
    """As the wire spells them."""

    ACTIVE = "ACTIVE"
    RENEWAL_PENDING = "RENEWAL_PENDING"
    EXPIRING_SOON = "EXPIRING_SOON"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"


class BindMode(StrEnum):
    """Why a certificate enters a slot; also the name of the slot's event."""

    PROVISIONED = "PROVISIONED"
    RE_PROVISIONED = "RE-PROVISIONED"
    RENEWED = "RENEWED"


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """A line of a device's or slot's history."""

    at: datetime
    type: str
    description: str


@dataclass(frozen=True, slots=True)
class SlotVersion:
    """A certificate that is or was the slot's."""

    number: int
    ca_id: str
    serial_number: str
    certificate_sha256: str
    first_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class IdentitySlot:
    """A device's identity: the active certificate and those before it."""

    status: SlotStatus
    active_version: int
    versions: Sequence[SlotVersion]
    expires_at: datetime | None = None
    events: Sequence[TimelineEvent] = ()

    @property
    def current(self) -> SlotVersion:
        """The active certificate."""
        return next(v for v in self.versions if v.number == self.active_version)


@dataclass(frozen=True, slots=True)
class Device:
    """A device; `version` counts every change of it or its slot."""

    id: str
    dms_id: str
    status: DeviceStatus
    icon: str
    icon_color: str
    created_at: datetime
    tags: Sequence[str] = ()
    metadata: Mapping[str, Json] = field(default_factory=dict)
    slot: IdentitySlot | None = None
    events: Sequence[TimelineEvent] = ()
    version: int = 0


@dataclass(frozen=True, slots=True)
class NewDevice:
    """A device to be created together with its first identity (JITP)."""

    id: str
    dms_id: str
    icon: str
    icon_color: str
    tags: Sequence[str] = ()
    metadata: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Binding:
    """Put a certificate into a device's slot.

    `judged_version` is the device's version on which the enrolment was decided, `None` for a
    device that did not exist: anything else by now is a `Conflict` (security rule 13).
    `create` makes the device in the same transaction.
    """

    device_id: str
    dms_id: str
    mode: BindMode
    ca_id: str
    serial_number: str
    certificate_sha256: str
    not_after: datetime
    judged_version: int | None
    caller: Caller
    create: NewDevice | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who asks for a certificate, as far as the device manager knows.

    `device` is the one of the id asked for, `was_deleted` whether such a one was deleted and not
    created anew since (rule 17); `lookalike` the id of another, also a deleted one, equal but for
    case or spacing (rule 15). `holder` has or had the certificate shown in its slot: as
    `Devices.find_by_certificate` has it.
    """

    device: Device | None = None
    was_deleted: bool = False
    lookalike: str | None = None
    holder: Device | None = None


class Devices(Protocol):
    """The device manager as other slices use it."""

    async def find(self, device_id: str) -> Device | None:
        """A device with its slot, by exact id."""
        ...

    async def find_candidate(self, device_id: str, certificate_sha256: str) -> Candidate:
        """All that an enrolment is judged by, read at one instant."""
        ...

    async def find_by_certificate(self, certificate_sha256: str) -> Device | None:
        """The device in whose slot this certificate is or was (SHA-256 of its DER, lower-case hex).

        Of a deleted device, its tombstone: `DECOMMISSIONED` and without a slot (rules 16, 17).
        """
        ...

    async def bind(self, binding: Binding) -> Device:
        """Fill the slot; idempotent on the certificate.

        Raises `Conflict` (`device_changed`, `device_exists`, `device_deleted`,
        `certificate_refused`).
        """
        ...

    async def mark_used(self, device_id: str, certificate_sha256: str) -> None:
        """Note that the device has shown this certificate: its lost-answer window closes."""
        ...

    async def refuse(self, serial_number: str, device_id: str) -> bool:
        """Bar an unbound certificate from ever being bound; false if it is in a slot."""
        ...
