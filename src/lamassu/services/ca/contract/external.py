"""CAs under a root whose key is offline: what waits for the root's signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from lamassu.kernel.records import Json
from lamassu.kernel.x509.names import Subject


@dataclass(frozen=True, slots=True)
class AwaitedCa:
    """A CA that has its key and waits for its certificate. It is no CA yet: nothing lists it
    among them, and nothing can be issued.

    `root_id` is the offline root's id, which may itself be unknown yet. `csr` is DER.
    """

    id: str
    csr: bytes
    key_id: str
    key_algorithm: str
    key_size: int
    engine_id: str
    subject: Subject
    root_id: str
    profile_id: str
    created_at: datetime
    metadata: Mapping[str, Json] = field(default_factory=dict)
