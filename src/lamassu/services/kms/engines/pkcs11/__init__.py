"""HSMs by PKCS #11."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lamassu.kernel.records import Json
from lamassu.services.kms.engines.pkcs11.connection import SESSIONS, TokenSettings
from lamassu.services.kms.engines.pkcs11.engine import Pkcs11Engine
from lamassu.services.kms.engines.pkcs11.pins import RefusedPins
from lamassu.services.kms.engines.pkcs11.wrapping import WrappingEngine

__all__ = ["Pkcs11Engine", "WrappingEngine", "open_engine"]

# of a caller's patience: who waits for a session is told so before the caller goes
SHARE_OF_TIMEOUT = 0.8


def open_engine(
    engine_id: str,
    *,
    token: str,
    pin: bytes,
    module_path: Path,
    refused_pins: Path,
    env: Mapping[str, str] | None = None,
    serial: str | None = None,
    backup_key: str | None = None,
    sessions: int | None = None,
    timeout_seconds: float = 10.0,
    metadata: Mapping[str, Json] | None = None,
) -> Pkcs11Engine:
    """The engine of a configuration; nothing is asked of the token yet.

    `refused_pins` is a folder of the installation. With the label of a `backup_key`, keys are
    made so that they can leave the token encrypted under that one (`WrapsKeys`).
    """
    settings = TokenSettings(
        engine_id=engine_id,
        module_path=module_path,
        label=token,
        serial=serial,
        pin=pin,
        env=dict(env or {}),
        sessions=sessions or SESSIONS,
        patience=timeout_seconds * SHARE_OF_TIMEOUT,
    )
    pins = RefusedPins(refused_pins)
    if backup_key is None:
        return Pkcs11Engine(settings, pins, metadata=metadata, sign_seconds=timeout_seconds)
    return WrappingEngine(
        settings, pins, backup_key=backup_key, metadata=metadata, sign_seconds=timeout_seconds
    )
