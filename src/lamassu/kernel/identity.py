"""Who is at the other end, and on whose behalf something is done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a TLS connection, as the handshake left it: not yet judged by anyone.

    `chain` holds the certificates that it presented (DER, its own first; empty when it
    presented none; it proved possession of the first one's key). `address` is for logs.
    """

    chain: tuple[bytes, ...] = ()
    address: str = ""

    @property
    def certificate(self) -> bytes | None:
        """Its own certificate as DER, or `None`."""
        return self.chain[0] if self.chain else None


class PrincipalKind(StrEnum):
    """What sort of caller was authenticated."""

    ADMIN = "admin"
    SERVICE = "service"
    DEVICE = "device"  # an EST client that a DMS let in
    SYSTEM = "system"  # the platform itself: jobs, handlers, init
    ANONYMOUS = "anonymous"  # on public routes only


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller."""

    kind: PrincipalKind
    name: str

    @property
    def id(self) -> str:
        """`admin/alice`, `service/est`: as it stands in audit records."""
        return f"{self.kind.value}/{self.name}"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and within which request: goes through to events and audit records."""

    principal: Principal
    request_id: str = ""
    address: str = ""


ANONYMOUS = Principal(PrincipalKind.ANONYMOUS, "-")


def system_caller(part: str, request_id: str = "") -> Caller:
    """The platform acting by itself; `part` names the job, handler or command."""
    return Caller(Principal(PrincipalKind.SYSTEM, part), request_id)
