"""Rows of the original's six databases, as values of ours. Nothing is trusted that is in them."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from lamassu.kernel.errors import LamassuError, Malformed
from lamassu.kernel.records import Json
from lamassu.kernel.wire_text import ZERO_TIME, format_time, parse_duration
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.kernel.x509.pem import ders_of
from lamassu.platform.http.wire import decode_document, parse_time
from lamassu.services.alerts.model import LatestEvent
from lamassu.services.ca.contract import CertificateType, IssuanceProfile, RevocationReason
from lamassu.services.ca.http.profile_bodies import ProfileBody
from lamassu.services.ca.rules.adoption import (
    UNREVOKED,
    FoundAuthority,
    FoundCertificate,
    FoundStatus,
)
from lamassu.services.devices.contract import BindMode, DeviceStatus, SlotStatus
from lamassu.services.devices.model import CREATED, DECOMMISSIONED, Scope, TimelineLine
from lamassu.services.devices.usecases.adopt_devices import FoundDevice, FoundSlot, FoundVersion
from lamassu.services.dms.http.bodies import DmsBody, draft_of
from lamassu.services.dms.model.settings import DEFAULT_ICON, DEFAULT_ICON_COLOR
from lamassu.services.va.model import RoleChange
from lamassu.wiring.importing.material import (
    Damaged,
    FoundDms,
    FoundKey,
    SourceAuthority,
    SourceKey,
    damaged,
)

Row: TypeAlias = Mapping[str, Any]

_ATTACHED_TO = "lamassu.io/ra/attached-to"
_LONGEST_CERTIFICATE = 256 * 1024
_REASONS = {reason.value.casefold(): reason for reason in RevocationReason}
_WITH_KEY = (CertificateType.MANAGED, CertificateType.IMPORTED_WITH_KEY)
_BINDINGS = {mode.value: mode for mode in BindMode}
_NEW_VERSION = re.compile(r"set to (\d{1,9})\Z", re.ASCII)
_NO_TIME = datetime(1, 1, 2, tzinfo=UTC)  # what the original keeps for none is before it


def certificate_of(row: Row) -> FoundCertificate | Damaged:
    """A row of `certificates`."""
    label = str(row["serial_number"])
    revoked = row["status"] == "REVOKED"
    try:
        der = _der(row["certificate"])
        metadata = _object(row["metadata"])
        if certificate_facts(der).serial_number != label:
            text = "has the certificate of another row"
            return Damaged(label, "row_differs", text, revoked)
    except LamassuError as error:
        return damaged(label, error, revoked=revoked)
    owner, device_id = _attached_to(metadata.get(_ATTACHED_TO))
    return FoundCertificate(label, der, _status(row), metadata, owner=owner, device_id=device_id)


def authority_of(
    row: Row, engines: Mapping[str, str], role: Row | None
) -> SourceAuthority | Damaged:
    """A row of `ca_certificates` with that of its certificate, and of `va_role` if it has one."""
    label = str(row["id"])
    revoked = row["status"] == "REVOKED"
    try:
        der = _der(row["certificate"])
        metadata = _object(row["metadata"])
        number, change = _role(role)
    except LamassuError as error:
        return damaged(label, error, revoked=revoked)
    try:
        kind = CertificateType(row["type"])
    except ValueError:
        kind = CertificateType.MANAGED
    engine_id = row["engine_id"] or ""
    key = SourceKey(engine_id=engines.get(engine_id, engine_id)) if kind in _WITH_KEY else None
    found = FoundAuthority(
        id=label,
        der=der,
        type=kind,
        profile_id=row["profile_id"] or "",
        status=_status(row),
        metadata=metadata,
        created_at=_time(row["creation_ts"]),
    )
    return SourceAuthority(found, key, number, change)


def _role(row: Row | None) -> tuple[int, RoleChange]:
    """Number of the last CRL, and how they are made. Raises `Malformed`."""
    if row is None:
        return 0, RoleChange()
    try:
        number = int(row["latest_crl_version"] or 0)
    except (ValueError, OverflowError):
        raise Malformed("its last CRL has no number", code="crl_number_malformed") from None
    return number, RoleChange(
        refresh_interval=_duration(row["crl_refresh_interval"]),
        validity=_duration(row["crl_validity"]),
        regenerate_on_revoke=row["crl_regenerate_on_revoke"],
    )


def _status(row: Row) -> FoundStatus:
    """`EXPIRED` follows from the certificate; what is none of the four is not said to be good."""
    status = row["status"]
    if status == "REVOKED":
        reason = _REASONS.get(str(row["revocation_reason"] or "").casefold())
        return FoundStatus(
            revoked=True,
            at=_time(row["revocation_timestamp"]),
            reason=reason or RevocationReason.UNSPECIFIED,
        )
    return UNREVOKED if status in ("ACTIVE", "EXPIRED") else FoundStatus(inactive=True)


def profile_of(row: Row) -> IssuanceProfile | Damaged:
    """A row of `issuance_profiles`, by way of the wire's form: it is judged like any."""
    label = str(row["id"])
    enforcement = "crypto_enforcement_"
    try:
        document: dict[str, Json] = {
            "id": label,
            "name": row["name"] or "",
            "description": row["description"] or "",
            "validity": {
                "type": row["validity_type"] or "",
                "duration": row["validity_duration"] or "0s",
                "time": _time_text(row["validity_time"]),
            },
            "sign_as_ca": bool(row["sign_as_ca"]),
            "honor_key_usage": bool(row["honor_key_usage"]),
            "key_usage": _names(row["key_usage"]),
            "honor_extended_key_usages": bool(row["honor_extended_key_usages"]),
            "extended_key_usages": _names(row["extended_key_usages"]),
            "honor_subject": bool(row["honor_subject"]),
            "subject": {
                name: row[f"subject_{name}"] or ""
                for name in (
                    "common_name",
                    "organization",
                    "organization_unit",
                    "country",
                    "state",
                    "locality",
                )
            },
            "honor_extensions": bool(row["honor_extensions"]),
            "crypto_enforcement": {
                "enabled": bool(row[f"{enforcement}enabled"]),
                "allow_rsa_keys": bool(row[f"{enforcement}allow_rsa_keys"]),
                "allowed_rsa_key_sizes": _sizes(row[f"{enforcement}allowed_rsa_key_sizes"]),
                "allow_ecdsa_keys": bool(row[f"{enforcement}allow_ecdsa_keys"]),
                "allowed_ecdsa_key_sizes": _sizes(row[f"{enforcement}allowed_ecdsa_key_sizes"]),
            },
        }
        return decode_document(ProfileBody, document).value()
    except LamassuError as error:
        return damaged(label, error)


