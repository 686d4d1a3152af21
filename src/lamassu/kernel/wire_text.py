"""Times and durations as JSON carries them.

Durations are spelt as the original does: `1y1d`, `14w2d`, `0s`; a year is 364 days (decision 13).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

ZERO_TIME = "0001-01-01T00:00:00Z"
"""What stands for no time: clients of the original never get a null."""

_NANOSECONDS = {
    "y": 364 * 86_400 * 10**9,
    "w": 7 * 86_400 * 10**9,
    "d": 86_400 * 10**9,
    "h": 3_600 * 10**9,
    "m": 60 * 10**9,
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "µs": 10**3,  # micro sign
    "μs": 10**3,  # Greek mu
    "ns": 1,
}
_OUTPUT_UNITS = ("y", "w", "d", "h", "m", "s", "ms", "us")
_RUN = re.compile(r"(\d*)(?:\.(\d*))?(ns|us|µs|μs|ms|[smhdwy])", re.ASCII)
_MAX_LENGTH = 64
_MAX_NANOSECONDS = 2**63 - 1  # what the original, and so its clients, can hold: 292 years


def parse_duration(text: str) -> timedelta:
    """The duration that `text` says, to the microsecond (towards zero).

    Raises `ValueError`, its text for people, for anything but signed runs of number and unit,
    and beyond 64 bits of nanoseconds.
    """
    if not text or len(text) > _MAX_LENGTH:
        raise ValueError("must be a duration such as 90d, 1y6w or 12h30m")
    sign = -1 if text[0] == "-" else 1
    runs = text[1:] if text[0] in "+-" else text
    nanoseconds = 0 if runs == "0" else _sum_of(runs)
    if nanoseconds > _MAX_NANOSECONDS:
        raise ValueError("must be a duration of less than 292 years")
    return timedelta(microseconds=sign * (nanoseconds // 1000))


def _sum_of(runs: str) -> int:
    total = position = 0
    while position < len(runs):
        run = _RUN.match(runs, position)
        if run is None or not (run[1] or run[2]):
            break
        whole, fraction, unit = run[1] or "0", run[2] or "", _NANOSECONDS[run[3]]
        total += int(whole) * unit + int(fraction or "0") * unit // 10 ** len(fraction)
        position = run.end()
    if position == 0 or position < len(runs):
        raise ValueError(
            "must be a duration: numbers with units of ns us ms s m h d w y, such as 12h30m"
        )
    return total


def format_duration(duration: timedelta) -> str:
    """The duration in the largest units first, `0s` for none."""
    microseconds = duration // timedelta(microseconds=1)
    if not microseconds:
        return "0s"
    parts = ["-"] if microseconds < 0 else []
    rest = abs(microseconds) * 1000
    for unit in _OUTPUT_UNITS:
        count, rest = divmod(rest, _NANOSECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC, ended by `Z`, without trailing zeros of the second."""
    text = time.astimezone(UTC).replace(tzinfo=None).isoformat()
    return f"{text.rstrip('0') if '.' in text else text}Z"


def format_time_or_zero(time: datetime | None) -> str:
    """The same, with `ZERO_TIME` for none."""
    return ZERO_TIME if time is None else format_time(time)
