"""Logs: structured, one line an event, secrets masked."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping

import structlog
from structlog.typing import Processor, WrappedLogger

__all__ = ["start_logging"]

MASK = "**********"
_SECRET_WORDS = ("password", "passphrase", "secret", "token", "pin", "private_key", "authorization")


def start_logging(level: str, form: str) -> None:
    """Log to standard error from `level` (`debug` … `error`) on, as `console` or `json` lines."""
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            mask_secrets,
            structlog.processors.format_exc_info if form == "json" else _unchanged,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # What libraries log by the standard library; their debug output may hold whole requests.
    logging.basicConfig(
        level=max(threshold, logging.INFO),
        stream=sys.stderr,
        format="%(asctime)s [%(levelname)s] %(name)s: %(message)s",
        force=True,
    )
    for chatty in ("httpx", "httpcore", "alembic", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def mask_secrets(
    logger: WrappedLogger, method: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    """Replace what is called like a secret; what is in texts, nobody may put there."""
    for key in event:
        if any(word in key.lower() for word in _SECRET_WORDS):
            event[key] = MASK
    return event


def _unchanged(
    logger: WrappedLogger, method: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    return event
