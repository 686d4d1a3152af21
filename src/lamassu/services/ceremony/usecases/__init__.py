"""A ceremony: agree on everything first, then do it step by step, and resume after any crash."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from uuid import uuid4

from lamassu import __version__
from lamassu.kernel.clock import Clock
from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.records import Json
from lamassu.services.ceremony import rules
from lamassu.services.ceremony.contract import Answers, Deed, Person, Transcript
from lamassu.services.ceremony.model import Plan
from lamassu.services.ceremony.ports import Ledger, RootKeys, Tell
from lamassu.services.ceremony.usecases.describe_plan import described
from lamassu.services.ceremony.usecases.journal import Journal, Session
from lamassu.services.ceremony.usecases.plan_text import plan_document
from lamassu.services.ceremony.usecases.steps import Steps


class Ceremony:
    """One root's ceremony, over all its sessions."""

    def __init__(
        self, *, ledger: Ledger, keys: RootKeys, clock: Clock, rehearsal: bool = False
    ) -> None:
        """A `rehearsal` says so in its transcript. Raises `RuleViolation` (`transcript_broken`)
        when the transcript was tampered with."""
        self.rehearsal = rehearsal
        self._journal = Journal(ledger=ledger, clock=clock)
        self._keys = keys
        self._clock = clock
        self._steps = Steps(journal=self._journal, ledger=ledger, keys=keys, clock=clock)

    @property
    def transcript(self) -> Transcript:
        """What was done so far."""
        return self._journal.transcript

    @property
    def session(self) -> Session | None:
        """The session that is open: it was cut off, and goes on where it stopped."""
        return self._journal.session

    async def propose(self, answers: Answers) -> Plan:
        """What a session with these answers would do; nothing is done or written.

        Raises `RuleViolation` and `Malformed` for what breaks a rule, `Unavailable` when the
        token does not answer.
        """
        self._check_room(answers.people)
        plan = rules.plan_of(answers, self.transcript, self._clock.now())
        if plan.root is not None:
            await self._keys.check_can_make(plan.root.key)
        else:
            await self._steps.check_token()
        return plan

    async def agree(self, answers: Answers, plan: Plan) -> None:
        """Open a session on this plan, which the people present have confirmed."""
        self._check_room(answers.people)
        session = self.session
        if session is not None and session.plan is not None:
            raise RuleViolation("a session is open; finish it first", code="session_open")
        number = self._open(answers.people)
        self._journal.write(
            Deed.PLAN_AGREED, plan_document(plan, order=answers.revocations), session=number
        )

    def described(self, plan: Plan) -> Sequence[str]:
        """What a session would do, line by line: what the people present compare."""
        return described(plan)

    def resume(self, people: Sequence[Person], today: date) -> None:
        """Write down who is there when a session that was cut off goes on.

        Raises `RuleViolation` (`date_differs`, `clock_wrong`, `custodian_missing`).
        """
        self._check_room(people)
        rules.check_date(today, self._clock.now())
        self._note_resumed(people)

    def _note_resumed(self, people: Sequence[Person]) -> None:
        session = self.session
        assert session is not None
        self._journal.write(
            Deed.SESSION_RESUMED, {"people": _people(people)}, session=session.number
        )

    async def perform(self, tell: Tell) -> None:
        """Do what of the plan is not done yet, up to the seal.

        Raises `Unavailable` when the token fails: the next run goes on from there.
        """
        await self._steps.perform(tell)

    def _check_room(self, people: Sequence[Person]) -> None:
        rules.check_people(people)
        rules.check_clock(self._clock.now(), self.transcript)

    def _open(self, people: Sequence[Person]) -> int:
        """The number of the session, opened here unless a crash came after that."""
        if not self.transcript.lines:
            begun: dict[str, Json] = {
                "ceremony": str(uuid4()),
                "program": f"lamassu {__version__}",
                "rehearsal": self.rehearsal,
            }
            self._journal.write(Deed.CEREMONY_BEGUN, begun, session=1)
        session = self.session
        number = session.number if session else self.transcript.lines[-1].session + 1
        if session is not None and session.first(Deed.SESSION_OPENED) is not None:
            self._note_resumed(people)
            return number
        engine = self._keys.facts()
        opened: dict[str, Json] = {
            "date_confirmed": f"{self._clock.now():%Y-%m-%d}",
            "people": _people(people),
            "engine": {
                "id": engine.id,
                "type": engine.type,
                "provider": engine.provider,
                "name": engine.name,
            },
        }
        self._journal.write(Deed.SESSION_OPENED, opened, session=number)
        return number


def _people(people: Sequence[Person]) -> list[Json]:
    return [{"role": person.role.strip(), "name": person.name.strip()} for person in people]
