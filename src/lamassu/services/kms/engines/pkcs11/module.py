"""A vendor's PKCS #11 library, loaded once into this process and initialised for threads.

`python-pkcs11` calls `C_Initialize(NULL)`, which promises the library that only one thread will
ever call it; a library that believes it (SoftHSM does) crashes the process under two. So the
library is initialised here instead, once per file and process, with `CKF_OS_LOCKING_OK`:
`_ThreadedLibrary` takes the place of the binding's own `initialize`. A library that cannot lock
by itself (`CKR_CANT_LOCK`) is called by one thread at a time, under `Module.calling`. SoftHSM
locks its calls but not its store: there one thread at a time looks for objects or changes them,
under `Module.browsing`, while others sign with keys that they found before.

It is never finalised when the process ends: a daemon thread may still be inside it, and tokens
notice by themselves that their client is gone.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol
from weakref import WeakSet

from pkcs11 import _pkcs11
from pkcs11.exceptions import PKCS11Error
from pkcs11.types import Session

from lamassu.services.kms.engines.pkcs11.functions import (
    CKR_OK,
    InitializeArguments,
    SessionInfo,
    Signing,
    check,
    load_functions,
)
from lamassu.services.kms.ports import EngineDown, EngineRefused

# PKCS #11 v2.40: return values (§5.1), flags and states (pkcs11t.h)
CKR_CANT_LOCK = 0x00A
CKR_CRYPTOKI_ALREADY_INITIALIZED = 0x191
CKF_OS_LOCKING_OK = 0x002
CKU_SO = 0
CKU_USER = 1
USER_STATES: Final = frozenset({1, 3})  # CKS_RO_USER_FUNCTIONS, CKS_RW_USER_FUNCTIONS
LONGEST_TURN = 10.0  # seconds
SOFTHSM = "SoftHSM"  # what its library calls its manufacturer


class Turns:
    """A lock that is not waited for without end, because who holds it may hang in the library;
    none at all where the library needs none."""

    def __init__(self, path: Path, *, needed: bool) -> None:
        self._path = path
        self._lock = threading.RLock() if needed else None

    def __enter__(self) -> None:
        if self._lock is not None and not self._lock.acquire(timeout=LONGEST_TURN):
            raise EngineDown(
                f"the library {self._path}, which serves one caller at a time, hangs",
                code="module_hangs",
            )

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def if_free(self) -> Iterator[bool]:
        """Takes the turn without waiting; says whether it was free."""
        free = self._lock is None or self._lock.acquire(blocking=False)
        try:
            yield free
        finally:
            if free and self._lock is not None:
                self._lock.release()


class _ThreadedLibrary(_pkcs11.lib):
    """The binding's library without its `C_Initialize(NULL)` and its `C_Finalize`."""

    def initialize(self) -> None:
        """`Module` did that already."""


class _Connection(Protocol):
    """The sessions of one engine with its token. One that nobody refers to has none in use."""

    @property
    def sessions(self) -> int:
        """How many are open."""
        ...

    def lives(self) -> bool:
        """Whether the token can be used."""
        ...

    def end(self) -> None:
        """Close them."""
        ...


