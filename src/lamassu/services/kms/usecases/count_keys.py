"""How many keys there are."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.listing import Filter
from lamassu.services.kms import rules
from lamassu.services.kms.contract import KeyAlgorithm
from lamassu.services.kms.model import KeyCounts
from lamassu.services.kms.ports import KeyStorage
from lamassu.services.kms.usecases.engines import EngineDirectory

COUNTED_MAX = 100_000


async def count_keys(
    filters: Sequence[Filter], *, engines: EngineDirectory, storage: KeyStorage
) -> KeyCounts:
    """The keys that the API may know of, of each configured engine and algorithm, even if none.

    Raises `RuleViolation` (`too_many_to_count`) where filters leave too many.
    """
    found = await storage.count(purposes=rules.API_PURPOSES, filters=filters, limit=COUNTED_MAX)
    if found is None:
        raise RuleViolation(
            f"more than {COUNTED_MAX} keys match; narrow the filter, or leave it out",
            code="too_many_to_count",
            field="filter",
        )
    none = {engine.id: 0 for engine in engines.facts()}
    return KeyCounts(
        by_engine=none | dict(found.by_engine),
        by_algorithm=dict.fromkeys(KeyAlgorithm, 0) | dict(found.by_algorithm),
    )
