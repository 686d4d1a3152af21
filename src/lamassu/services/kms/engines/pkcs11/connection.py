"""A token that was found, and the logged-in sessions with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from ctypes import c_ulong
from dataclasses import dataclass, field
from pathlib import Path

from pkcs11.constants import Attribute, ObjectClass, TokenFlag
from pkcs11.exceptions import (
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PKCS11Error,
    SessionCount,
    TokenNotPresent,
    TokenNotRecognised,
    UserAlreadyLoggedIn,
    UserNotLoggedIn,
)
from pkcs11.types import Session, Token

from lamassu.services.kms.contract import KeyAlgorithm
from lamassu.services.kms.engines.pkcs11 import mechanisms
from lamassu.services.kms.engines.pkcs11.errors import LOST, translate
from lamassu.services.kms.engines.pkcs11.functions import Desk
from lamassu.services.kms.engines.pkcs11.module import Module, load_module, session_handle
from lamassu.services.kms.engines.pkcs11.pins import RefusedPins, TokenName
from lamassu.services.kms.ports import EngineDown, EngineRefused

SESSIONS = 4  # an HSM in the network signs several at once; SoftHSM gains from one per processor
CHECK_LABEL = "lamassu:check"  # of no key
HANDLES_KEPT = 4096  # of keys, per session


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """Which token, behind which library. `patience` in seconds bounds each wait for another
    thread or process; what the library does itself cannot be interrupted."""

    engine_id: str
    module_path: Path
    label: str
    pin: bytes = field(repr=False)
    env: Mapping[str, str] = field(default_factory=dict)
    serial: str | None = None
    sessions: int = SESSIONS
    patience: float = 8.0


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What a token and its library say of themselves."""

    manufacturer: str
    model: str
    library: str
    cryptoki_version: str
    supported: Mapping[KeyAlgorithm, Sequence[int]]
    mechanisms: Set[int]


@dataclass(slots=True, eq=False)
class Seat:
    """A session, and the handles of private keys that were found through it."""

    session: Session
    connection: Connection
    desk: Desk
    keys: dict[str, c_ulong] = field(default_factory=dict)

    def remember(self, key_id: str, key: c_ulong) -> None:
        """Keep a handle, so that a signature needs no search."""
        if len(self.keys) >= HANDLES_KEPT:
            self.keys.clear()
        self.keys[key_id] = key


class Connection:
    """The sessions with one token, until it is lost: then all are given up together."""

    def __init__(self, module: Module, token: Token, settings: TokenSettings) -> None:
        """Made by `connect`, which opens the first session."""
        self.module = module
        self.token = token
        self.facts = _facts(module, token)
        self.ended = False
        self._settings = settings
        self._limit = settings.sessions
        # a write-protected token refuses read-write sessions; keys there can still sign
        self._writable = not token.flags & TokenFlag.WRITE_PROTECTED
        self._condition = threading.Condition()
        self._idle: list[Seat] = []
        self._open = 0  # idle, in use, or just being opened

    @property
    def sessions(self) -> int:
        """How many are open."""
        return self._open

    def take(self) -> Seat | None:
        """A session that is nobody else's, opened if there may be one more; `None` once ended.

        Raises `EngineDown` (`token_busy`) when none comes back in time, and as the library.
        """
        deadline = time.monotonic() + self._settings.patience
        while True:
            with self._condition:
                while not (self._idle or self._open < self._limit or self.ended):
                    if not self._condition.wait(max(0.0, deadline - time.monotonic())):
                        raise EngineDown(
                            f"engine {self._settings.engine_id}: every session with the token is"
                            " in use and none came back in time",
                            code="token_busy",
                        )
                if self.ended:
                    return None
                if self._idle:
                    return self._idle.pop()
                self._open += 1
            try:
                return self._open_seat()
            except SessionCount:
                self._settle_for_fewer()

    def give_back(self, seat: Seat) -> None:
        """Let another thread have the session."""
        with self._condition:
            if not self.ended:
                self._idle.append(seat)
                self._condition.notify()
                return
        self.discard(seat)

    def end(self) -> None:
        """Close what waits; what is in use is closed when it comes back. Blocks as the library."""
        with self._condition:
            self.ended = True
            idle, self._idle = self._idle, []
            self._condition.notify_all()
        for seat in idle:
            self.discard(seat)

    def lives(self) -> bool:
        """Whether its token can be used; a connection that is busy counts as alive."""
        with self._condition:
            if self.ended or not self._idle:
                return not self.ended
            seat = self._idle.pop()
        try:
            with self.module.calling:
                check_seat(seat)
        except PKCS11Error:
            return False
        finally:
            self.give_back(seat)
        return True

    def _open_seat(self) -> Seat:
        try:
            with self.module.calling:
                session = self.token.open(rw=self._writable)
        except BaseException:
            with self._condition:
                self._open -= 1
                self._condition.notify()
            raise
        return Seat(session, self, Desk(session_handle(session)))

    def _settle_for_fewer(self) -> None:
        """The token allows fewer sessions than are configured: go on with those that we have."""
        with self._condition:
            if not self._open:
                raise SessionCount
            self._limit = self._open

    def discard(self, seat: Seat) -> None:
        """Close a session that is in use."""
        with suppress(PKCS11Error), self.module.calling:
            seat.session.close()
        with self._condition:
            self._open -= 1
            self._condition.notify()