class Module:
    """One loaded library. Constructed by `load_module` alone."""

    def __init__(self, path: Path, env: Mapping[str, str]) -> None:
        self.path = path
        self._env = dict(env)
        self._functions = load_functions(path)
        self.sign = Signing(self._functions)
        self._serialised = not self._initialize()
        self._started = True
        self.calling = Turns(path, needed=self._serialised)
        self.library = _ThreadedLibrary(str(path))
        # SoftHSM 2.6: the making of an object fails when another thread's search meets it half made
        self.browsing = Turns(path, needed=self.library.manufacturer_id.startswith(SOFTHSM))
        # one reference too many: the binding unloads the library of a collected object
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.library))
        self.connecting = threading.Lock()  # held while a token is looked for and logged in to
        self.connections: WeakSet[_Connection] = WeakSet()

    def check_environment(self, env: Mapping[str, str]) -> None:
        """Raise `EngineRefused` if an engine asks for other variables than it was loaded with."""
        differing = [name for name, value in env.items() if self._env.get(name) != value]
        if differing:
            raise EngineRefused(
                f"the library {self.path} was loaded with another {', '.join(differing)}; engines"
                " that use one library need the same module_extra_options.env",
                code="module_env_conflict",
            )

    def refresh(self) -> bool:
        """Start the library again, so that it looks for tokens anew; some look only then.

        Only while `connecting` is held and no session of this process is open: connections whose
        token is lost too are ended first. Says whether it was done.
        """
        for connection in list(self.connections):
            if not connection.lives():
                connection.end()
        if any(connection.sessions for connection in self.connections):
            return False
        self._functions.C_Finalize(None)
        self._started = False
        self.start()
        return True

    def start(self) -> None:
        """See that the library runs: an earlier `refresh` may have failed half-way. While
        `connecting` is held. Raises `EngineDown` (`module_start_failed`)."""
        if not self._started:
            self._initialize()
            self._started = True

    def login(self, session: Session, pin: bytes, *, security_officer: bool = False) -> None:
        """C_Login, which holds for all sessions with the token.

        Not by the binding: its sessions log everybody out when they are closed. Raises as it.
        """
        user = CKU_SO if security_officer else CKU_USER
        handle, length = ctypes.c_ulong(session_handle(session)), ctypes.c_ulong(len(pin))
        check("C_Login", self._functions.C_Login(handle, ctypes.c_ulong(user), pin, length))

    def is_logged_in(self, session: Session) -> bool:
        """Whether this session is the user's now. A session that is none any more is not."""
        info = SessionInfo()
        answer = self._functions.C_GetSessionInfo(
            ctypes.c_ulong(session_handle(session)), ctypes.byref(info)
        )
        return answer == CKR_OK and info.state in USER_STATES

    def _initialize(self) -> bool:
        """Whether threads may call it at once."""
        arguments = InitializeArguments(flags=CKF_OS_LOCKING_OK)
        answer = self._functions.C_Initialize(ctypes.byref(arguments))
        if answer == CKR_OK:
            return True
        if answer == CKR_CANT_LOCK:
            answer = self._functions.C_Initialize(None)
        # somebody else in this process may have initialised it, nobody knows how
        if answer not in (CKR_OK, CKR_CRYPTOKI_ALREADY_INITIALIZED):
            raise EngineDown(
                f"the library {self.path} does not start (C_Initialize answered {answer:#x});"
                " see the vendor's log and configuration",
                code="module_start_failed",
            )
        return False


def session_handle(session: Session) -> int:
    """What the library calls it."""
    return int(session.handle)  # type: ignore[attr-defined]  # not in the binding's stubs


_modules: dict[Path, Module] = {}
_loading = threading.Lock()


def load_module(path: Path, env: Mapping[str, str], *, patience: float) -> Module:
    """The library of this path, loaded at the first call, with `env` set before.

    `patience` in seconds bounds the wait for another thread that loads it. Raises
    `EngineRefused`: `module_missing`, `module_not_loadable`, `module_env_conflict`; `EngineDown`.
    """
    if not path.is_file():
        raise EngineRefused(
            f"there is no PKCS #11 library {path}; install the vendor's client or correct"
            " module_path",
            code="module_missing",
        )
    real = path.resolve()
    if not _loading.acquire(timeout=patience):
        raise EngineDown(f"the library {path} hangs while it is loaded", code="module_hangs")
    try:
        module = _modules.get(real)
        if module is None:
            set_environment(env)
            module = _modules[real] = _load(real, env)
        else:
            module.check_environment(env)
        return module
    finally:
        _loading.release()


def set_environment(env: Mapping[str, str]) -> None:
    """Set what a library reads when it is loaded; names keep their case."""
    for name, value in env.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _load(path: Path, env: Mapping[str, str]) -> Module:
    try:
        return Module(path, env)
    except (OSError, AttributeError, PKCS11Error) as error:
        # the loader's own words: they name the missing library or the wrong architecture
        raise EngineRefused(
            f"{path} cannot be loaded as a PKCS #11 library: {error}; give module_path the"
            " vendor's library for this system",
            code="module_not_loadable",
        ) from error
