"""Names with `{placeholders}`: what a profile makes of a request.

`{csr.cn}` stands for what the request says and refuses a request that does not say it;
`{csr.ou?}` stands for nothing then. `{{` and `}}` are braces. What is filled in is text and
never read as a template again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from lamassu.kernel.errors import RuleViolation
from lamassu.kernel.x509.names import Subject

LONGEST_TEMPLATE = 512

_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


@dataclass(frozen=True, slots=True)
class Variables:
    """What is known of a request; an empty text means that it is not."""

    csr: Subject
    key_id: str  # SHA-256 of the SubjectPublicKeyInfo, hex
    ca_id: str
    device_id: str = ""
    dms_id: str = ""


_VALUES: dict[str, Callable[[Variables], str]] = {
    "csr.cn": lambda known: known.csr.common_name,
    "csr.o": lambda known: known.csr.organization,
    "csr.ou": lambda known: known.csr.organization_unit,
    "csr.c": lambda known: known.csr.country,
    "csr.st": lambda known: known.csr.state,
    "csr.l": lambda known: known.csr.locality,
    "device_id": lambda known: known.device_id,
    "dms_id": lambda known: known.dms_id,
    "key_id": lambda known: known.key_id,
    "ca_id": lambda known: known.ca_id,
}
PLACEHOLDERS = tuple(_VALUES)


@dataclass(frozen=True, slots=True)
class Placeholder:
    """Stands for a value; an `optional` one for nothing, if there is none."""

    name: str
    optional: bool


@dataclass(frozen=True, slots=True)
class Template:
    """Texts and placeholders in turn."""

    parts: tuple[str | Placeholder, ...]

    @property
    def fixed(self) -> str | None:
        """The text, if there is no placeholder in it."""
        texts = [part for part in self.parts if isinstance(part, str)]
        return "".join(texts) if len(texts) == len(self.parts) else None

    def filled(self, known: Variables, *, quote: Callable[[str], str] = str) -> str:
        """The text for one request; `quote` is for what is filled in.

        Raises `RuleViolation` (`template_value_missing`).
        """
        texts: list[str] = []
        for part in self.parts:
            if isinstance(part, str):
                texts.append(part)
                continue
            value = _VALUES[part.name](known)
            if not value and not part.optional:
                raise RuleViolation(
                    f"the profile makes a name of {{{part.name}}}, which this request does not say",
                    code="template_value_missing",
                    field="csr",
                )
            texts.append(quote(value))
        return "".join(texts)


@lru_cache(maxsize=1024)
def parse_template(text: str) -> Template:
    """Raises `ValueError`, its text for people."""
    if len(text) > LONGEST_TEMPLATE:
        raise ValueError(f"a name has at most {LONGEST_TEMPLATE} characters")
    parts: list[str | Placeholder] = []
    for found in _PARTS.finditer(text):
        piece = found[0]
        if piece in ("{", "}"):
            raise ValueError(f"{text[:60]!r} has a single brace; write {piece * 2} for one")
        if found[1] is not None:
            name = found[1].removesuffix("?")
            if name not in _VALUES:
                raise ValueError(
                    f"there is no {{{found[1][:40]}}}; known are "
                    f"{', '.join(f'{{{one}}}' for one in PLACEHOLDERS)}, each also as {{name?}}"
                )
            parts.append(Placeholder(name, found[1] != name))
        else:
            parts.append({"{{": "{", "}}": "}"}.get(piece, piece))
    return Template(tuple(parts))


def template_of(text: str, *, field: str) -> Template:
    """The same for a field of a profile. Raises `RuleViolation` (`template_malformed`)."""
    try:
        return parse_template(text)
    except ValueError as fault:
        raise RuleViolation(str(fault), code="template_malformed", field=field) from None
