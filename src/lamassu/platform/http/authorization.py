"""Who may: the rules before roles exist (decision 2, security rule 1)."""

from __future__ import annotations

from lamassu.kernel.errors import Forbidden, Unauthenticated
from lamassu.kernel.identity import Peer, Principal, PrincipalKind
from lamassu.platform.http.routing import Access, AccessKind


def check_known(principal: Principal | None, peer: Peer) -> Principal:
    """Refuse a peer that is nobody. Raises `Unauthenticated`, saying what to do."""
    if principal is not None:
        return principal
    if peer.certificate is None:
        raise no_certificate()
    raise Unauthenticated(
        "the client certificate is none of this platform's own; connect with an admin "
        "certificate (admin.crt and admin.key of the installation, or one of `lamassu admin issue`)"
    )


def no_certificate() -> Unauthenticated:
    """The refusal of a peer that shows nothing, saying what to do."""
    return Unauthenticated(
        "no client certificate was presented; connect with an admin certificate "
        "(admin.crt and admin.key of the installation, or one of `lamassu admin issue`)"
    )


def check_may(principal: Principal, access: Access) -> None:
    """Refuse a principal that has not the right. Raises `Forbidden`.

    An admin may do every action; a service has its internal routes only, and these nobody else.
    """
    if access.kind is AccessKind.INTERNAL:
        if principal.kind is PrincipalKind.SERVICE and principal.id in access.principals:
            return
        raise Forbidden(f"{principal.id} is not a principal of this internal route")
    if access.kind is AccessKind.ACTION and principal.kind is PrincipalKind.ADMIN:
        return
    raise Forbidden(f"{principal.id} has not the right {access.name}")
