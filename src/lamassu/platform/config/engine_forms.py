"""Other ways of writing `crypto_engines`, made into the one that the settings know.

The original lists engines with their types (`engines: [{id, type, ...}]`) and calls keys in a
directory `filesystem`. Both become lists by kind before anything is judged; faults are told
where the operator wrote them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from lamassu.platform.config.faults import Fault
from lamassu.platform.config.yaml_input import Document

SECTION = "crypto_engines"
TYPES: Mapping[str, str] = {
    "filesystem": "software",
    "software": "software",
    "pkcs11": "pkcs11",
    "hashicorp_vault": "hashicorp_vault",
    "aws_kms": "aws_kms",
    "aws_secrets_manager": "aws_secrets_manager",
}
OTHER_FORMS = ("engines", "filesystem")


@dataclass(frozen=True, slots=True)
class Places:
    """Where entries stand now, and where they stood in the file."""

    by_new: Mapping[str, str]

    def as_written(self, fault: Fault) -> Fault:
        """The fault at the path that the operator knows."""
        return replace(fault, path=self.path(fault.path))

    def path(self, now: str) -> str:
        """A path as the operator knows it."""
        return _moved(now, self.by_new)


def by_kind(document: Document) -> tuple[Document, Places]:
    """The same document with every engine under its kind."""
    engines = document.values.get(SECTION)
    if not isinstance(engines, dict) or not any(form in engines for form in OTHER_FORMS):
        return document, Places({})
    sorting = _Sorting(engines)
    sorting.take("filesystem", lambda entry, path: "software")
    sorting.take("engines", sorting.kind_of)
    values = {**document.values, SECTION: sorting.engines}
    by_old = {old: new for new, old in sorting.by_new.items()}
    known = [replace(fault, path=_moved(fault.path, by_old)) for fault in document.faults]
    referred = {_moved(path, by_old) for path in document.referred}
    return Document(values, referred, [*known, *sorting.faults]), Places(sorting.by_new)


class _Sorting:
    def __init__(self, engines: Mapping[str, object]) -> None:
        self.engines: dict[str, object] = dict(engines)
        self.by_new: dict[str, str] = {}
        self.faults: list[Fault] = []

    def take(self, form: str, kind_of: Callable[[dict[str, object], str], str | None]) -> None:
        """Put the entries of one form under their kinds."""
        entries = self.engines.pop(form, None)
        if entries is None:
            return
        if not isinstance(entries, list):
            self.faults.append(Fault(f"{SECTION}.{form}", "no list", "a list of engines"))
            return
        for index, entry in enumerate(entries):
            path = f"{SECTION}.{form}[{index}]"
            if not isinstance(entry, dict):
                self.faults.append(Fault(path, "no mapping", "an engine with its id"))
                continue
            kind = kind_of(entry, path)
            if kind is not None:
                self._put(kind, entry, path)

    def kind_of(self, entry: dict[str, object], path: str) -> str | None:
        """The kind that an entry's `type` means."""
        given = entry.get("type")
        kind = TYPES.get(given) if isinstance(given, str) else None
        if kind is None:
            found = "nothing" if given is None else repr(given)[:80]
            self.faults.append(Fault(f"{path}.type", found, f"one of {', '.join(TYPES)}"))
        return kind

    def _put(self, kind: str, entry: dict[str, object], path: str) -> None:
        there = self.engines.get(kind, [])
        if not isinstance(there, list):
            return  # a fault of its own
        if kind == "software":
            # these have defaults where init writes the configuration, and none here
            self.faults += [
                Fault(f"{path}.{name}", "nothing", "a value, which is required")
                for name in ("id", "storage_directory")
                if entry.get(name) is None
            ]
        self.by_new[f"{SECTION}.{kind}[{len(there)}]"] = path
        self.engines[kind] = [*there, {n: v for n, v in entry.items() if n != "type"}]


def _moved(path: str, places: Mapping[str, str]) -> str:
    for before, after in places.items():
        rest = path.removeprefix(before)
        if rest != path and (not rest or rest[0] in ".["):
            return after + rest
    return path
