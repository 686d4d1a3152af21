"""`lamassu serve` that SIGKILLs itself at a chosen point, and a witness that counts events.

    CRASH_AT=after_issue:3     kill at the third time that the CA's commit has returned
    WITNESS=/path/to/file      append the id of every event that a consumer is handed

The product has no hook for this: the real classes are wrapped here, in the test's own process.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from lamassu.cli import main
from lamassu.kernel.records import StoredEvent
from lamassu.platform.messaging import EventBus
from lamassu.services.ca.storage.transaction import SqlCaTransaction
from lamassu.services.ca.usecases import CaService
from lamassu.services.devices.usecases import DeviceService
from lamassu.services.dms.usecases import DmsService

POINTS: dict[str, tuple[type, str, bool]] = {
    # name: class, method, whether the method's work is done first
    "before_issue": (CaService, "issue", False),
    "after_issue": (CaService, "issue", True),
    "before_bind": (DeviceService, "bind", False),
    "after_bind": (DeviceService, "bind", True),
    "within_spending": (SqlCaTransaction, "save_approval", True),
    "within_cascade": (SqlCaTransaction, "save_job", True),
    "after_create_ca": (CaService, "create_ca", True),
    "after_create_dms": (DmsService, "create", True),
    "after_ca_status": (CaService, "change_ca_status", True),
    "before_answer_enroll": (DmsService, "enroll", True),
    "before_answer_reenroll": (DmsService, "reenroll", True),
}
SOURCES = ("kms", "ca", "va", "dmsmanager", "devicemanager", "access")


def arm(point: str, count: int) -> None:
    """Make the `count`-th passage of a point the last thing this process does."""
    owner, name, after = POINTS[point]
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)
    passed = 0

    @functools.wraps(original)
    async def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal passed
        if not after:
            passed += 1
            if passed == count:
                os.kill(os.getpid(), signal.SIGKILL)
        result = await original(*arguments, **named)
        if after:
            passed += 1
            if passed == count:
                os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def add_witness(path: str) -> None:
    """Subscribe a consumer that writes down every event's id, durably, in order of arrival."""
    start = EventBus.start

    async def witness(event: StoredEvent) -> None:
        with open(path, "a", encoding="ascii") as file:
            file.write(f"{event.service} {event.position} {event.id} {event.type}\n")
            file.flush()
            os.fsync(file.fileno())

    @functools.wraps(start)
    async def wrapped(bus: EventBus) -> None:
        bus.subscribe(
            consumer="witness", service="alerts", sources=SOURCES, types=None, handler=witness
        )
        await start(bus)

    EventBus.start = wrapped  # type: ignore[method-assign]


if __name__ == "__main__":
    if "WITNESS" in os.environ:
        add_witness(os.environ["WITNESS"])
    if "CRASH_AT" in os.environ:
        name, _, number = os.environ["CRASH_AT"].partition(":")
        arm(name, int(number))
    main.main()