class _Missing(Exception):
    """There is no token of this label, among those that the library knows of."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


RENEWABLE: tuple[type[Exception], ...] = (_Missing, *LOST)


def connect(settings: TokenSettings, pins: RefusedPins) -> Connection:
    """Load the library, find the token, log in.

    Raises `EngineRefused`: `module_missing`, `module_not_loadable`, `module_env_conflict`,
    `token_missing`, `token_ambiguous`, `pin_refused`, `pin_locked`, `pin_not_initialized`;
    `EngineDown`; or as the library.
    """
    module = load_module(settings.module_path, settings.env, patience=settings.patience)
    if not module.connecting.acquire(timeout=settings.patience):
        raise EngineDown(
            f"the library {settings.module_path} hangs while it connects", code="module_hangs"
        )
    try:
        try:
            return _connect(module, settings, pins)
        except RENEWABLE:
            if not module.refresh():
                raise
            return _connect(module, settings, pins)
    except _Missing as error:
        raise EngineRefused(error.text, code="token_missing") from None
    finally:
        module.connecting.release()


def _connect(module: Module, settings: TokenSettings, pins: RefusedPins) -> Connection:
    with module.calling:
        module.start()
        token = _find(module, settings)
        connection = Connection(module, token, settings)
        module.connections.add(connection)
    seat = connection.take()
    assert seat is not None  # nobody else knows the connection yet
    try:
        with module.calling:
            _login(seat.session, connection, settings, pins)
            check_seat(seat)
    except BaseException:
        connection.end()
        raise
    finally:
        connection.give_back(seat)
    return connection


def check_login(seat: Seat) -> None:
    """Raise `UserNotLoggedIn` when the login was lost: private keys are invisible then."""
    connection = seat.connection
    needed = connection.token.flags & TokenFlag.LOGIN_REQUIRED
    if needed and not connection.module.is_logged_in(seat.session):
        raise UserNotLoggedIn


def check_seat(seat: Seat) -> None:
    """See that the token is there, and that the session is the user's. Raises as the library."""
    seat.connection.token.slot.get_token()
    check_login(seat)
    # a small search also asks those tokens whose library answers the rest from memory
    wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: CHECK_LABEL}
    with seat.connection.module.browsing.if_free() as free:
        # a library at work for another thread is no sign of trouble, and may take long over a key
        if free:
            for _ in seat.session.get_objects(wanted):
                pass


@contextmanager
def security_officers_session(settings: TokenSettings, pin: bytes) -> Iterator[Session]:
    """A session of the security officer, for what is done once and by hand.

    The PIN is sent once for each call: a person gave it. Nobody of this process may be logged
    in to the token. Raises as `connect` and as the library.
    """
    module = load_module(settings.module_path, settings.env, patience=settings.patience)
    if not module.connecting.acquire(timeout=settings.patience):
        raise EngineDown(
            f"the library {settings.module_path} hangs while it connects", code="module_hangs"
        )
    try:
        with module.calling:
            module.start()
            token = _find(module, settings)
            try:
                session = token.open(rw=True)
                try:
                    module.login(session, pin, security_officer=True)
                    yield session
                finally:
                    with suppress(PKCS11Error):
                        session.close()
            except PKCS11Error as error:
                raise translate(error, settings.engine_id) from error
    except _Missing as error:
        raise EngineRefused(error.text, code="token_missing") from None
    finally:
        module.connecting.release()


