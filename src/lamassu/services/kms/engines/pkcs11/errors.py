"""What a token answers, as our errors: one table, and what means that the token was lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pkcs11 import exceptions as p11

from lamassu.kernel.errors import LamassuError, RuleViolation, Unavailable
from lamassu.services.kms.ports import EngineDown, EngineRefused

# The session or the token is gone: all sessions are dropped and one new login is tried.
LOST: tuple[type[p11.PKCS11Error], ...] = (
    p11.SessionHandleInvalid,
    p11.SessionClosed,
    p11.DeviceRemoved,
    p11.DeviceError,
    p11.TokenNotPresent,
    p11.TokenNotRecognised,
    p11.SlotIDInvalid,
    p11.UserNotLoggedIn,
    p11.GeneralError,
    p11.FunctionFailed,
)

# A handle that was found earlier stands for nothing any more: the key is looked for again.
STALE: tuple[type[p11.PKCS11Error], ...] = (p11.KeyHandleInvalid, p11.ObjectHandleInvalid)

# A template that the token does not take, where a key is brought in from outside.
NOT_TAKEN: tuple[type[p11.PKCS11Error], ...] = (
    p11.AttributeReadOnly,
    p11.AttributeTypeInvalid,
    p11.AttributeValueInvalid,
    p11.ArgumentsBad,
    p11.FunctionNotSupported,
    p11.FunctionRejected,
    p11.KeySizeRange,
    p11.MechanismInvalid,
    p11.MechanismParamInvalid,
    p11.TemplateIncomplete,
    p11.TemplateInconsistent,
    p11.TokenWriteProtected,
    p11.SessionReadOnly,
    p11.UnwrappingKeySizeRange,
    p11.UnwrappingKeyTypeInconsistent,
    p11.WrappedKeyInvalid,
    p11.WrappedKeyLenRange,
)


@dataclass(frozen=True, slots=True)
class _Meaning:
    kind: type[LamassuError]
    code: str
    text: str


_LOST = _Meaning(
    EngineDown, "token_lost", "the token is out of reach: see that it is connected and powered"
)
_BUSY = _Meaning(EngineDown, "token_exhausted", "the token is out of memory or sessions")
_CANNOT = "the token cannot do that"

TABLE: Mapping[type[p11.PKCS11Error], _Meaning] = {
    **dict.fromkeys(LOST, _LOST),
    p11.PinIncorrect: _Meaning(
        EngineRefused, "pin_refused", "the token refused the PIN; it is not sent again"
    ),
    p11.PinInvalid: _Meaning(
        EngineRefused, "pin_refused", "the token refused the PIN; it is not sent again"
    ),
    p11.PinLenRange: _Meaning(
        EngineRefused, "pin_refused", "the PIN is too short or too long for this token"
    ),
    p11.PinLocked: _Meaning(
        EngineRefused,
        "pin_locked",
        "the token has locked the user's PIN after wrong ones; its security officer must reset it",
    ),
    p11.PinExpired: _Meaning(
        EngineRefused, "pin_expired", "the user's PIN has expired; set a new one on the token"
    ),
    p11.UserPinNotInitialized: _Meaning(
        EngineRefused,
        "pin_not_initialized",
        "the token has no user PIN yet; its security officer must set one",
    ),
    p11.AnotherUserAlreadyLoggedIn: _Meaning(
        EngineDown,
        "token_in_use",
        "the security officer is logged in to the token in this process",
    ),
    p11.UserTooManyTypes: _Meaning(
        EngineDown, "token_in_use", "another kind of user is logged in to the token"
    ),
    p11.SessionCount: _BUSY,
    p11.DeviceMemory: _BUSY,
    p11.HostMemory: _BUSY,
    p11.TokenWriteProtected: _Meaning(
        EngineRefused, "token_write_protected", "the token is write-protected: no keys can be made"
    ),
    p11.SessionReadOnly: _Meaning(
        EngineRefused, "token_write_protected", "the token is write-protected: no keys can be made"
    ),
    p11.MechanismInvalid: _Meaning(RuleViolation, "unsupported_algorithm", _CANNOT),
    p11.MechanismParamInvalid: _Meaning(RuleViolation, "unsupported_algorithm", _CANNOT),
    p11.KeyTypeInconsistent: _Meaning(RuleViolation, "unsupported_algorithm", _CANNOT),
    p11.FunctionNotSupported: _Meaning(RuleViolation, "unsupported_algorithm", _CANNOT),
    p11.DomainParamsInvalid: _Meaning(RuleViolation, "unsupported_key", _CANNOT),
    p11.KeySizeRange: _Meaning(RuleViolation, "unsupported_key", _CANNOT),
    p11.DataLenRange: _Meaning(RuleViolation, "bad_digest", "the token refuses the digest"),
    p11.DataInvalid: _Meaning(RuleViolation, "bad_digest", "the token refuses the digest"),
    p11.KeyHandleInvalid: _Meaning(Unavailable, "key_lost", "the key is gone from the token"),
    p11.ObjectHandleInvalid: _Meaning(Unavailable, "key_lost", "the key is gone from the token"),
    p11.KeyNotWrappable: _Meaning(
        RuleViolation,
        "key_not_wrappable",
        "the token does not wrap this key: it must be made while `backup: wrapped` is set, the"
        " backup key must be trusted by the security officer, and some tokens wrap no Ed25519 keys",
    ),
    p11.KeyUnextractable: _Meaning(
        RuleViolation,
        "key_not_wrappable",
        "the key was made without `backup: wrapped` and never leaves its token",
    ),
    p11.WrappedKeyInvalid: _Meaning(
        RuleViolation,
        "wrapped_key_invalid",
        "the wrapped key does not open: it is damaged or was wrapped under another key",
    ),
    p11.WrappedKeyLenRange: _Meaning(
        RuleViolation, "wrapped_key_invalid", "the wrapped key is damaged: its length is impossible"
    ),
}


def translate(error: p11.PKCS11Error, engine_id: str) -> LamassuError:
    """Our error for a token's answer. Only the answer's name passes, never a vendor's text."""
    meaning = _meaning(type(error))
    if meaning is None:
        name = type(error).__name__ if type(error) is not p11.PKCS11Error else "an unknown error"
        return EngineDown(
            f"the token of engine {engine_id} answered {name}; see the token's own log",
            code="token_failed",
        )
    return meaning.kind(f"engine {engine_id}: {meaning.text}", code=meaning.code)


def _meaning(kind: type[BaseException]) -> _Meaning | None:
    for ancestor in kind.__mro__:
        if issubclass(ancestor, p11.PKCS11Error) and ancestor in TABLE:
            return TABLE[ancestor]
    return None
