"""Change what is said about a key: name, tags, metadata, aliases. Never the key itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from lamassu.kernel import json_patch
from lamassu.kernel.identity import Caller
from lamassu.kernel.records import AuditRecord, Event, Json
from lamassu.services.kms import rules
from lamassu.services.kms.contract import Key
from lamassu.services.kms.ports import KeyStorage
from lamassu.services.kms.usecases.key_document import key_document

Change = Callable[[Key], Key]


async def describe_key(
    key_id: str, event_type: str, change: Change, *, caller: Caller, storage: KeyStorage
) -> Key:
    """Apply a change under the row's lock. Raises `NotFound`, `Conflict` for a taken alias."""
    subject = f"kms/{key_id}"
    async with storage.unit() as unit:
        current = rules.check_visible(await unit.lock(key_id))
        changed = dataclasses.replace(change(current), version=current.version + 1)
        await unit.save(changed)
        if changed.aliases != current.aliases:
            await unit.replace_aliases(key_id, changed.aliases)
        # the wire's form of an update: before and after
        data = {"updated": key_document(changed), "previous": key_document(current)}
        unit.emit(Event(event_type, subject, changed.version, data, caller))
        unit.audit(AuditRecord(event_type, subject, caller))
    return changed


def renamed(name: str) -> Change:
    """Give the key a name."""
    rules.check_name(name)
    return lambda key: dataclasses.replace(key, name=name)


def retagged(tags: Sequence[str]) -> Change:
    """Replace all tags."""
    rules.check_tags(tags)
    return lambda key: dataclasses.replace(key, tags=tuple(tags))


def with_metadata_patched(patches: Sequence[json_patch.Patch]) -> Change:
    """Patch the metadata as it is shown; what the system alone says in it stays as it is
    (decision 11)."""

    def change(key: Key) -> Key:
        patched = json_patch.apply_to_object(rules.shown_metadata(key), patches)
        return dataclasses.replace(key, metadata=rules.without_system_keys(patched))

    return change


def with_aliases_patched(patches: Sequence[json_patch.Patch]) -> Change:
    """Patch the array of aliases."""

    def change(key: Key) -> Key:
        patched: Json = json_patch.apply(list(key.aliases), patches)
        return dataclasses.replace(key, aliases=rules.check_aliases(patched))

    return change
