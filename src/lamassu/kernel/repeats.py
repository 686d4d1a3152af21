"""Requests that may be repeated: what the edge and the transaction have to say to each other.

A request that came with a key of its client's runs under a `PendingAnswer`. The transaction that
does the deed leaves the event whose data is the answer; it finds the pending answer here and keeps
it with its rows, its event and its audit record: together or not at all. So a repeated request is
answered as the first one was, whatever happened between the commit and the answer, and of two
that come at once, to whichever process, the later one breaks the unique key and takes all back.

What is kept is what the event says, never more; events carry no secrets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from lamassu.kernel.records import Record


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What a request with a key was answered; `digest` tells the request from others."""

    digest: str
    status: int
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class PendingAnswer:
    """A request under way that came with a key.

    `answer` finds it among what a transaction leaves, or says that this is not the one that
    does the deed. It is kept once, while the request is `open`: what a request sets going beyond
    its own end is not its deed.
    """

    service: str
    id: str
    principal: str
    digest: str
    answer: Callable[[Sequence[Record]], KeptAnswer | None]
    open: bool = True
    kept: bool = False

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """While this lasts, transactions of this task and of those that it starts look for it."""
        token = _UNDER_WAY.set(self)
        try:
            yield
        finally:
            self.open = False
            _UNDER_WAY.reset(token)


_UNDER_WAY: ContextVar[PendingAnswer | None] = ContextVar("answer_under_way", default=None)


def pending_answer(service: str) -> PendingAnswer | None:
    """What a transaction of this service has to look for."""
    pending = _UNDER_WAY.get()
    if pending is None or pending.service != service or pending.kept or not pending.open:
        return None
    return pending
