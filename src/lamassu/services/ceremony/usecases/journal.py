"""The transcript as a journal: a deed is written down, durably, before it is announced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lamassu.kernel.clock import Clock
from lamassu.kernel.records import Json
from lamassu.services.ceremony.contract.transcript import (
    Deed,
    Line,
    Transcript,
    extended,
    next_line,
    parse_transcript,
)
from lamassu.services.ceremony.model import Plan
from lamassu.services.ceremony.ports import Ledger
from lamassu.services.ceremony.usecases.plan_text import plan_from


@dataclass(frozen=True, slots=True)
class Session:
    """What the present session has done: the lines since it was opened."""

    number: int
    lines: Sequence[Line]

    def first(self, deed: Deed) -> Line | None:
        """The line of a deed that is done once in a session."""
        return next((line for line in self.lines if line.deed is deed), None)

    def all(self, deed: Deed) -> Sequence[Line]:
        """Every line of a deed."""
        return [line for line in self.lines if line.deed is deed]

    @property
    def plan(self) -> Plan | None:
        """What was agreed on, if it was."""
        line = self.first(Deed.PLAN_AGREED)
        return None if line is None else plan_from(line.facts)


class Journal:
    """Reads what was done from the ledger, and adds to it."""

    def __init__(self, *, ledger: Ledger, clock: Clock) -> None:
        """Raises `RuleViolation` (`transcript_broken`) for a ledger that was tampered with."""
        self._ledger = ledger
        self._clock = clock
        self.text = ledger.read()
        self.transcript: Transcript = parse_transcript(self.text)

    @property
    def session(self) -> Session | None:
        """The session that is open, `None` between sessions."""
        lines = self.transcript.lines
        if not lines or self.transcript.is_closed:
            return None
        number = lines[-1].session
        return Session(number, [line for line in lines if line.session == number])

    def write(self, deed: Deed, facts: Mapping[str, Json], *, session: int) -> Line:
        """Write a deed down. When this returns it is durable."""
        at = self._clock.now()
        if self.transcript.lines:
            # a session began with a clock that was right; one that steps back a little since
            # must not stop it half done
            at = max(at, self.transcript.lines[-1].at)
        line = next_line(self.transcript, deed, facts, session=session, at=at)
        after = extended(self.transcript, line)  # judged before it is written
        self._ledger.append(line)
        self.transcript, self.text = after, f"{self.text}{line}\n"
        return after.lines[-1]

    def root_key(self) -> str | None:
        """The token's id of the root's key, once it was made."""
        for line in self.transcript.lines:
            if line.deed is Deed.KEY_MADE:
                return str(line.facts["key_id"])
        return None
