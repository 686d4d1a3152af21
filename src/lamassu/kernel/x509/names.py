"""Distinguished names: the six attributes of the wire, and comparison by RFC 5280 §7.1."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """The six attributes of a name that the wire knows; an empty string means absent."""

    common_name: str = ""
    organization: str = ""
    organization_unit: str = ""
    country: str = ""
    state: str = ""
    locality: str = ""
