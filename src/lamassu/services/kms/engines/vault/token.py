"""The token that we come with: taken by AppRole, renewed while it lasts, taken anew after.

A refused login is not repeated: Vault locks an AppRole out that is tried too often, and each
login may spend a use of the secret id. It is remembered for `LOGIN_PAUSE`; a new configuration
is a new process, which tries at once.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from lamassu.kernel.errors import Unavailable
from lamassu.services.kms.engines.vault.access import VaultAccess
from lamassu.services.kms.engines.vault.connection import Connection
from lamassu.services.kms.engines.vault.errors import (
    VaultAnswer,
    failing,
    timed_out,
    unreadable,
)
from lamassu.services.kms.ports import EngineDown, EngineRefused

log = structlog.get_logger(__name__)

LOGIN_PAUSE = 300.0  # seconds; five tries in fifteen minutes lock an AppRole out by default
RENEWAL_SECONDS = 5.0
RENEWED_AT = 2 / 3  # of its life
SHORTENED_TO = 1 / 4  # a renewal that gives less than this: its longest life is near


@dataclass(frozen=True, slots=True)
class Token:
    """A token and what is known of its life, in seconds of the monotonic clock."""

    text: str = field(repr=False)
    since: float
    lifetime: float  # 0: it does not end
    first_lifetime: float
    renewable: bool

    @property
    def expired(self) -> bool:
        """Whether Vault knows it no longer; a little early."""
        return bool(self.lifetime) and time.monotonic() > self.since + self.lifetime * 0.98

    @property
    def renewal_in(self) -> float:
        """Seconds until it is to be renewed."""
        return max(0.2, self.since + self.lifetime * RENEWED_AT - time.monotonic())


class TokenKeeper:
    """Holds the connection's token; safe for threads. A thread of its own renews it."""

    def __init__(self, access: VaultAccess, connection: Connection) -> None:
        self._access = access
        self._connection = connection
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._accepted_at: datetime | None = None
        self._refused: EngineRefused | None = None
        self._refused_until = 0.0
        self._failure: tuple[float, Unavailable] | None = None
        self._closing = threading.Event()
        self._renewer: threading.Thread | None = None

    def ensure(self) -> None:
        """Have a token on the connection. Raises `EngineRefused` (`login_refused`, ...),
        `EngineDown`, `VaultAnswer` for a sealed Vault."""
        token = self._token
        if token is not None and not token.expired:
            return
        asked_at = time.monotonic()
        if not self._lock.acquire(timeout=self._connection.left()):
            raise timed_out(self._access)
        try:
            if self._token is not None and not self._token.expired:
                return
            # who waited for somebody's attempt that failed does not repeat it
            if self._failure is not None and self._failure[0] > asked_at:
                raise self._failure[1]
            try:
                self._log_in()
            except Unavailable as error:
                self._failure = (time.monotonic(), error)
                raise
        finally:
            self._lock.release()

    def reject(self, text: str | None) -> bool:
        """Forget a token that Vault refused. False where it is too young to have died."""
        with self._lock:
            token = self._token
            if token is None or token.text != text:
                return True  # somebody was faster
            if time.monotonic() - token.since < 1.0 and token.lifetime > 2.0:
                return False
            self._forget()
            return True

    def close(self) -> None:
        """Revoke the token, if Vault is there, and end the thread."""
        self._closing.set()
        renewer = self._renewer
        if self._token is not None and not self._token.expired:
            try:
                with self._connection.within(1.0):
                    self._connection.client.auth.token.revoke_self()
            except Unavailable:
                log.info("vault_token_left", engine=self._access.engine_id)
        self._forget()
        if renewer is not None and renewer is not threading.current_thread():
            renewer.join(1.0)

    def _forget(self) -> None:
        self._token = None
        self._connection.token = None

    def _log_in(self) -> None:
        now = time.monotonic()
        if self._refused is not None and now < self._refused_until:
            raise EngineRefused(
                self._refused.text,
                code=self._refused.code,
                retry_after=max(1, round(self._refused_until - now)),
            )
        self._forget()
        try:
            with self._connection.anonymous():
                answer = self._connection.client.auth.approle.login(
                    role_id=self._access.role_id,
                    secret_id=self._access.secret_id,
                    use_token=False,
                )
        except VaultAnswer as error:
            refusal = self._refusal(error)
            if refusal is None:
                raise
            self._refused, self._refused_until = refusal, time.monotonic() + LOGIN_PAUSE
            raise refusal from None
        self._take(self._auth(answer))
        self._refused = None
        self._accepted_at = datetime.now(UTC)

    def _auth(self, answer: Any) -> dict[str, Any]:
        auth = answer.get("auth") if isinstance(answer, dict) else None
        if (
            not isinstance(auth, dict)
            or not isinstance(auth.get("client_token"), str)
            or not isinstance(auth.get("lease_duration"), int)
        ):
            raise unreadable(self._access)
        return auth

    def _take(self, auth: dict[str, Any], first_lifetime: float | None = None) -> None:
        lifetime = float(auth["lease_duration"])
        self._token = Token(
            text=auth["client_token"],
            since=time.monotonic(),
            lifetime=lifetime,
            first_lifetime=first_lifetime or lifetime,
            renewable=bool(auth.get("renewable")),
        )
        self._connection.token = self._token.text
        if lifetime and self._renewer is None and not self._closing.is_set():
            self._renewer = threading.Thread(
                target=self._renew_for_ever, name=f"vault-{self._access.engine_id}", daemon=True
            )
            self._renewer.start()

    def _refusal(self, answer: VaultAnswer) -> EngineRefused | None:
        if answer.status == 400 and answer.says("invalid", "missing"):
            if self._accepted_at is None:
                text = (
                    "does not accept `role_id` and `secret_id`: one of them is wrong, or the"
                    " secret id has expired, is used up, or is bound to other addresses"
                )
            else:
                text = (
                    f"accepted the secret id at {self._accepted_at:%Y-%m-%d %H:%M} UTC and does so"
                    " no longer: it has expired, is used up or was revoked, or the role is gone"
                )
            return EngineRefused(
                f"{self._access.who} {text}; make a new one"
                " (vault write -f auth/approle/role/NAME/secret-id), configure it and restart",
                code="login_refused",
            )
        if answer.status == 403:
            return EngineRefused(
                f"{self._access.who} lets nobody log in by this AppRole now: it is locked out"
                " after wrong secret ids, or bound to other addresses; correct `secret_id`, and"
                " wait for the lockout to end or remove it (vault write -f"
                " sys/locked-users/.../unlock)",
                code="login_locked",
            )
        if answer.status in (404, 405):
            return EngineRefused(
                f"{self._access.who} has no AppRole login at auth/approle; run: vault auth enable"
                " approle, or correct `address` and `namespace`",
                code="approle_missing",
            )
        return None

    def _renew_for_ever(self) -> None:
        wait = 1.0
        while not self._closing.wait(wait):
            token = self._token
            if token is None or not token.lifetime:
                wait = 5.0  # whoever comes next logs in
                continue
            if token.renewal_in > 0.2:
                wait = token.renewal_in
                continue
            try:
                with self._connection.within(RENEWAL_SECONDS):
                    self._renew(token)
                wait = 0.2
            except Unavailable as error:
                wait = min(30.0, max(0.5, token.lifetime / 12))
                log.warning(
                    "vault_token_not_renewed", engine=self._access.engine_id, reason=error.text
                )

    def _renew(self, token: Token) -> None:
        if token.renewable:
            try:
                answer = self._connection.client.auth.token.renew_self()
            except VaultAnswer as error:
                if error.status not in (400, 403):
                    raise failing(self._access, error) from None
            else:
                auth = self._auth(answer)
                if float(auth["lease_duration"]) > token.first_lifetime * SHORTENED_TO:
                    with self._lock:
                        if self._token is token:
                            self._take(auth, token.first_lifetime)
                    return
        # it cannot be renewed: another one, before it ends
        with self._lock:
            if self._token is not token:
                return
            try:
                self._log_in()
            except EngineDown:
                if not token.expired:  # it serves for what is left of its life
                    self._token, self._connection.token = token, token.text
                raise
