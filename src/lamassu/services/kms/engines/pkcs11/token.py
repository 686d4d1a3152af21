"""One token for any number of threads: connected when first needed, and again when it was lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pkcs11.exceptions import PKCS11Error
from pkcs11.types import Session

from lamassu.kernel.errors import LamassuError, Unavailable
from lamassu.services.kms.engines.pkcs11.connection import (
    Connection,
    Seat,
    TokenFacts,
    TokenSettings,
    check_seat,
    connect,
    security_officers_session,
)
from lamassu.services.kms.engines.pkcs11.errors import LOST, translate
from lamassu.services.kms.engines.pkcs11.pins import RefusedPins
from lamassu.services.kms.ports import EngineDown, EngineRefused

T = TypeVar("T")

CLOSE_PATIENCE = 2.0  # seconds that `close` waits for a library which may hang


class TokenLink:
    """Runs work in sessions that are logged in."""

    def __init__(self, settings: TokenSettings, pins: RefusedPins) -> None:
        self._settings = settings
        self._pins = pins
        self._connection: Connection | None = None
        self._connecting = threading.Lock()
        self._facts: TokenFacts | None = None
        self._refused_pin: str | None = None
        self._closed = False
        self._process = os.getpid()

    @property
    def facts(self) -> TokenFacts | None:
        """What the token said at the last connection, if there was one."""
        return self._facts

    def browse(self, work: Callable[[Seat], T]) -> T:
        """`run`, for work that looks for objects or changes them."""

        def in_turn(seat: Seat) -> T:
            with seat.connection.module.browsing:
                return work(seat)

        return self.run(in_turn)

    def run(self, work: Callable[[Seat], T]) -> T:
        """Do `work` with a session. If the token was lost, log in anew and do it once more.

        Raises `EngineDown`, `EngineRefused`, and whatever else the table of errors says.
        """
        try:
            try:
                return self._once(work)
            except LOST:
                return self._once(work)
        except LOST as error:
            raise self._judged(error) from error
        except PKCS11Error as error:
            raise translate(error, self._settings.engine_id) from error

    def check(self) -> None:
        """See that the token is there, and that its sessions are the user's."""
        self.run(check_seat)

    @contextmanager
    def as_security_officer(self, pin: bytes) -> Iterator[Session]:
        """Log the user out and the security officer in, for the length of the block."""
        connection = self._connection
        if connection is not None:
            connection.end()
        with security_officers_session(self._settings, pin) as session:
            yield session

    def close(self) -> None:
        """Close every session; those in use are closed when they come back. Never hangs."""
        self._closed = True
        connection = self._connection
        if connection is None or self._process != os.getpid():
            return
        closing = threading.Thread(target=connection.end, daemon=True, name="token-close")
        closing.start()
        closing.join(CLOSE_PATIENCE)

    def _judged(self, error: PKCS11Error) -> LamassuError:
        """A failure that came twice is the token's, unless that is well: then it is this one
        request's, as when a key is damaged, and no reason to stop asking for others."""
        try:
            self._once(check_seat)
        except PKCS11Error:
            return translate(error, self._settings.engine_id)
        except EngineDown as down:
            return down
        return Unavailable(
            f"engine {self._settings.engine_id}: the token can be used, but answers this with"
            f" {type(error).__name__}; see its own log",
            code="token_operation_failed",
        )

    def _once(self, work: Callable[[Seat], T]) -> T:
        seat = self._take()
        connection = seat.connection
        try:
            with connection.module.calling:
                result = work(seat)
        except PKCS11Error as error:
            if isinstance(error, LOST):
                connection.end()
            # not given back: the binding may not have ended what it began in this session
            connection.discard(seat)
            raise
        except BaseException:
            connection.give_back(seat)
            raise
        connection.give_back(seat)
        return result

    def _take(self) -> Seat:
        while True:
            connection = self._connected()
            try:
                seat = connection.take()
            except (PKCS11Error, EngineDown):
                # sessions that never come back hang in the library: leave them behind
                connection.end()
                raise
            if seat is not None:
                return seat

    def _connected(self) -> Connection:
        connection = self._connection
        if connection is not None and not connection.ended and self._process == os.getpid():
            return connection
        if self._closed:
            raise Unavailable("the crypto engine is closing", code="engine_closed")
        if self._process != os.getpid():
            # PKCS #11 v2.40 §5.4: a child must initialise the library itself
            raise EngineDown(
                "a forked process cannot use its parent's sessions with a token; open the engine"
                " in the process that uses it",
                code="engine_forked",
            )
        if not self._connecting.acquire(timeout=self._settings.patience):
            raise EngineDown(
                f"engine {self._settings.engine_id}: the token does not answer while logging in",
                code="token_busy",
            )
        try:
            return self._connect()
        finally:
            self._connecting.release()

    def _connect(self) -> Connection:
        if self._connection is not None and not self._connection.ended:
            return self._connection  # another thread was faster
        if self._refused_pin is not None:
            raise EngineRefused(self._refused_pin, code="pin_refused")
        try:
            self._connection = connect(self._settings, self._pins)
        except EngineRefused as error:
            if error.code == "pin_refused":
                self._refused_pin = error.text
            elif error.code == "token_missing" and self._facts is not None:
                raise EngineDown(error.text, code="token_lost") from error
            raise
        self._facts = self._connection.facts
        if self._closed:
            self._connection.end()
        return self._connection
