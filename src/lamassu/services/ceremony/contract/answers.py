"""What people bring to a session."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from lamassu.kernel.x509.names import Subject
from lamassu.services.ceremony.contract.transcript import Signed
from lamassu.services.kms.contract import KeySpec

ROOT_VALIDITY = timedelta(hours=87600)
CA_VALIDITY = timedelta(hours=43800)
CRL_VALIDITY = timedelta(hours=8760)
RESPONDER_VALIDITY = timedelta(hours=8760)
KEY_CUSTODIAN = "key custodian"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody in the room."""

    role: str
    name: str


@dataclass(frozen=True, slots=True)
class RootWish:
    """The root to be made; `path_length` bounds the CAs below it, `None` does not."""

    subject: Subject
    key: KeySpec
    validity: timedelta = ROOT_VALIDITY
    path_length: int | None = None


@dataclass(frozen=True, slots=True)
class RequestWish:
    """A request (DER) that the root is to sign, and how.

    `path_length` counts for a CA only; `None` takes what the request asks for. A `fingerprint`
    is that of the key, read out by those who made the request: another key is refused.
    """

    kind: Signed
    csr: bytes
    validity: timedelta
    path_length: int | None = None
    fingerprint: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """All that a session is asked for. `root` is for a ceremony that has none yet."""

    date: date
    people: Sequence[Person]
    root: RootWish | None = None
    requests: Sequence[RequestWish] = ()
    revocations: bytes | None = None
    crl_validity: timedelta = CRL_VALIDITY
