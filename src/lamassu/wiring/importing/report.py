"""What an import did, counted; what it did not, one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lamassu.kernel.adoption import Outcome, Verdict
from lamassu.kernel.records import Json

Sink = Callable[[Mapping[str, Json]], None]
UNDONE = "ca_revoked_at_source"  # of a CA that is here: a person has to revoke it
_SHOWN = 100


@dataclass
class Report:
    """Counts by kind and outcome. Each thing that was skipped, or not wholly taken, goes to
    `sink` as it is met, so that a million of them fill no memory; the first are kept to show.
    """

    source: str
    dry_run: bool
    sink: Sink | None = None
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    shown: list[Mapping[str, Json]] = field(default_factory=list)
    lost_revocations: int = 0

    def note(self, kind: str, verdict: Verdict, *, revoked: bool = False) -> None:
        """Count a verdict on something of this kind; `revoked` if its source says so of it."""
        self.counts.setdefault(kind, Counter())[verdict.outcome.value] += 1
        if revoked and (verdict.outcome is Outcome.SKIPPED or verdict.code == UNDONE):
            self.lost_revocations += 1
        if not verdict.code:
            return
        self.reasons[kind, verdict.outcome.value, verdict.code] += 1
        entry: Mapping[str, Json] = {
            "kind": kind,
            "what": verdict.label,
            "outcome": verdict.outcome.value,
            "code": verdict.code,
            "text": verdict.text,
            "revoked": revoked,
        }
        if len(self.shown) < _SHOWN:
            self.shown.append(entry)
        if self.sink is not None:
            self.sink(entry)

    def count_of(self, kind: str, outcome: Outcome) -> int:
        """How many of this kind ended so."""
        return self.counts.get(kind, Counter())[outcome.value]

    @property
    def skipped(self) -> int:
        """How many things were not taken."""
        return sum(counter[Outcome.SKIPPED.value] for counter in self.counts.values())

    def document(self) -> dict[str, Json]:
        """For programs."""
        return {
            "source": self.source,
            "dry_run": self.dry_run,
            "counts": {
                kind: {outcome.value: counter[outcome.value] for outcome in Outcome}
                for kind, counter in self.counts.items()
            },
            "reasons": [
                {"kind": kind, "outcome": outcome, "code": code, "count": count}
                for (kind, outcome, code), count in self.reasons.most_common()
            ],
            "lost_revocations": self.lost_revocations,
        }