def _find(module: Module, settings: TokenSettings) -> Token:
    tokens = _tokens(module)
    found = _matching(tokens, settings)
    if not found:
        labels = ", ".join(sorted(repr(token.label) for token in tokens)) or "none"
        wanted = repr(settings.label)
        if settings.serial is not None:
            wanted += f" with serial number {settings.serial!r}"
        raise _Missing(
            f"engine {settings.engine_id}: there is no token {wanted} behind"
            f" {settings.module_path}; tokens there: {labels}. Correct `token`, connect the token,"
            " or check module_extra_options.env"
        )
    if len(found) > 1:
        serials = ", ".join(sorted(_serial(token) for token in found))
        raise EngineRefused(
            f"engine {settings.engine_id}: {len(found)} tokens are labelled {settings.label!r};"
            f" choose one by its serial number: token_serial, one of {serials}",
            code="token_ambiguous",
        )
    return found[0]


def _tokens(module: Module) -> list[Token]:
    tokens = []
    for slot in module.library.get_slots(token_present=True):
        with suppress(TokenNotPresent, TokenNotRecognised):
            token = slot.get_token()
            if token.flags & TokenFlag.TOKEN_INITIALIZED:
                tokens.append(token)
    return tokens


def _matching(tokens: Sequence[Token], settings: TokenSettings) -> list[Token]:
    return [
        token
        for token in tokens
        if token.label == settings.label and settings.serial in (None, _serial(token))
    ]


def _serial(token: Token) -> str:
    return token.serial.decode("ascii", errors="replace").strip("\0 ")


def _login(
    session: Session, connection: Connection, settings: TokenSettings, pins: RefusedPins
) -> None:
    """Send the PIN, unless this process is logged in or the token refused this PIN before."""
    module, token = connection.module, connection.token
    if not token.flags & TokenFlag.LOGIN_REQUIRED or module.is_logged_in(session):
        return
    name = TokenName(token.manufacturer_id, token.model, _serial(token), token.label)
    where = f"engine {settings.engine_id}, token {token.label!r}"
    if token.flags & TokenFlag.USER_PIN_LOCKED:
        raise EngineRefused(
            f"{where}: the user's PIN is locked after wrong ones; the token's security officer"
            " must set a new one",
            code="pin_locked",
        )
    failed_lately = bool(token.flags & TokenFlag.USER_PIN_COUNT_LOW)
    with pins.attempt(
        name, settings.pin, failed_lately=failed_lately, patience=settings.patience
    ) as attempt:
        if attempt is None:
            raise EngineRefused(
                f"{where}: this PIN was refused before and is not sent again, because tokens lock"
                " after a few wrong ones; correct `pin` and start again. Only if the token has been"
                f" given this very PIN since, delete {pins.record}",
                code="pin_refused",
            )
        try:
            module.login(session, settings.pin)
        except UserAlreadyLoggedIn:
            attempt.unknown()
        except (PinIncorrect, PinInvalid, PinLenRange):
            attempt.refused()
            last = token.flags & TokenFlag.USER_PIN_FINAL_TRY
            raise EngineRefused(
                f"{where}: the token refused the PIN; it is not sent again. Correct `pin` and start"
                f" again{'; the next wrong one locks the token' if last else ''}",
                code="pin_refused",
            ) from None
        except PKCS11Error as error:
            attempt.unknown()
            raise translate(error, settings.engine_id) from error
        else:
            attempt.succeeded()


def _facts(module: Module, token: Token) -> TokenFacts:
    version = ".".join(map(str, module.library.cryptoki_version))
    return TokenFacts(
        manufacturer=module.library.manufacturer_id,
        model=token.model,
        library=module.library.library_description,
        cryptoki_version=version,
        supported=mechanisms.supported(token.slot),
        mechanisms=frozenset(token.slot.get_mechanisms()),
    )
