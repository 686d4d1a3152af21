"""Asking Vault: logged in, unsealed where we may, once more where that helps."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import hvac

from lamassu.services.kms.engines.vault.access import VaultAccess
from lamassu.services.kms.engines.vault.connection import Connection
from lamassu.services.kms.engines.vault.errors import (
    VaultAnswer,
    denied,
    failing,
    mount_gone,
    unreadable,
)
from lamassu.services.kms.engines.vault.seal import Seal
from lamassu.services.kms.engines.vault.token import TokenKeeper
from lamassu.services.kms.ports import EngineDown

T = TypeVar("T")

STARTING_PAUSE = 0.2  # seconds between tries of a Vault that was unsealed a moment ago
STARTING_SECONDS = 3.0
_SEALED = (501, 503)


class VaultSession:
    """Lazy: nothing is opened before something is asked. Safe for threads."""

    def __init__(self, access: VaultAccess, *, at_once: int, seconds: float) -> None:
        """`seconds` is what a question may take, all that it needs included."""
        self.access = access
        self.seconds = seconds
        self._connection = Connection(access, at_once=at_once)
        self._seal = Seal(access, self._connection)
        self._token = TokenKeeper(access, self._connection)

    def ask(self, work: Callable[[hvac.Client], T], *, seconds: float | None = None) -> T:
        """What `work` gets from Vault.

        Raises `VaultAnswer` for a 400 or 404, which are about what was asked; else
        `EngineDown` or `EngineRefused`. `work` may be run a second time.
        """
        with self._connection.within(seconds or self.seconds):
            starting_until = time.monotonic() + STARTING_SECONDS
            logged_in_anew = False
            while True:
                try:
                    self._token.ensure()
                    return work(self._connection.client)
                except VaultAnswer as answer:
                    if answer.status == 403:
                        if logged_in_anew or not self._is_dead(answer):
                            raise denied(self.access, answer.path) from None
                        logged_in_anew = True
                    elif answer.status in _SEALED or answer.says("Vault is sealed"):
                        self._seal.open_up()
                        self._wait_for_start(answer, starting_until)
                    elif answer.status >= 500 or answer.status == 429 or answer.status < 400:
                        error = failing(self.access, answer)
                        if error.code != "engine_standby":
                            raise error from None
                        self._wait_for_start(answer, starting_until)
                    elif answer.says("no handler for route"):
                        raise mount_gone(self.access, answer.path) from None
                    else:
                        raise

    def data(
        self, work: Callable[[hvac.Client], Any], *, seconds: float | None = None
    ) -> dict[str, Any]:
        """The data of the answer that `work` gets. Raises `EngineDown` (`engine_unreadable`)."""
        answer = self.ask(work, seconds=seconds)
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, dict):
            raise unreadable(self.access)
        return data

    def fetch(self, path: str, *, seconds: float | None = None) -> dict[str, Any]:
        """The data of a plain read of `path`, beneath /v1/."""
        return self.data(lambda client: client.adapter.get(f"/v1/{path}"), seconds=seconds)

    def within(self, seconds: float) -> AbstractContextManager[None]:
        """Bound everything that this thread asks in the block, together."""
        return self._connection.within(seconds)

    def close(self) -> None:
        """Give the token back and let go of the connections; what is asked later opens new
        ones."""
        self._token.close()
        self._connection.close()

    def _is_dead(self, answer: VaultAnswer) -> bool:
        """Whether the token was refused, and not what was asked with it."""
        if not answer.says("invalid token", "bad token"):
            try:
                self._connection.client.auth.token.lookup_self()
            except VaultAnswer as second:
                if second.status != 403:
                    return False
            else:
                return False
        return self._token.reject(answer.token)

    def _wait_for_start(self, answer: VaultAnswer, until: float) -> None:
        """A Vault that was just unsealed takes a moment to become active."""
        if time.monotonic() > until or self._connection.left() < 2 * STARTING_PAUSE:
            raise EngineDown(
                f"{self.access.who} is unsealed and not active yet; try again shortly",
                code="engine_starting",
                retry_after=2,
            ) from answer
        time.sleep(STARTING_PAUSE)
