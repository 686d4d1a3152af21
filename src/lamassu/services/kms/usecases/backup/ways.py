"""How each kind of engine is backed up: those that this program cannot wrap have a way, too."""

from __future__ import annotations

from collections.abc import Mapping

from lamassu.kernel.errors import RuleViolation
from lamassu.services.kms.usecases.guard import GuardedEngine

WRAPPED = "lamassu key backup create"
PAGE = "docs/how-to/key-backup.md"
_WAYS: Mapping[str, str] = {
    "PKCS11": (
        "the vendor's own cloning or backup of the token; or, for keys that are made from then"
        " on, backup: wrapped in its configuration"
    ),
    "GOLANG": (
        "a copy of its directory, whose keys are encrypted, and of its passphrase in another"
        " place; lamassu key backup rehearse takes such a copy"
    ),
    "HASHICORP_VAULT_KV_V2": (
        "Vault's own snapshots (vault operator raft snapshot save), with the unseal keys kept apart"
    ),
    "HASHICORP_VAULT_TRANSIT": (
        "Vault's own snapshots (vault operator raft snapshot save), with the unseal keys kept"
        " apart; its keys are not exportable, and stay so"
    ),
    "AWS_KMS": (
        "none: AWS keeps the keys, gives none out, and destroys one 7 days after it is asked to"
        " at the earliest"
    ),
    "AWS_SECRETS_MANAGER": (
        "AWS's own replication of secrets to another region, and the recovery window of deleted"
        " ones"
    ),
}


def way_of(engine: GuardedEngine) -> str:
    """How the keys of an engine are backed up, for people."""
    return WRAPPED if engine.wraps_keys else _WAYS.get(engine.facts().type, "its vendor's own")


def check_wraps(engine: GuardedEngine) -> None:
    """Raises `RuleViolation` (`key_backup_unsupported`) with the way that there is instead."""
    if not engine.wraps_keys:
        raise RuleViolation(
            f"engine {engine.id} wraps no keys; its backup is: {way_of(engine)} ({PAGE})",
            code="key_backup_unsupported",
            field="engine_id",
        )
