"""Logs: structured, one line an event, secrets masked."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TextIO, cast

import structlog
from structlog.typing import Processor, WrappedLogger

__all__ = ["start_logging"]

MASK = "**********"
_TRACES = frozenset({"traceback", "exception", "stack"})
_SECRET_WORDS = ("password", "passphrase", "secret", "token", "pin", "private_key", "authorization")


class StandardError(io.TextIOBase):
    """Whatever standard error is when a line is written: it may be replaced meanwhile."""

    def write(self, text: str, /) -> int:
        """Pass it on."""
        return sys.stderr.write(text)

    def flush(self) -> None:
        """Pass it on."""
        sys.stderr.flush()


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
    render = [
        mask_secrets,
        structlog.processors.format_exc_info if form == "json" else escape_commands,
        renderer,
    ]
    describe: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[*describe, *render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", StandardError())),
        cache_logger_on_first_use=True,
    )
    _start_standard_logging(threshold, describe, render)


def _start_standard_logging(
    threshold: int, describe: Sequence[Processor], render: Sequence[Processor]
) -> None:
    """Libraries log by the standard library; their lines become like ours."""
    handler = logging.StreamHandler(StandardError())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*describe, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    # Their debug output may hold whole requests.
    logging.basicConfig(level=max(threshold, logging.INFO), handlers=[handler], force=True)
    for chatty in ("httpx", "httpcore", "alembic", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def mask_secrets(
    logger: WrappedLogger, method: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    """Replace what is called like a secret, at any depth; in texts nobody may put one."""
    for key, value in event.items():
        event[key] = _masked(key, value)
    return event


def _masked(key: str, value: object) -> object:
    if any(word in key.lower() for word in _SECRET_WORDS):
        return MASK
    if isinstance(value, Mapping):
        return {inner: _masked(str(inner), one) for inner, one in value.items()}
    return value


def escape_commands(
    logger: WrappedLogger, method: str, event: MutableMapping[str, object]
) -> MutableMapping[str, object]:
    """Let no text forge a line or command the terminal that shows it; traces keep their lines.

    JSON escapes by itself, and the console what is no text.
    """
    for key, value in event.items():
        if key not in _TRACES and isinstance(value, str) and not value.isprintable():
            event[key] = "".join(c if c.isprintable() else _escaped(c) for c in value)
    return event


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
