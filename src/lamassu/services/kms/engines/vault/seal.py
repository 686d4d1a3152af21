"""Whether Vault is sealed, and opening it where we were given its keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import structlog

from lamassu.services.kms.engines.vault.access import VaultAccess
from lamassu.services.kms.engines.vault.connection import Connection
from lamassu.services.kms.engines.vault.errors import VaultAnswer
from lamassu.services.kms.ports import EngineDown, EngineRefused

log = structlog.get_logger(__name__)

PAUSE_AFTER_WRONG_KEYS = 300.0  # seconds
ASK_SECONDS = 2.0


class Seal:
    """Told of an answer that a sealed Vault gives; safe for threads."""

    def __init__(self, access: VaultAccess, connection: Connection) -> None:
        self._access = access
        self._connection = connection
        self._lock = threading.Lock()
        self._wrong_until = 0.0

    def open_up(self) -> None:
        """Returns when Vault is unsealed, if only by somebody else meanwhile.

        Raises `EngineDown`: `engine_sealed`, `engine_uninitialised`; `EngineRefused`:
        `unseal_keys_wrong`, `unseal_keys_missing`.
        """
        if not self._lock.acquire(timeout=self._connection.left()):
            raise self._sealed({})
        try:
            state = self._state()
            if not state.get("initialized", True):
                raise EngineDown(
                    f"{self._access.who} is not initialised; run: vault operator init",
                    code="engine_uninitialised",
                    retry_after=30,
                )
            if state.get("sealed"):
                self._unseal(state)
        finally:
            self._lock.release()

    def _state(self) -> Mapping[str, Any]:
        with self._connection.within(ASK_SECONDS), self._connection.anonymous():
            state = self._connection.client.sys.read_seal_status()
        return state if isinstance(state, dict) else {}

    def _unseal(self, state: Mapping[str, Any]) -> None:
        keys = self._access.unseal_keys
        if not self._access.auto_unseal or not keys or state.get("recovery_seal"):
            raise self._sealed(state)
        if time.monotonic() < self._wrong_until:
            raise self._wrong()
        needed = int(state.get("t") or 1) - int(state.get("progress") or 0)
        if len(keys) < needed:
            raise EngineRefused(
                f"{self._access.who} is sealed and needs {needed} key shares;"
                f" auto_unseal_keys has {len(keys)}",
                code="unseal_keys_missing",
                retry_after=30,
            )
        try:
            with self._connection.anonymous():
                for key in keys:
                    after = self._connection.client.sys.submit_unseal_key(key=key)
                    if isinstance(after, dict) and after.get("sealed") is False:
                        log.warning("vault_unsealed", engine=self._access.engine_id)
                        return
        except VaultAnswer as answer:
            if answer.status not in (400, 500):
                raise
        self._wrong_until = time.monotonic() + PAUSE_AFTER_WRONG_KEYS
        raise self._wrong()

    def _wrong(self) -> EngineRefused:
        return EngineRefused(
            f"{self._access.who} is sealed, and auto_unseal_keys do not open it; correct them, or"
            " unseal it by hand: vault operator unseal",
            code="unseal_keys_wrong",
            retry_after=30,
        )

    def _sealed(self, state: Mapping[str, Any]) -> EngineDown:
        shares = ""
        if state.get("t") and not state.get("recovery_seal"):
            given = f", {state['progress']} given" if state.get("progress") else ""
            shares = f" (it takes {state['t']} of {state.get('n')} key shares{given})"
        keyless = (
            "; auto_unseal_enabled has no auto_unseal_keys here, so it only reports"
            if self._access.auto_unseal and not self._access.unseal_keys
            else ""
        )
        return EngineDown(
            f"{self._access.who} is sealed{shares}; run: vault operator unseal{keyless}",
            code="engine_sealed",
            retry_after=30,
        )
