"""Ask the engines for keys that must be there, before anybody counts on them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lamassu.kernel.errors import Unavailable
from lamassu.services.kms.contract import Key
from lamassu.services.kms.ports import EngineDown
from lamassu.services.kms.usecases.engines import EngineDirectory

AT_ONCE = 16
EVER = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class KeySearch:
    """What was found missing, and of what nothing is known."""

    lost: list[Key] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)
    """By engine or key: why it was not asked, or cannot be used."""


async def find_lost_keys(
    keys: Iterable[Key], *, engines: EngineDirectory, problems: Mapping[str, str] | None = None
) -> KeySearch:
    """Those of the keys that their engine answers it does not have.

    An engine that does not answer is asked no more: that it is away says nothing of its keys.
    Keys of an engine that is not configured are lost: renamed or left out, it cannot be asked.
    Where it can list them no key is opened, which would stay in memory and may never be used.
    `problems` spares engines the first question: what each was just found to have, or nothing.
    """
    by_engine: dict[str, list[Key]] = {}
    for key in keys:
        by_engine.setdefault(key.engine_id, []).append(key)
    search = KeySearch()
    await asyncio.gather(
        *(
            _search_engine(
                engine_id,
                held,
                search,
                engines,
                problem=None if problems is None else problems.get(engine_id),
            )
            for engine_id, held in by_engine.items()
        )
    )
    search.lost.sort(key=lambda key: (key.engine_id, key.name))
    return search


async def _search_engine(
    engine_id: str,
    held: Sequence[Key],
    search: KeySearch,
    engines: EngineDirectory,
    *,
    problem: str | None,
) -> None:
    try:
        engine = engines.holding(engine_id)
    except Unavailable:  # it is in no configuration: waiting brings none of its keys
        search.lost.extend(held)
        return
    if problem:
        search.doubts[engine_id] = problem
        return
    try:
        if problem is None:
            await engine.check()
        listed = frozenset(await engine.key_ids(made_before=EVER))
    except Unavailable as away:
        search.doubts[engine_id] = away.text
        return
    turn = asyncio.Semaphore(AT_ONCE)

    async def ask(key: Key) -> None:
        async with turn:
            if engine_id in search.doubts:
                return
            try:
                await engine.public_key(key.key_id, purpose=key.purpose)
            except EngineDown as away:
                search.doubts[engine_id] = away.text
            except Unavailable as fault:
                if fault.code == "key_lost":
                    search.lost.append(key)
                else:
                    search.doubts[key.key_id] = fault.text

    # What is listed is there. The others are looked for one by one: a list may be of a part.
    await asyncio.gather(*(ask(key) for key in held if key.key_id not in listed))
