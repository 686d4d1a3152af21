"""`lamassu key backup`: on the host, where the files stay; approvers of CAs are asked here.

A wrapped key that leaves its engine is an export of it (security rule 7), also when nobody on
this host could open it.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import NotFound, RuleViolation
from lamassu.kernel.identity import Caller, system_caller
from lamassu.kernel.records import Json
from lamassu.platform.config import Settings
from lamassu.platform.database import SERVICES, is_current
from lamassu.platform.installation import Installation
from lamassu.platform.security.private_files import create_private_file
from lamassu.services.access.contract import Mode
from lamassu.services.ca.contract import Operation
from lamassu.services.kms.contract import KeyPurpose
from lamassu.services.kms.engines.software import SoftwareEngine
from lamassu.services.kms.model import KeyBackup
from lamassu.services.kms.storage import KmsStorage
from lamassu.services.kms.usecases.backup import (
    EngineStanding,
    Made,
    Rehearsal,
    Restoration,
    Selection,
    read_backup,
    standings,
)
from lamassu.services.kms.usecases.engines import EngineDirectory
from lamassu.wiring.asking import NO_ASKING, Asking
from lamassu.wiring.configuration import load
from lamassu.wiring.engines import open_engines, read_passphrase
from lamassu.wiring.platform import AUDIT_KEY, Platform, open_database, opened

Tell = Callable[[str], None]
CALLER = system_caller("lamassu key backup")
COMPONENT_LENGTH = 32
KEYSTORE_FILE = "keystore.json"


@dataclass(frozen=True, slots=True)
class BackupPlan:
    """What an operator asks of `create`: keys by id or alias, all of the engine if none."""

    engine_id: str
    file: Path
    keys: Sequence[str] = ()
    partial: bool = False
    asking: Asking = NO_ASKING


def make_component(file: Path) -> None:
    """A fresh component of a backup key, for one custodian. Raises `Conflict`, `OSError`."""
    create_private_file(file, secrets.token_hex(COMPONENT_LENGTH).encode() + b"\n")


async def put_backup_key(
    directory: Path, engine_id: str, components: Sequence[Path], officers_pin: Path | None
) -> str:
    """Put the backup key together in an engine, of the custodians' files; its check value.

    With the file of the security officer's PIN the key wraps there, else it unwraps.
    """
    parts = [await asyncio.to_thread(_component, file) for file in components]
    pin = None if officers_pin is None else await asyncio.to_thread(_secret_file, officers_pin)
    async with opened(directory) as platform:
        return await platform.kms.backups.put_backup_key(
            engine_id, parts, security_officer_pin=pin, caller=CALLER
        )


async def create_backup(directory: Path, plan: BackupPlan, tell: Tell) -> Made:
    """Back up keys into a file that is not there yet. Raises `Deferred` while approvers of a CA
    whose key is among them have to agree, and as `KeyBackups.select` and `make`."""
    await asyncio.to_thread(_check_place, plan.file)
    async with opened(directory) as platform:
        backups = platform.kms.backups
        selection = await backups.select(plan.engine_id, plan.keys, partial=plan.partial)
        approval, caller = await _approved(platform, selection, plan)

        async def write(content: bytes) -> None:
            await asyncio.to_thread(create_private_file, plan.file, content)

        made = await backups.make(
            selection, secret=_secret(platform), write=write, caller=caller, tell=tell
        )
        await platform.ca.approvals.settle(approval, caller)
        return made


async def _approved(
    platform: Platform, selection: Selection, plan: BackupPlan
) -> tuple[str | None, Caller]:
    """The approval that the export has, and on whose behalf it is."""
    holders: dict[str, set[str]] = {}
    for authority in await platform.ca.list_cas():
        holders.setdefault(authority.key_id, set()).add(authority.id)
    cas = sorted({ca for key in selection.keys for ca in holders.get(key.key_id, ())})
    command: dict[str, Json] = {
        "command": "key backup create",
        "engine": selection.engine_id,
        "partial": selection.partial,
        "keys": sorted(key.key_id for key in selection.keys),
    }
    grounds = await plan.asking.grounds(platform.access, platform.installation, command)
    demand = grounds.demand
    approval = await platform.ca.approvals.require(Operation.EXPORT_KEY, cas, demand)
    return approval, CALLER if demand is None or approval is None else demand.caller


async def verify_backup(directory: Path, file: Path) -> tuple[KeyBackup, str]:
    """The backup in a file, if it is whole and this installation's; the file's SHA-256. Neither
    the database nor an engine is asked. Raises `RuleViolation` as `read_backup`."""
    content = await asyncio.to_thread(file.read_bytes)
    secret = Installation(directory).secret(AUDIT_KEY)
    return read_backup(content, secret), hashlib.sha256(content).hexdigest()


async def restore_backup(directory: Path, file: Path, engine_id: str, tell: Tell) -> Restoration:
    """Restore every key of a file into an engine, and show everywhere that it is there now."""
    content = await asyncio.to_thread(file.read_bytes)
    async with opened(directory) as platform:
        restoration = await platform.kms.backups.restore(
            content,
            engine_id,
            secret=_secret(platform),
            production=platform.mode is Mode.PRODUCTION,
            caller=CALLER,
            tell=tell,
        )
        for one in restoration.restored:
            if one.key.purpose is KeyPurpose.CA:
                await platform.ca.key_moving.follow(one.key.key_id, caller=CALLER)
        return restoration


async def rehearse_backup(directory: Path, file: Path, engine_id: str, tell: Tell) -> Rehearsal:
    """Rehearse a file in a scratch engine."""
    content = await asyncio.to_thread(file.read_bytes)
    async with opened(directory) as platform:
        return await platform.kms.backups.rehearse(
            content, engine_id, secret=_secret(platform), caller=CALLER, tell=tell
        )


async def rehearse_copy(
    directory: Path, copy: Path, engine_id: str, passphrase: Path | None, tell: Tell
) -> Rehearsal:
    """Rehearse a copy of a software engine's directory, with the engine's own passphrase file
    unless another is named. The copy is only read."""
    async with opened(directory) as platform:
        software = {one.id: one for one in platform.settings.crypto_engines.software}
        section = software.get(engine_id or platform.settings.crypto_engines.chosen_id)
        if section is None:
            raise RuleViolation(
                f"{copy} is a directory, which is how a software engine is backed up, and"
                f" {engine_id} is none",
                code="engine_not_software",
                field="engine",
            )
        base = platform.installation.directory
        words = passphrase or base / section.passphrase_file
        engine = await asyncio.to_thread(_open_copy, copy, base / section.storage_directory, words)
        try:
            return await platform.kms.backups.rehearse_copy(
                section.id, engine, caller=CALLER, tell=tell
            )
        finally:
            await asyncio.to_thread(engine.close)


async def backup_standings(directory: Path) -> Sequence[EngineStanding]:
    """How each engine's keys are backed up; no engine is asked."""
    installation = Installation(directory)
    return await _standings(installation, load(installation.config))


