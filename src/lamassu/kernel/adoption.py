"""What becomes of a thing that another system had and that is to be ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    """`PRESENT` was here already, `UPDATED` learnt something (a revocation) from its source."""

    ADOPTED = "adopted"
    PRESENT = "present"
    UPDATED = "updated"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Verdict:
    """On one thing; `label` says where it stands in its source.

    `code` and `text` say why it was skipped, or, of what was taken, what of it was not.
    """

    label: str
    outcome: Outcome
    code: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Things that are judged and stored together: one event and one audit record tell of all.

    With `dry_run` they are judged and nothing is written.
    """

    source: str
    number: int
    dry_run: bool = False


def count_outcomes(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """How many there are of each outcome; every outcome is named."""
    counts = {outcome.value: 0 for outcome in Outcome}
    for verdict in verdicts:
        counts[verdict.outcome.value] += 1
    return counts
