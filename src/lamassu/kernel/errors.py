"""The one tree of errors.

Each error carries a text for people (what happened and what to do next), a `code`
for programs and, where one is to blame, the `field`. None of them knows HTTP:
`lamassu.platform.http.errors` has the table of statuses.
"""

from __future__ import annotations

from collections.abc import Mapping


class LamassuError(Exception):
    """Root of every error that the platform raises on purpose."""

    default_code = "error"

    def __init__(
        self,
        text: str,
        *,
        code: str | None = None,
        field: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """`retry_after` is in seconds; set it where waiting helps."""
        super().__init__(text)
        self.text = text
        self.code = code or self.default_code
        self.field = field
        self.retry_after = retry_after


class Malformed(LamassuError):
    """The input cannot be read as what it claims to be."""

    default_code = "malformed"


class Deferred(LamassuError):
    """Nothing was done yet: the request is stored and waits for somebody's word."""

    default_code = "deferred"

    def __init__(
        self, text: str, *, code: str | None = None, document: Mapping[str, object], location: str
    ) -> None:
        """`document` is what waits, as the wire has it; `location` is where it can be asked."""
        super().__init__(text, code=code)
        self.document = document
        self.location = location


class RuleViolation(LamassuError):
    """The input reads well and breaks a rule."""

    default_code = "rule_violation"


class Unauthenticated(LamassuError):
    """Nobody known is asking."""

    default_code = "unauthenticated"


class Forbidden(LamassuError):
    """Somebody known is asking for what is not theirs."""

    default_code = "forbidden"


class NotFound(LamassuError):
    """The thing named does not exist."""

    default_code = "not_found"


class TooSlow(LamassuError):
    """The client took longer than it may."""

    default_code = "too_slow"


class Conflict(LamassuError):
    """The request contradicts the present state."""

    default_code = "conflict"


class RequestKeyReused(LamassuError):
    """The client's own name for a request stands for another request already."""

    default_code = "request_key_reused"


class WrongState(LamassuError):
    """The thing is not in a state in which this may be done to it."""

    default_code = "wrong_state"


class TooLarge(LamassuError):
    """The input is larger than it may be."""

    default_code = "too_large"


class TooMany(LamassuError):
    """The client asks more often than it may."""

    default_code = "too_many"


class Unavailable(LamassuError):
    """Something that the platform needs is out of reach for now."""

    default_code = "unavailable"
