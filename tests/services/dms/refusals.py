"""Refusals, as a client tells them apart: the kind of the error and its code."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from lamassu.kernel.errors import LamassuError


async def refusal(attempt: Awaitable[object]) -> tuple[str, str]:
    """Kind and code of what `attempt` raises."""
    error = await refused(attempt)
    return type(error).__name__, error.code


async def refused(attempt: Awaitable[object]) -> LamassuError:
    with pytest.raises(LamassuError) as caught:
        await attempt
    return caught.value
