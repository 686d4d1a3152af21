"""What kind of mount our keys are in (decision 34): KV v2, or Transit, which is made if absent."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import structlog

from lamassu.services.kms.engines.vault.access import VaultAccess
from lamassu.services.kms.engines.vault.errors import VaultAnswer, unreadable
from lamassu.services.kms.engines.vault.session import VaultSession
from lamassu.services.kms.ports import EngineRefused

log = structlog.get_logger(__name__)


class MountKind(StrEnum):
    """What a mount can be for us."""

    KV = "kv"
    TRANSIT = "transit"


def find_mount(session: VaultSession) -> MountKind:
    """Ask for it; where there is none and we may, make one.

    Raises `EngineRefused`: `mount_missing`, `mount_unfit`, `access_denied`.
    """
    access = session.access
    found = _mount(session)
    if found is None:
        if not access.may_mount:
            raise _missing(access)
        _make(session)
        return MountKind.TRANSIT
    return _judged(access, found)


def _mount(session: VaultSession) -> dict[str, Any] | None:
    path = session.access.mount_path
    try:
        # whoever may use anything in a mount may read this, without a policy for it
        return session.fetch(f"sys/internal/ui/mounts/{path}")
    except EngineRefused as refusal:
        if refusal.code != "access_denied":
            raise
    try:
        # none there, or nothing in it allowed: the original's policy may list
        found = session.fetch("sys/mounts").get(f"{path}/")
        return found if isinstance(found, dict) else None
    except EngineRefused as refusal:
        if refusal.code != "access_denied":
            raise
    if session.access.may_mount:
        return None
    raise _missing(session.access)


def _judged(access: VaultAccess, found: dict[str, Any]) -> MountKind:
    kind = found.get("type")
    if kind == "transit":
        return MountKind.TRANSIT
    if kind in ("kv", "generic"):
        options = found.get("options")
        if isinstance(options, dict) and options.get("version") == "2":
            return MountKind.KV
        raise EngineRefused(
            f"{access.who}: the mount {access.mount_path} is KV version 1; run: vault kv"
            f" enable-versioning {access.mount_path}",
            code="mount_unfit",
        )
    if not isinstance(kind, str):
        raise unreadable(access)
    raise EngineRefused(
        f"{access.who}: the mount {access.mount_path} is of another kind ({kind}); name one of"
        " kv-v2 or transit in `mount_path`",
        code="mount_unfit",
    )


def _make(session: VaultSession) -> None:
    access = session.access
    try:
        session.ask(
            lambda client: client.sys.enable_secrets_engine(
                backend_type="transit", path=access.mount_path, description="Keys of Lamassu"
            )
        )
    except VaultAnswer as answer:
        if not answer.says("path is already in use"):
            raise _missing(access) from None
    except EngineRefused as refusal:
        if refusal.code != "access_denied":
            raise
        raise _missing(access) from None
    else:
        log.warning("vault_mount_made", engine=access.engine_id, path=access.mount_path)


def _missing(access: VaultAccess) -> EngineRefused:
    return EngineRefused(
        f"{access.who} has no mount {access.mount_path}, or the AppRole's policy allows nothing in"
        f" it; run: vault secrets enable -path={access.mount_path} transit, and write the policy as"
        " the how-to page on Vault shows",
        code="mount_missing",
    )
