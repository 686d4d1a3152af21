"""What is called in a vendor's library without the binding.

C_Initialize and C_Login, because the binding calls them otherwise than this engine may (see
`module.py`); C_SignInit and C_Sign, because one signature is all that a CA does a thousand times a
second: prepared arguments and no question for the length save a tenth of a P-256 signature, and
one of three waits for the interpreter's lock.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pkcs11 import exceptions as p11

# PKCS #11 v2.40: return values (§5.1), pkcs11t.h
CKR_OK = 0x000
ERRORS: Mapping[int, type[p11.PKCS11Error]] = {
    0x002: p11.HostMemory,
    0x003: p11.SlotIDInvalid,
    0x005: p11.GeneralError,
    0x006: p11.FunctionFailed,
    0x007: p11.ArgumentsBad,
    0x020: p11.DataInvalid,
    0x021: p11.DataLenRange,
    0x030: p11.DeviceError,
    0x031: p11.DeviceMemory,
    0x032: p11.DeviceRemoved,
    0x050: p11.FunctionCancelled,
    0x054: p11.FunctionNotSupported,
    0x060: p11.KeyHandleInvalid,
    0x062: p11.KeySizeRange,
    0x063: p11.KeyTypeInconsistent,
    0x070: p11.MechanismInvalid,
    0x071: p11.MechanismParamInvalid,
    0x082: p11.ObjectHandleInvalid,
    0x090: p11.OperationActive,
    0x091: p11.OperationNotInitialized,
    0x0A0: p11.PinIncorrect,
    0x0A1: p11.PinInvalid,
    0x0A2: p11.PinLenRange,
    0x0A3: p11.PinExpired,
    0x0A4: p11.PinLocked,
    0x0B0: p11.SessionClosed,
    0x0B1: p11.SessionCount,
    0x0B3: p11.SessionHandleInvalid,
    0x0E0: p11.TokenNotPresent,
    0x0E1: p11.TokenNotRecognised,
    0x100: p11.UserAlreadyLoggedIn,
    0x101: p11.UserNotLoggedIn,
    0x102: p11.UserPinNotInitialized,
    0x104: p11.AnotherUserAlreadyLoggedIn,
    0x105: p11.UserTooManyTypes,
    0x190: p11.TokenNotPresent,  # CKR_CRYPTOKI_NOT_INITIALIZED: all sessions are gone
}

_WORD = ctypes.c_ulong
# no argument types: arguments are prepared words and references, taken as they are
_FUNCTION = ctypes.CFUNCTYPE(_WORD)


class InitializeArguments(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_ = (("mutexes", ctypes.c_void_p * 4), ("flags", _WORD), ("reserved", ctypes.c_void_p))


class SessionInfo(ctypes.Structure):
    """CK_SESSION_INFO."""

    _fields_ = (("slot_id", _WORD), ("state", _WORD), ("flags", _WORD), ("device_error", _WORD))


class PssParameters(ctypes.Structure):
    """CK_RSA_PKCS_PSS_PARAMS."""

    _fields_ = (("hash", _WORD), ("mgf", _WORD), ("salt_length", _WORD))


class MechanismArgument(ctypes.Structure):
    """CK_MECHANISM; its parameter must outlive it."""

    _fields_ = (("kind", _WORD), ("parameter", ctypes.c_void_p), ("length", _WORD))


class Functions(ctypes.Structure):
    """The head of CK_FUNCTION_LIST."""

    _fields_ = (
        ("version", ctypes.c_ubyte * 2),
        ("C_Initialize", _FUNCTION),
        ("C_Finalize", _FUNCTION),
        ("to_13", ctypes.c_void_p * 13),
        ("C_GetSessionInfo", _FUNCTION),
        ("to_17", ctypes.c_void_p * 2),
        ("C_Login", _FUNCTION),
        ("to_41", ctypes.c_void_p * 23),
        ("C_SignInit", _FUNCTION),
        ("C_Sign", _FUNCTION),
    )


class Desk:
    """What a signature needs room for; one thread at a time writes here."""

    __slots__ = ("length", "length_given", "session", "signature")

    ROOM = 4096  # bytes: no RSA key of a CA makes more

    def __init__(self, session: int) -> None:
        self.session = _WORD(session)
        self.signature = ctypes.create_string_buffer(self.ROOM)
        self.length = _WORD()
        self.length_given = _WORD()


Reference = Any  # ctypes has no name for what `byref` returns


def load_functions(path: Path) -> Functions:
    """Raises `OSError` (the library cannot be loaded) and `AttributeError` (it is another kind)."""
    library = ctypes.CDLL(str(path))
    listed = ctypes.POINTER(Functions)()
    answer = library.C_GetFunctionList(ctypes.byref(listed))
    if answer != CKR_OK:
        raise OSError(f"C_GetFunctionList answered {answer:#x}")
    return listed.contents


def check(function: str, answer: int) -> None:
    """Raise what the binding would raise."""
    if answer != CKR_OK:
        raise ERRORS.get(answer, p11.PKCS11Error)(f"{function} answered {answer:#x}")


def key_handle(handle: int) -> ctypes.c_ulong:
    """A key as `sign` takes it."""
    return _WORD(handle)


def mechanism_reference(kind: int, pss: tuple[int, int, int] | None) -> Reference:
    """A mechanism as `sign` takes it, with all that it refers to."""
    argument = MechanismArgument(kind, None, 0)
    if pss is not None:
        parameters = PssParameters(*pss)
        argument.parameter = ctypes.cast(ctypes.byref(parameters), ctypes.c_void_p)
        argument.length = ctypes.sizeof(parameters)
        argument.kept = parameters
    return ctypes.byref(argument)


class Signing:
    """C_SignInit and C_Sign of one library."""

    __slots__ = ("_init", "_sign")

    def __init__(self, functions: Functions) -> None:
        self._init = functions.C_SignInit
        self._sign = functions.C_Sign

    def __call__(self, desk: Desk, key: ctypes.c_ulong, mechanism: Reference, data: bytes) -> bytes:
        """Raises as the binding. After a failure the session is not to be used again."""
        answer = self._init(desk.session, mechanism, key)
        if answer != CKR_OK:
            check("C_SignInit", answer)
        desk.length.value = Desk.ROOM
        desk.length_given.value = len(data)
        answer = self._sign(
            desk.session, data, desk.length_given, desk.signature, ctypes.byref(desk.length)
        )
        if answer != CKR_OK:
            check("C_Sign", answer)
        made: Any = desk.signature[: desk.length.value]  # of characters, so these are bytes
        return bytes(made)
