"""How many keys there are."""

from __future__ import annotations

from collections.abc import Sequence

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.listing import Filter
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Engine, KeyAlgorithm, KeyPurpose
from lamassu.services.kms.model import KeyCounts
from lamassu.services.kms.ports import KeyStorage
from lamassu.services.kms.usecases.engines import EngineDirectory

COUNTED_MAX = 100_000
# types on the wire whose keys this process reads to use them
HANDING_OUT = frozenset({"GOLANG", "HASHICORP_VAULT_KV_V2", "AWS_SECRETS_MANAGER"})


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


async def misplaced_ca_keys(*, engines: EngineDirectory, storage: KeyStorage) -> list[str]:
    """What an auditor of production would say of where CAs' keys are (security rule 11), a line
    for each engine that has some and should have none."""
    counted = await storage.count(purposes=[KeyPurpose.CA], filters=(), limit=COUNTED_MAX)
    by_engine = counted.by_engine if counted is not None else {}
    return [
        f"high: {number} keys of CAs are in engine {engine.id} ({engine.name}), which gives their"
        " bytes to this process; move them, or give the CAs new ones, where keys do not come out"
        for engine in engines.facts()
        if (number := by_engine.get(engine.id, 0)) and not _keeps_keys_in(engine)
    ]


def _keeps_keys_in(engine: Engine) -> bool:
    return engine.for_ca_keys and engine.type not in HANDING_OUT
