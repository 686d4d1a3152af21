"""Have a CA's key moved into another engine, and show everywhere where it is."""

from __future__ import annotations

from dataclasses import replace

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import Conflict, NotFound
from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import CertificationAuthority, Demand, Operation
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.usecases.approvals import ApprovalDesk
from lamassu.services.ca.usecases.documents import ca_document, update_document
from lamassu.services.ca.usecases.issuers import ca_not_found
from lamassu.services.ca.usecases.trail import record
from lamassu.services.kms.contract import KeyMove, KeyPurpose, Keys


class CaKeyMoving:
    """The KMS moves; the CA asks who has to agree, and notes the engine on its certificate."""

    def __init__(self, *, store: CaStore, keys: Keys, clock: Clock, desk: ApprovalDesk) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock
        self._desk = desk

    async def plan(self, ca_id: str, engine_id: str) -> KeyMove:
        """What would be done; nothing is. Raises as `Keys.plan_move`, and `NotFound`."""
        authority = await self._authority(ca_id)
        return await self._keys.plan_move(authority.key_id, engine_id, purpose=KeyPurpose.CA)

    async def move(
        self, ca_id: str, engine_id: str, *, caller: Caller, demand: Demand | None = None
    ) -> CertificationAuthority:
        """Move the key, or go on with a move that was cut off. Raises as `plan`, and as
        `Approvals.require`: the key leaves its engine, so approvers have to agree."""
        authority = await self._authority(ca_id)
        try:
            await self._keys.plan_move(authority.key_id, engine_id, purpose=KeyPurpose.CA)
        except Conflict as conflict:
            if conflict.code != "key_already_there" or _shows(authority, engine_id):
                raise
            return await self._note(authority.id, caller)  # the crash came between the commits
        approval = await self._desk.require(Operation.EXPORT_KEY, [ca_id], demand)
        await self._keys.move(authority.key_id, engine_id, purpose=KeyPurpose.CA, caller=caller)
        moved = await self._note(authority.id, caller)
        await self._desk.settle(approval, caller)
        return moved

    async def follow(self, key_id: str, *, caller: Caller) -> None:
        """Note where a key is now, after a crash between the KMS's commit and the CA's."""
        # an imported CA's subject key identifier need not be its key's id
        authority = await self._store.find_ca_with_key(key_id)
        if authority is not None:
            await self._note(authority.id, caller)

    async def _authority(self, ca_id: str) -> CertificationAuthority:
        authority = await self._store.find_ca(ca_id)
        if authority is None:
            raise ca_not_found()
        if not authority.key_id:
            raise NotFound("the CA's key is not kept here", code="key_not_found")
        return authority

    async def _note(self, ca_id: str, caller: Caller) -> CertificationAuthority:
        current = await self._authority(ca_id)
        key = await self._keys.get(current.key_id, purpose=KeyPurpose.CA)
        now = self._clock.now()
        async with self._store.unit() as transaction:
            previous = await transaction.lock_ca(ca_id)
            if previous is None:
                raise ca_not_found()
            if previous.key_id != key.key_id or _shows(previous, key.engine_id):
                return previous
            certificate = replace(
                previous.certificate,
                engine_id=key.engine_id,
                version=previous.certificate.version + 1,
            )
            moved = replace(previous, certificate=certificate, version=previous.version + 1)
            await transaction.save_ca(moved)
            record(
                transaction,
                "ca.key.move",
                f"ca/{ca_id}",
                version=moved.version,
                data=update_document(ca_document(previous, now), ca_document(moved, now)),
                caller=caller,
                detail={
                    "key_id": key.key_id,
                    "from": previous.certificate.engine_id,
                    "to": key.engine_id,
                },
            )
        return moved


def _shows(authority: CertificationAuthority, engine_id: str) -> bool:
    return authority.certificate.engine_id == engine_id
