"""Sign the heads of other logs (C2SP tlog-witness): each only if it continues the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import (
    Conflict,
    Forbidden,
    LamassuError,
    Malformed,
    NotFound,
    RuleViolation,
    WrongState,
)
from lamassu.kernel.identity import Caller
from lamassu.kernel.merkle import EMPTY_ROOT, LONGEST_PROOF, Head, verify_consistency
from lamassu.kernel.records import AuditRecord
from lamassu.kernel.signed_note import (
    Checkpoint,
    Signature,
    VerifierKey,
    check_name,
    cosigned,
    parse_checkpoint,
    parse_proof_lines,
    verifier_key,
    verify_note,
)
from lamassu.services.ca.ports import IssuanceLogStore
from lamassu.services.ca.usecases.issuance_log.log_keys import make_witness_key
from lamassu.services.kms.contract import KeyPurpose, Keys


@dataclass(frozen=True, slots=True)
class Submission:
    """What a log asks a witness: the size that it believes the witness saw last, a proof from
    there, and its new checkpoint."""

    old: int
    proof: list[bytes]
    checkpoint: Checkpoint


class Stale(Conflict):
    """The witness saw another size last."""

    default_code = "witness_saw_another"

    def __init__(self, size: int) -> None:
        super().__init__(f"the last head seen here has size {size}; prove from there")
        self.size = size


def parse_submission(body: bytes) -> Submission:
    """Read a request of C2SP tlog-witness. Raises `Malformed`."""
    try:
        head, gap, note = body.decode().partition("\n\n")
    except UnicodeDecodeError:
        raise _malformed() from None
    first, *lines = head.split("\n")
    word, _, size = first.partition(" ")
    plain = size.isascii() and size.isdecimal() and len(size) < 20 and str(int(size)) == size
    if word != "old" or not gap or not plain or len(lines) > LONGEST_PROOF:
        raise _malformed()
    return Submission(int(size), parse_proof_lines(lines), parse_checkpoint(note))


def _malformed() -> Malformed:
    return Malformed(
        "send `old SIZE`, at most 63 lines of proof, an empty line and a checkpoint"
        " (C2SP tlog-witness)",
        code="submission_malformed",
    )


class Witnessing:
    """This installation as a witness of others."""

    def __init__(
        self,
        *,
        store: IssuanceLogStore,
        keys: Keys,
        clock: Clock,
        name: Callable[[str], str],
        logs: Mapping[str, VerifierKey],
    ) -> None:
        """`name` makes the witness's name of its key's id; `logs` are those it signs for, by
        origin."""
        self._store = store
        self._keys = keys
        self._clock = clock
        self._name = name
        self._logs = logs

    async def key(self) -> VerifierKey:
        """By which others know this witness; made when first asked for."""
        head = await self._store.head()
        if not head.witness_key_id:
            made = await make_witness_key(self._keys)
            name = self._name(made.key_id)
            check_name(name)
            async with self._store.unit() as unit:
                head = await unit.lock_head()
                if not head.witness_key_id:
                    head = replace(head, witness_key_id=made.key_id, witness_name=name)
                    await unit.save_head(head)
        found = await self._keys.get(head.witness_key_id, purpose=KeyPurpose.PLATFORM)
        return verifier_key(head.witness_name, found.public_key, witness=True)

    async def last_seen(self, origin: str) -> int:
        """The size of the head that was signed last; 0 for none."""
        async with self._store.unit() as unit:
            seen = await unit.lock_witnessed(origin)
        return seen.size if seen else 0

    async def add(self, submission: Submission, *, caller: Caller) -> Signature:
        """Sign a checkpoint that continues the last one, which is remembered first.

        Raises `NotFound` (`log_unknown`), `Forbidden` (`checkpoint_forged`), `Malformed`,
        `Stale`, `Conflict` (`log_forked`) and `WrongState` (`not_consistent`).
        """
        checkpoint = submission.checkpoint
        log_key = self._logs.get(checkpoint.origin)
        if log_key is None:
            raise NotFound(
                "no log of this origin is witnessed here; its key belongs under log.witnessed",
                code="log_unknown",
            )
        try:
            verify_note(checkpoint, log_key)
        except RuleViolation as error:
            raise Forbidden(error.text, code=error.code) from None
        if submission.old > checkpoint.head.size:
            raise Malformed("old is larger than the checkpoint's size", field="old")
        key = await self.key()
        try:
            await self._remember(submission)
        except (Conflict, WrongState) as error:
            if not isinstance(error, Stale):  # signed by the log, and it contradicts itself
                await self._record(checkpoint, caller, error)
            raise
        head = await self._store.head()
        now = self._clock.now()
        value = await self._keys.use(
            head.witness_key_id,
            lambda private: cosigned(checkpoint.text, now, private),
            purpose=KeyPurpose.PLATFORM,
        )
        return Signature(key.name, key.key_id, value)

    async def _remember(self, submission: Submission) -> None:
        new = submission.checkpoint.head
        origin = submission.checkpoint.origin
        async with self._store.unit() as unit:
            await unit.lock_head()  # there may be no row of this origin to lock yet
            seen = await unit.lock_witnessed(origin) or Head(0, EMPTY_ROOT)
            if submission.old != seen.size:
                raise Stale(seen.size)
            if seen.size == new.size and seen.root != new.root:
                raise Conflict(
                    f"another head of size {new.size} was signed here: the log was forked",
                    code="log_forked",
                )
            try:
                verify_consistency(seen.size, seen.root, new.size, new.root, submission.proof)
            except RuleViolation as error:
                raise WrongState(error.text, code=error.code) from None
            await unit.save_witnessed(origin, new, seen_at=self._clock.now())

    async def _record(self, checkpoint: Checkpoint, caller: Caller, error: LamassuError) -> None:
        async with self._store.unit() as unit:
            unit.audit(
                AuditRecord(
                    "ca.log.witness",
                    f"log/{checkpoint.origin}",
                    caller,
                    outcome=error.code,
                    detail={"checkpoint": str(checkpoint)},
                )
            )
