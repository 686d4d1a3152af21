"""Configuration becomes objects: adapters, slices and listeners meet here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lamassu.platform.database import SERVICES, migrate
from lamassu.platform.installation import Installation
from lamassu.platform.messaging import JournalReport, verify_journal
from lamassu.wiring.asking import Asking
from lamassu.wiring.configuration import load
from lamassu.wiring.engines import engine_health
from lamassu.wiring.founding import KeyType
from lamassu.wiring.installing import Plan, install, store_credential
from lamassu.wiring.key_backups import (
    BackupPlan,
    backup_standings,
    backup_warnings,
    create_backup,
    make_component,
    put_backup_key,
    rehearse_backup,
    rehearse_copy,
    restore_backup,
    verify_backup,
)
from lamassu.wiring.listening import Listen, Running
from lamassu.wiring.platform import AUDIT_KEY, Platform, lower_mode, opened
from lamassu.wiring.root_key import RootKeyPlaces
from lamassu.wiring.serving import serving

__all__ = [
    "Asking",
    "BackupPlan",
    "KeyType",
    "Listen",
    "Plan",
    "Platform",
    "RootKeyPlaces",
    "Running",
    "backup_standings",
    "backup_warnings",
    "create_backup",
    "engine_health",
    "install",
    "lower_mode",
    "make_component",
    "migrate_database",
    "opened",
    "put_backup_key",
    "rehearse_backup",
    "rehearse_copy",
    "restore_backup",
    "serving",
    "store_credential",
    "verify_backup",
    "verify_journals",
]


async def migrate_database(directory: Path) -> Sequence[str]:
    """Bring every schema to this program's revision; a line for each."""
    installation = Installation(directory)
    settings = load(installation.config).database_settings(installation.directory)
    await migrate(settings, SERVICES)
    return [f"{service}: up to date" for service in SERVICES]


async def verify_journals(directory: Path) -> Sequence[JournalReport]:
    """The verdict on each service's journal."""
    async with opened(directory) as platform:
        key = platform.installation.secret(AUDIT_KEY)
        return [await verify_journal(platform.database, service, key) for service in SERVICES]