def dms_of(row: Row) -> FoundDms | Damaged:
    """A row of `dms`, by way of the wire's form. Secrets of webhooks are not kept here."""
    label = str(row["id"])
    try:
        document: dict[str, Json] = {
            "id": label,
            "name": row["name"] or label,
            "metadata": _object(row["metadata"]),
            "settings": _without_nulls(_object(row["settings"])),
        }
        draft = draft_of(decode_document(DmsBody, document))
    except LamassuError as error:
        return damaged(label, error)
    return FoundDms(draft, _time(row["creation_date"]) or datetime.now(UTC))


def device_of(row: Row) -> FoundDevice | Damaged:
    """A row of `devices`."""
    label = str(row["id"])
    try:
        slot = _object(row["identity_slot"])
        events = _events(_object(row["events"]), Scope.DEVICE)
        found_slot, slot_events = _slot(slot) if slot else (None, ())
        tags = _json(row["tags"]) or []
        metadata = _object(row["metadata"])
    except LamassuError as error:
        return damaged(label, error)
    created_at = _time(row["creation_timestamp"]) or datetime.now(UTC)
    retired = [line.at for line in events if line.type == DECOMMISSIONED]
    is_retired = row["status"] == DeviceStatus.DECOMMISSIONED.value
    return FoundDevice(
        id=label,
        dms_id=row["dms_owner"] or "",
        # enrolment by a profile without looks made such devices
        icon=row["icon"] or DEFAULT_ICON,
        icon_color=row["icon_color"] or DEFAULT_ICON_COLOR,
        created_at=created_at,
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
        metadata=metadata,
        slot=found_slot,
        timeline=sorted(
            [*(line for line in events if line.type != CREATED), *slot_events],
            key=lambda line: line.at,
        ),
        decommissioned_at=(max(retired) if retired else created_at) if is_retired else None,
    )


