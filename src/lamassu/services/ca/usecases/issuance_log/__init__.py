"""The issuance log: an append-only Merkle tree over all that the CA issues and revokes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from lamassu.kernel.clock import Clock
from lamassu.kernel.identity import Caller
from lamassu.kernel.signed_note import Signature, VerifierKey, verifier_key
from lamassu.services.ca.ports import IssuanceLogStore, Witness
from lamassu.services.ca.usecases.issuance_log.gather import Gathering
from lamassu.services.ca.usecases.issuance_log.grow import Growing
from lamassu.services.ca.usecases.issuance_log.prove import Inclusion, Proofs, ProvedEntry
from lamassu.services.ca.usecases.issuance_log.witnessing import (
    Stale,
    Submission,
    Witnessing,
    parse_submission,
)
from lamassu.services.kms.contract import KeyPurpose, Keys

__all__ = [
    "Inclusion",
    "IssuanceLog",
    "LogStatus",
    "ProvedEntry",
    "Stale",
    "Submission",
    "WitnessStatus",
    "parse_submission",
]


@dataclass(frozen=True, slots=True)
class WitnessStatus:
    """How far a witness has signed; no time for one that never did."""

    name: str
    size: int
    signed_at: datetime | None


@dataclass(frozen=True, slots=True)
class LogStatus:
    """How the log is. `adopting`: rows from before it are still being taken in."""

    key: VerifierKey
    size: int
    signed_size: int
    adopting: bool
    adopted: int
    witnesses: Sequence[WitnessStatus]
    witness_key: VerifierKey | None


class IssuanceLog:
    """Grows by `advance`, which the relay calls; all else reads, but for witnessing."""

    def __init__(
        self,
        *,
        store: IssuanceLogStore,
        keys: Keys,
        clock: Clock,
        host: str,
        origin: str = "",
        witnesses: Sequence[Witness] = (),
        witnessed: Mapping[str, VerifierKey] | None = None,
    ) -> None:
        """`host` begins the log's name, unless `origin` is that name (it counts only until the
        log is opened), and the witness's. `witnesses` sign this log's heads; `witnessed` are the
        logs whose heads are signed here."""
        self._store = store
        self._keys = keys
        self._witnesses = tuple(witnesses)
        self._witnessed = dict(witnessed or {})
        self.proofs = Proofs(store)
        self._growing = Growing(
            store=store,
            keys=keys,
            origin=lambda key_id: origin or f"{host}/log/{key_id[:8]}",
        )
        self._gathering = Gathering(store=store, proofs=self.proofs, witnesses=witnesses)
        self.witnessing = Witnessing(
            store=store,
            keys=keys,
            clock=clock,
            name=lambda key_id: f"{host}/witness/{key_id[:8]}",
            logs=self._witnessed,
        )

    async def advance(self) -> int:
        """See `Growing.advance`."""
        return await self._growing.advance()

    async def gather(self) -> int:
        """See `Gathering.gather`."""
        return await self._gathering.gather()

    async def key(self) -> VerifierKey:
        """The log's. Raises `NotFound` (`log_not_signed`)."""
        head = await self.proofs.signed_head()
        key = await self._keys.get(head.key_id, purpose=KeyPurpose.PLATFORM)
        return verifier_key(head.origin, key.public_key)

    async def checkpoint(self, *, witnessed: bool = False) -> str:
        """The newest signed head with the signatures that it has, or the newest that every
        witness signed. Raises `NotFound`."""
        head = await self.proofs.signed_head()
        if witnessed:
            return head.witnessed or head.note
        lines = [
            one.line for one in await self._store.cosignatures() if one.size == head.signed_size
        ]
        return head.note + "".join(lines)

    async def status(self) -> LogStatus:
        """Raises `NotFound` (`log_not_signed`)."""
        head = await self.proofs.signed_head()
        have = {one.witness: one for one in await self._store.cosignatures()}
        names = [each.key.name for each in self._witnesses]
        return LogStatus(
            key=await self.key(),
            size=head.size,
            signed_size=head.signed_size,
            adopting=head.adopt_after is not None,
            adopted=head.adopted,
            witnesses=[
                WitnessStatus(name, have[name].size, have[name].signed_at)
                if name in have
                else WitnessStatus(name, 0, None)
                for name in names
            ],
            witness_key=await self.witnessing.key() if self._witnessed else None,
        )

    async def cosign(self, submission: Submission, *, caller: Caller) -> Signature:
        """See `Witnessing.add`."""
        return await self.witnessing.add(submission, caller=caller)
