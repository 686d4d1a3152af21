"""The signature routes of a CA: its key on a caller's message (security rule 8)."""

from __future__ import annotations

import base64

from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import Caller
from lamassu.services.ca.contract import CertificationAuthority
from lamassu.services.ca.ports import CaStore
from lamassu.services.ca.rules.status import check_may_sign, key_is_offline
from lamassu.services.ca.usecases.issuers import ca_not_found
from lamassu.services.ca.usecases.trail import record
from lamassu.services.kms.contract import Keys, MessageType


class CaSignatures:
    """What may be signed is the KMS's to judge; the CA adds state and trail."""

    def __init__(self, *, store: CaStore, keys: Keys, clock: Clock) -> None:
        self._store = store
        self._keys = keys
        self._clock = clock

    async def sign(
        self,
        ca_id: str,
        *,
        algorithm: str,
        message: bytes,
        message_type: MessageType,
        caller: Caller,
    ) -> bytes:
        """Raises `NotFound`, `RuleViolation` (`CA Status inconsistent`, algorithm), `Forbidden`
        for digests and for what could be a certificate."""
        authority = await self._ca(ca_id)
        check_may_sign(authority, self._clock.now())
        signature = await self._keys.sign_for_ca(
            authority.key_id,
            algorithm=algorithm,
            message=message,
            message_type=message_type,
            caller=caller,
        )
        async with self._store.unit() as transaction:
            record(
                transaction,
                "ca.sign.signature",
                f"ca/{ca_id}",
                version=authority.version,
                data=base64.b64encode(signature).decode("ascii"),
                caller=caller,
                detail={"algorithm": algorithm, "octets": len(message)},
            )
        return signature

    async def verify(
        self,
        ca_id: str,
        *,
        algorithm: str,
        message: bytes,
        message_type: MessageType,
        signature: bytes,
    ) -> bool:
        """Whether the signature is this CA's. Raises `NotFound`, `RuleViolation`."""
        authority = await self._ca(ca_id)
        return await self._keys.verify(
            authority.key_id,
            algorithm=algorithm,
            message=message,
            message_type=message_type,
            signature=signature,
        )

    async def _ca(self, ca_id: str) -> CertificationAuthority:
        authority = await self._store.find_ca(ca_id)
        if authority is None:
            raise ca_not_found()
        if not authority.key_id:
            raise key_is_offline(authority)
        return authority