async def backup_warnings(directory: Path) -> Sequence[str]:
    """What is to be told of the keys of engines that wrap; changes nothing, asks no engine, and
    says nothing where the database is not there yet or belongs to another version."""
    installation = Installation(directory)
    settings = load(installation.config)
    database = settings.database_settings(installation.directory)
    wraps = any(section.backup == "wrapped" for section in settings.crypto_engines.pkcs11)
    if not wraps or not await is_current(database, SERVICES):
        return ()
    found = await _standings(installation, settings)
    return [warning for one in found for warning in one.warnings]


async def _standings(installation: Installation, settings: Settings) -> Sequence[EngineStanding]:
    database = await open_database(installation, settings)
    try:
        engines = EngineDirectory(
            await asyncio.to_thread(open_engines, installation, settings),
            default_id=settings.crypto_engines.chosen_id,
        )
        try:
            return await standings(engines, KmsStorage(database), SystemClock().now())
        finally:
            for engine in engines:
                await engine.close()
    finally:
        await database.close()


def _open_copy(copy: Path, original: Path, passphrase: Path) -> SoftwareEngine:
    if copy.resolve() == original.resolve():
        raise RuleViolation(
            f"{copy} is the engine's directory itself; rehearse its copy",
            code="not_a_copy",
            field="file",
        )
    if not (copy / KEYSTORE_FILE).exists():
        raise NotFound(f"{copy} holds no keystore", code="no_keys", field="file")
    return SoftwareEngine.open("copy", copy, read_passphrase(passphrase))


def _secret(platform: Platform) -> bytes:
    return platform.installation.secret(AUDIT_KEY)


def _check_place(file: Path) -> None:
    """Before anything is wrapped, or anybody asked."""
    if file.exists():
        raise RuleViolation(
            f"{file} is there already and stays; name another file", code="file_exists", field="to"
        )
    if not file.absolute().parent.is_dir():
        raise NotFound(f"there is no folder {file.absolute().parent}", code="no_folder", field="to")


def _component(file: Path) -> bytes:
    text = _secret_file(file)
    try:
        part = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        part = b""
    if len(part) != COMPONENT_LENGTH:
        raise RuleViolation(
            f"{file} is no component: {COMPONENT_LENGTH * 2} hexadecimal digits, as lamassu key"
            " backup component makes them",
            code="bad_components",
            field="component",
        )
    return part


def _secret_file(file: Path) -> bytes:
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise RuleViolation(f"others may read {file}; run: chmod 600 {file}", code="secret_exposed")
    return file.read_bytes().strip()
