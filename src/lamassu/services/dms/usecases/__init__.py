"""What the DMS manager does: a module per deed, and the one door to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from lamassu.kernel.adoption import Verdict
from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import Caller
from lamassu.kernel.json_patch import Patch
from lamassu.kernel.listing import ListQuery, Page
from lamassu.kernel.records import StoredEvent
from lamassu.services.ca.contract import Authorities
from lamassu.services.devices.contract import Devices
from lamassu.services.dms.contract import EnrollmentRequest
from lamassu.services.dms.model.defaults import DmsDefaults
from lamassu.services.dms.model.dms import Dms, DmsDraft
from lamassu.services.dms.ports import DmsStore
from lamassu.services.dms.usecases import change_dms, create_dms
from lamassu.services.dms.usecases.adopt_dms import Promised, adopt_dms
from lamassu.services.dms.usecases.announce_enrollment import EnrollmentAnnouncer
from lamassu.services.dms.usecases.distribute_cas import distribute_cas
from lamassu.services.dms.usecases.dms_catalog import (
    AuthorityCatalog,
    DmsCatalog,
    dms_not_found,
)
from lamassu.services.dms.usecases.enroll_device import DeviceEnroller
from lamassu.services.dms.usecases.issue_identity import IdentityIssuer
from lamassu.services.dms.usecases.judge_peer import PeerJudge
from lamassu.services.dms.usecases.judge_settings import SettingsJudge
from lamassu.services.dms.usecases.reconcile_unbound import reconcile_unbound
from lamassu.services.dms.usecases.reenroll_device import DeviceReenroller


class DmsService:
    """DMSs and enrolment through them; implements `contract.Enrollment`."""

    def __init__(
        self,
        *,
        store: DmsStore,
        authorities: Authorities,
        devices: Devices,
        clock: Clock,
        defaults: DmsDefaults | None = None,
    ) -> None:
        defaults = defaults or DmsDefaults()
        self._store = store
        self._authorities = authorities
        self._devices = devices
        self._clock = clock
        self._defaults = defaults
        self._settings = SettingsJudge(authorities=authorities, defaults=defaults)
        self._catalog = DmsCatalog(store, defaults=defaults, clock=clock)
        judge = PeerJudge(
            authorities=authorities,
            catalog=AuthorityCatalog(authorities, defaults=defaults, clock=clock),
            clock=clock,
        )
        issuer = IdentityIssuer(authorities=authorities, devices=devices)
        self._enroller = DeviceEnroller(
            store=store,
            catalog=self._catalog,
            judge=judge,
            issuer=issuer,
            authorities=authorities,
            devices=devices,
            clock=clock,
        )
        self._reenroller = DeviceReenroller(
            catalog=self._catalog,
            judge=judge,
            issuer=issuer,
            authorities=authorities,
            devices=devices,
            defaults=defaults,
            clock=clock,
        )
        self._announcer = EnrollmentAnnouncer(
            store=store,
            catalog=self._catalog,
            authorities=authorities,
            issuer=issuer,
            clock=clock,
        )

    # --- enrolment ------------------------------------------------------------------------

    async def ca_certificates(self, dms_id: str) -> Sequence[bytes]:
        """The trust anchors and issuers of a DMS (DER). Raises `NotFound`."""
        dms = await self._catalog.get(dms_id)
        return await distribute_cas(dms, authorities=self._authorities, defaults=self._defaults)

    async def enroll(self, request: EnrollmentRequest) -> bytes:
        """A device's first certificate (DER); errors as the contract says."""
        return await self._enroller.enroll(request)

    async def reenroll(self, request: EnrollmentRequest) -> bytes:
        """The next certificate of a device (DER); errors as the contract says."""
        return await self._reenroller.reenroll(request)

    async def announce(self, event: StoredEvent) -> None:
        """Handle `device.identity.update`."""
        await self._announcer.announce([event])

    async def announce_all(self, events: Sequence[StoredEvent]) -> None:
        """The same for many, in one transaction: all are told of, or none is."""
        await self._announcer.announce(events)

    async def reap(self) -> int:
        """Revoke what was issued and never bound; how many certificates. A job, each minute."""
        return await reconcile_unbound(
            authorities=self._authorities,
            devices=self._devices,
            defaults=self._defaults,
            clock=self._clock,
        )

    # --- DMSs -----------------------------------------------------------------------------

    async def get(self, dms_id: str) -> Dms:
        """Raises `NotFound` (`DMS not found`)."""
        dms = await self._store.find(dms_id)
        if dms is None:
            raise dms_not_found()
        return dms

    async def list(self, query: ListQuery) -> Page[Dms]:
        """A page of DMSs."""
        return await self._store.list(query)

    async def count(self, query: ListQuery) -> int:
        """How many DMSs meet the query's filters."""
        return await self._store.count(query)

    async def create(self, draft: DmsDraft, *, caller: Caller) -> Dms:
        """Raises `RuleViolation`, `Conflict` (`DMS already exists`)."""
        dms = await create_dms.create_dms(
            self._store, self._settings, self._clock, draft, caller=caller
        )
        self._catalog.forget(dms.id)
        return dms

    async def adopt(
        self,
        draft: DmsDraft,
        *,
        created_at: datetime,
        caller: Caller,
        dry_run: bool,
        promised: Promised,
    ) -> Verdict:
        """See `adopt_dms.adopt_dms`."""
        return await adopt_dms(
            self._store,
            self._settings,
            draft,
            created_at=created_at,
            caller=caller,
            dry_run=dry_run,
            promised=promised,
        )

    async def update(
        self, draft: DmsDraft, *, caller: Caller, expected_version: int | None = None
    ) -> Dms:
        """Raises `NotFound`, `RuleViolation`, `Conflict` (`version_mismatch`)."""
        dms = await change_dms.update_dms(
            self._store, self._settings, draft, caller=caller, expected_version=expected_version
        )
        self._catalog.forget(dms.id)
        return dms

    async def patch_metadata(
        self,
        dms_id: str,
        patches: Sequence[Patch],
        *,
        caller: Caller,
        expected_version: int | None = None,
    ) -> Dms:
        """Raises `NotFound`, `RuleViolation` (`patch_failed`), `Conflict`."""
        dms = await change_dms.patch_dms_metadata(
            self._store, dms_id, patches, caller=caller, expected_version=expected_version
        )
        self._catalog.forget(dms_id)
        return dms

    async def delete(self, dms_id: str, *, caller: Caller) -> None:
        """Raises `NotFound`."""
        await change_dms.delete_dms(self._store, dms_id, caller=caller)
        self._catalog.forget(dms_id)
