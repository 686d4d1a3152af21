"""Events from slice to slice within one process, read from the journals."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from lamassu.kernel.errors import Unavailable
from lamassu.platform.database import Database
from lamassu.platform.messaging.feed import BatchHandler, Feed, Handler, Patience
from lamassu.platform.messaging.follower import Follower, Step
from lamassu.platform.messaging.pulse import finish
from lamassu.platform.messaging.sequencer import Sequencer

_GRACE = 10.0  # seconds for handlers to end in order


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the relay is behind.

    `outbox`: per service, the age of the oldest record that has no place in its journal yet.
    `consumers`: per consumer and source, how many positions it has not looked at.
    """

    outbox: dict[str, timedelta]
    consumers: dict[tuple[str, str], int]


class EventBus:
    """Runs a sequencer for each service of the database, and a feed per consumer and source.

    At least once, in journal order per source; handlers are idempotent and re-read the owner's
    state, since an event is a hint. One consumer's trouble never holds up another.
    """

    def __init__(
        self,
        database: Database,
        *,
        patience: Patience | None = None,
        interval: float = 1.0,
    ) -> None:
        """`interval` in seconds: how long commits of other processes may go unseen."""
        self._database = database
        self._patience = patience or Patience()
        self._interval = interval
        self._feeds: list[Feed] = []
        self._followers: list[Follower] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._sequencers = {
            service: Sequencer(database, service, on_moved=self._wake_feeds, interval=interval)
            for service in database.services
        }
        database.on_records(self._wake_sequencer)

    def subscribe(
        self,
        *,
        consumer: str,
        service: str,
        sources: Sequence[str],
        types: Sequence[str] | None,
        handler: Handler,
        batch_handler: BatchHandler | None = None,
    ) -> None:
        """Have `handler` called for events of `sources`, from the first one ever on.

        `consumer` names the cursor for good; `service` keeps it. `types` are exact, `None` takes
        all. `batch_handler`, if given, is handed several events of one source at once, in order,
        and takes all of them or none; `handler` gets them one by one when it fails. Only before
        `start`.
        """
        unknown = {service, *sources} - set(self._database.services)
        if unknown:
            raise ValueError(f"consumer {consumer}: no database for {', '.join(sorted(unknown))}")
        if any(feed.consumer == consumer and feed.source in sources for feed in self._feeds):
            raise ValueError(f"consumer {consumer} is subscribed already")
        if self._tasks:
            raise RuntimeError("subscribe before the bus starts")
        self._feeds += [
            Feed(
                self._database,
                consumer=consumer,
                owner=service,
                source=source,
                types=types,
                handler=handler,
                batch_handler=batch_handler,
                patience=self._patience,
                interval=self._interval,
            )
            for source in sources
        ]

    def follow(self, name: str, source: str, step: Step) -> None:
        """Have `step` called whenever the journal of `source` grew, until it returns 0. It keeps
        its place itself. Only before `start`."""
        if self._tasks:
            raise RuntimeError("follow before the bus starts")
        self._followers.append(Follower(name, source, step, interval=self._interval))

    async def start(self) -> None:
        """Begin to sequence and to deliver, in the background. Once in its life."""
        if self._tasks:
            raise RuntimeError("the bus is running")
        self._tasks = [asyncio.create_task(worker.run()) for worker in self._workers()]

    async def stop(self) -> None:
        """Let handlers finish what they are at, and keep the cursors."""
        for worker in self._workers():
            worker.stop()
        tasks, self._tasks = self._tasks, []
        await finish(tasks, grace=_GRACE)
        for feed in self._feeds:
            try:
                await feed.save()
            except Unavailable:
                return  # handlers will be told once more

    async def drained(self) -> None:
        """Return when all that was committed so far, and all that its handlers did, is handled."""
        before = None
        while (now := self._progress()) != before:
            before = now
            for sequencer in self._sequencers.values():
                await sequencer.drain()
            for reader in self._readers():
                await reader.drain()

    async def lag(self) -> Lag:
        """Raises `Unavailable` when the database does not answer."""
        return Lag(
            {name: await each.waiting_for() for name, each in self._sequencers.items()},
            {(feed.consumer, feed.source): await feed.behind() for feed in self._feeds},
        )

    async def check(self, *, longest: timedelta = timedelta(seconds=60)) -> None:
        """Raises `Unavailable` unless the relay runs and is at most `longest` behind."""
        if not self._tasks or any(task.done() for task in self._tasks):
            raise Unavailable("the event relay is not running", code="relay_stopped")
        for service, sequencer in self._sequencers.items():
            if await sequencer.waiting_for() > longest:
                raise Unavailable(f"the event relay of {service} is behind", code="relay_behind")

    def _workers(self) -> list[Sequencer | Feed | Follower]:
        return [*self._sequencers.values(), *self._readers()]

    def _readers(self) -> list[Feed | Follower]:
        return [*self._feeds, *self._followers]

    def _progress(self) -> tuple[int, int]:
        return (
            sum(sequencer.moved for sequencer in self._sequencers.values()),
            sum(reader.handled for reader in self._readers()),
        )

    def _wake_sequencer(self, service: str) -> None:
        self._sequencers[service].wake()

    def _wake_feeds(self, service: str) -> None:
        for reader in self._readers():
            if reader.source == service:
                reader.wake()
