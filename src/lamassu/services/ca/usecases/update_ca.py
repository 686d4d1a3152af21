"""Changes of CAs and certificates that leave their status alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.identity import Caller
from lamassu.kernel.json_patch import Patch
from lamassu.services.ca.contract import Certificate, CertificationAuthority, certificate_document
from lamassu.services.ca.ports import CaStore, CaTransaction
from lamassu.services.ca.rules.metadata import patched
from lamassu.services.ca.rules.profiles import check_for_end_entities
from lamassu.services.ca.usecases.documents import ca_document, update_document
from lamassu.services.ca.usecases.issuers import (
    ca_not_found,
    certificate_not_found,
    profile_not_found,
)
from lamassu.services.ca.usecases.trail import record


class Amendments:
    """Metadata and default profiles."""

    def __init__(self, *, store: CaStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def patch_ca_metadata(
        self, ca_id: str, patches: Sequence[Patch], *, caller: Caller
    ) -> CertificationAuthority:
        """Raises `NotFound`, `RuleViolation` for a patch that fails."""
        async with self._store.unit() as transaction:
            previous = await transaction.lock_ca(ca_id)
            if previous is None:
                raise ca_not_found()
            metadata = patched(previous.metadata, patches)
            updated = replace(previous, metadata=metadata, version=previous.version + 1)
            await self._save(transaction, "ca.metadata.update", previous, updated, caller)
        return updated

    async def change_profile(
        self, ca_id: str, profile_id: str, *, caller: Caller
    ) -> CertificationAuthority:
        """Set the default profile. Raises `NotFound` for either, `RuleViolation`, `Forbidden`."""
        if not profile_id:
            raise RuleViolation("struct validation error", code="missing_field", field="profile_id")
        async with self._store.unit() as transaction:
            previous = await transaction.lock_ca(ca_id)
            if previous is None:
                raise ca_not_found()
            profile = await transaction.share_profile(profile_id)
            if profile is None:
                raise profile_not_found()
            check_for_end_entities(profile, ca_id)
            updated = replace(previous, profile_id=profile_id, version=previous.version + 1)
            await self._save(transaction, "ca.profile.update", previous, updated, caller)
        return updated

    async def patch_certificate_metadata(
        self, serial_number: str, patches: Sequence[Patch], *, caller: Caller
    ) -> Certificate:
        """Raises `NotFound`, `RuleViolation` for a patch that fails."""
        now = self._clock.now()
        async with self._store.unit() as transaction:
            locked = await transaction.lock_certificate(serial_number)
            if locked is None:
                raise certificate_not_found()
            previous = locked.certificate
            updated = replace(
                previous,
                metadata=patched(previous.metadata, patches),
                version=previous.version + 1,
            )
            await transaction.save_certificate(updated)
            record(
                transaction,
                "certificate.metadata.update",
                f"certificate/{serial_number}",
                version=updated.version,
                data=update_document(
                    certificate_document(previous, now), certificate_document(updated, now)
                ),
                caller=caller,
                detail={"patches": len(patches)},
            )
        return updated

    async def _save(
        self,
        transaction: CaTransaction,
        event_type: str,
        previous: CertificationAuthority,
        updated: CertificationAuthority,
        caller: Caller,
    ) -> None:
        now: datetime = self._clock.now()
        await transaction.save_ca(updated)
        record(
            transaction,
            event_type,
            f"ca/{updated.id}",
            version=updated.version,
            data=update_document(ca_document(previous, now), ca_document(updated, now)),
            caller=caller,
            detail={"profile_id": updated.profile_id},
        )