def _slot(slot: Mapping[str, Json]) -> tuple[FoundSlot, Sequence[TimelineLine]]:
    """The slot, and those lines of its history that are not of a certificate entering it.
    Raises `Malformed`."""
    events = _events(_mapping(slot.get("events")), Scope.SLOT)
    entered: dict[int, TimelineLine] = {}
    others: list[TimelineLine] = []
    for line in events:
        numbered = _NEW_VERSION.search(line.description)
        if line.type not in _BINDINGS:
            others.append(line)
        else:
            entered.setdefault(int(numbered[1]) if numbered else 0, line)
    try:
        versions = {
            int(number): _version(str(serial), entered.get(int(number)))
            for number, serial in _mapping(slot.get("versions")).items()
        }
        active = slot.get("active_version", 0)
        active_version = int(active) if isinstance(active, int | str) else -1
        status = SlotStatus(str(slot.get("status") or SlotStatus.ACTIVE.value))
    except ValueError:
        raise Malformed("its identity slot cannot be read", code="slot_malformed") from None
    return FoundSlot(status, active_version, versions), others


def _version(serial_number: str, entered: TimelineLine | None) -> FoundVersion:
    if entered is None:
        return FoundVersion(serial_number)
    return FoundVersion(serial_number, _BINDINGS[entered.type], entered.at)


def _events(events: Mapping[str, Json], scope: Scope) -> Sequence[TimelineLine]:
    lines = []
    for at, event in events.items():
        if not isinstance(event, Mapping):
            continue
        try:
            time = parse_time(at)
        except ValueError:
            continue  # a line of history is not worth a device
        lines.append(
            TimelineLine(scope, time, str(event.get("type", "")), str(event.get("description", "")))
        )
    return sorted(lines, key=lambda line: line.at)


def key_of(row: Row, engines: Mapping[str, str]) -> FoundKey:
    """A row of `kms_keys`."""
    engine_id = row["engine_id"] or ""
    tags = _json(row["tags"])
    return FoundKey(
        key_id=str(row["key_id"]),
        engine_id=engines.get(engine_id, engine_id),
        name=row["name"] or "",
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
    )


def event_of(row: Row) -> LatestEvent | None:
    """A row of `events`; `None` for one that is no event."""
    try:
        event = _object(row["event"])
    except Malformed:
        return None
    seen_at = _time(row["last_seen"])
    if not event or seen_at is None:
        return None
    return LatestEvent(str(row["event_type"]), event, seen_at, max(0, int(row["total_seen"] or 0)))


# --- parts ----------------------------------------------------------------------------------


def _der(text: object) -> bytes:
    """The original keeps base64 of PEM. Raises `Malformed`."""
    if not isinstance(text, str) or not text or len(text) > _LONGEST_CERTIFICATE:
        raise Malformed("has no certificate", code="certificate_missing")
    try:
        pem = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise Malformed("its certificate is not base64", code="certificate_malformed") from None
    return ders_of(pem)[0]


def _json(value: object) -> Json:
    """A column of text or jsonb, which both come as text. Raises `Malformed`."""
    if value is None or value == "":
        return None
    try:
        found: Json = json.loads(value) if isinstance(value, str) else None
    except (ValueError, RecursionError):
        raise Malformed("has a column that is no JSON", code="row_malformed") from None
    return found


def _object(value: object) -> Mapping[str, Json]:
    return _mapping(_json(value))


def _mapping(value: Json) -> Mapping[str, Json]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Malformed("has a column that is no JSON object", code="row_malformed")
    return value


def _names(value: object) -> list[Json]:
    """A list of names, or one; the columns' default `{}` is none."""
    found = _json(value)
    if isinstance(found, str):
        return [found]
    return list(found) if isinstance(found, list) else []


def _sizes(value: object) -> Json:
    """Sizes of keys; without a list any will do."""
    found = _json(value)
    return found if isinstance(found, list) else None


def _without_nulls(value: Json) -> Json:
    """The original writes null for what is empty or was never set."""
    if isinstance(value, Mapping):
        return {
            name: _without_nulls(member) for name, member in value.items() if member is not None
        }
    return value


def _attached_to(value: Json) -> tuple[str, str]:
    """Of which DMS and device a certificate's metadata tell."""
    if not isinstance(value, Mapping):
        return "", ""
    authorized_by = value.get("authorized_by")
    owner = authorized_by.get("ra_id", "") if isinstance(authorized_by, Mapping) else ""
    return str(owner), str(value.get("device_id", ""))


def _time(value: object) -> datetime | None:
    # the driver gives the ends of its range, as infinity and year 1 are, without a zone
    if not isinstance(value, datetime) or value.tzinfo is None:
        return None
    return value if value > _NO_TIME else None


def _time_text(value: object) -> str:
    time = _time(value)
    return ZERO_TIME if time is None else format_time(time)


def _duration(value: object) -> timedelta | None:
    """`None` for what is none: the default holds then."""
    try:
        return parse_duration(str(value)) if value else None
    except ValueError:
        return None
