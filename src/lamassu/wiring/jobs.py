"""What the platform does by itself, each at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import LamassuError
from lamassu.wiring.platform import Platform

JOB_INTERVAL = 60.0  # seconds
WITNESS_INTERVAL = 5.0

log = structlog.get_logger(__name__)


@asynccontextmanager
async def running_jobs(platform: Platform) -> AsyncIterator[None]:
    """Cascades and samples for the linters as they come, the log's witnesses every few seconds,
    expiry as configured, all else each minute."""
    clock = SystemClock()

    async def refresh() -> object:
        return await platform.va.refresh_due(clock.now())

    async def filters() -> None:
        while True:  # apart from the others: a large one takes its time
            await _attempt("refresh_filters", lambda: platform.va.refresh_filters(clock.now()))
            await asyncio.sleep(JOB_INTERVAL)

    async def every_minute() -> None:
        while True:
            await _attempt("refresh_crls", refresh)
            await _attempt("reap_unbound", platform.dms.reap)
            await _attempt("expire_approvals", platform.ca.approvals.expire_overdue)
            await _attempt("fold_counts", platform.ca.fold_counts)
            await _attempt("forget_answers", platform.answers.purge)
            await _attempt("forget_refusals", platform.ca.requests.forget_old)
            await asyncio.sleep(JOB_INTERVAL)

    async def cascades() -> None:
        while True:
            await _attempt("revoke_cascades", platform.ca.run_jobs)
            with suppress(TimeoutError):
                await asyncio.wait_for(platform.ca.jobs_pending.wait(), JOB_INTERVAL)
            platform.ca.jobs_pending.clear()

    async def expiry() -> None:
        monitoring = platform.settings.ca.certificate_monitoring_job
        while monitoring.enabled:
            await _attempt("monitor_expiry", platform.ca.expiry.run)
            await asyncio.sleep(monitoring.period.total_seconds())

    async def witnesses() -> None:
        while True:
            await _attempt("gather_cosignatures", platform.issuance_log.gather)
            await asyncio.sleep(WITNESS_INTERVAL)

    async def linters() -> None:
        while True:
            await platform.ca.sampled_lint.wait()
            await _attempt("lint_samples", platform.ca.sampled_lint.read_all)

    jobs = (every_minute, filters, cascades, witnesses, linters, expiry)
    tasks = [asyncio.create_task(job()) for job in jobs]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _attempt(name: str, job: Callable[[], Awaitable[object]]) -> None:
    try:
        await job()
    except LamassuError as error:
        log.warning("job_failed", job=name, reason=error.text)
    except Exception:
        # The next round tries again; a job must not end the platform.
        log.exception("job_failed", job=name)
