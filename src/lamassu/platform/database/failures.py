"""What the drivers raise, told in the platform's own words. No vendor text passes."""

from __future__ import annotations

import re
import sqlite3

import asyncpg
import structlog
from sqlalchemy import event, exc
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine

from lamassu.kernel.errors import Conflict, LamassuError, Malformed, Unavailable

log = structlog.get_logger(__name__)

_OUT_OF_REACH = (
    "08",  # connection
    "25P03",  # idle in a transaction for too long
    "25006",  # read only: a standby after a failover
    "40",  # serialization failure, deadlock
    "53",  # disk full, out of memory, too many connections
    "55P03",  # a lock that did not come
    "57",  # cancelled, shut down, starting up
    "58",  # the server's own I/O
    "XX",  # the server's own faults, damaged data among them
)
_UNSTORABLE = "22"  # NUL in a text, a number too large: values that came through the checks
_UNIQUE = ("23505", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY")
_SQLITE_TABLE = re.compile(r"constraint failed: (\w+)\.")
_REFERENCE = ("23503", "SQLITE_CONSTRAINT_FOREIGNKEY")


def code_of(error: BaseException) -> str:
    """PostgreSQL's SQLSTATE or SQLite's error name; empty when the driver gave none."""
    cause: BaseException | None = error.orig if isinstance(error, exc.DBAPIError) else error
    while cause is not None:
        for name in ("sqlstate", "sqlite_errorname"):
            code = getattr(cause, name, None)
            if isinstance(code, str):
                return code
        cause = cause.__cause__
    return ""


def out_of_time(error: BaseException) -> bool:
    """Whether a statement was given up because it took too long."""
    return code_of(error) in ("57014", "SQLITE_INTERRUPT")


def table_of(conflict: Conflict) -> str:
    """The table whose key was in the way; empty when the driver does not tell."""
    error = conflict.__cause__
    if not isinstance(error, exc.IntegrityError):
        return ""
    name = getattr(error.orig, "table_name", None)  # asyncpg
    if isinstance(name, str):
        return name
    told = _SQLITE_TABLE.search(str(error.orig))
    return told[1] if told else ""


def unavailable(why: str) -> Unavailable:
    """`why` is for people: it names no host, no file and no statement."""
    return Unavailable(why, code="database_unavailable", retry_after=1)


def translated(error: BaseException) -> LamassuError | None:
    """What callers are told instead of `error`; `None` lets it pass as it is (a fault of ours)."""
    if isinstance(error, exc.TimeoutError):
        return unavailable("the database is busy: no connection became free in time; try again")
    if isinstance(error, exc.PendingRollbackError | exc.ResourceClosedError):
        return unavailable("the connection to the database was lost; try again")
    if not isinstance(error, exc.DBAPIError):
        return None
    verdict = _judged(error, code_of(error))
    if isinstance(verdict, Unavailable):
        log.warning("database_failure", code=code_of(error), error=str(error.orig))
    return verdict


def _judged(error: exc.DBAPIError, code: str) -> LamassuError | None:
    if isinstance(error, exc.IntegrityError):
        return _breach(code)
    if code.startswith(_UNSTORABLE) or _refused_by_driver(error):
        return Malformed("a value is outside what can be stored")
    if _out_of_reach(error, code):
        return unavailable("the database cannot do this now; try again")
    return None


def _out_of_reach(error: exc.DBAPIError, code: str) -> bool:
    if error.connection_invalidated or isinstance(error, exc.InterfaceError) or _stale(error):
        return True
    if code.startswith("SQLITE_"):
        return code != "SQLITE_ERROR"  # that one is a wrong statement
    return code.startswith(_OUT_OF_REACH)


def _breach(code: str) -> Conflict | None:
    if code in _UNIQUE:
        return Conflict("it exists already", code="already_exists")
    if code in _REFERENCE:
        return Conflict("something else refers to it", code="still_referenced")
    return None  # NOT NULL and CHECK: our own fault


def _refused_by_driver(error: exc.DBAPIError) -> bool:
    """asyncpg refuses what it cannot encode with an error that is also a `ValueError`."""
    return isinstance(error.orig, ValueError) or (
        error.orig is not None and isinstance(error.orig.__cause__, ValueError)
    )


def _stale(error: exc.DBAPIError) -> bool:
    """A prepared statement that a migration made invalid: the next try prepares it anew."""
    return "InvalidCachedStatement" in type(error.orig).__name__


def named(error: Exception) -> Exception:
    """What SQLAlchemy's execution would have raised for what a driver raised."""
    kind: type[exc.DBAPIError]
    if isinstance(error, sqlite3.IntegrityError | asyncpg.IntegrityConstraintViolationError):
        kind = exc.IntegrityError
    elif isinstance(error, sqlite3.OperationalError):
        kind = exc.OperationalError
    elif isinstance(error, sqlite3.Error | asyncpg.PostgresError):
        kind = exc.DBAPIError
    elif isinstance(error, asyncpg.InternalClientError):  # the connection broke at this moment
        kind = exc.InterfaceError
    elif isinstance(error, asyncpg.InterfaceError):
        kind = exc.DBAPIError if isinstance(error, ValueError) else exc.InterfaceError
    else:
        return _plain(error) or error
    return kind(None, None, error, hide_parameters=True)


def _plain(error: BaseException) -> LamassuError | None:
    """A driver's use of Python's own errors, which would pass for faults of ours."""
    if isinstance(error, UnicodeEncodeError | OverflowError):
        return Malformed("a value is outside what can be stored")
    if isinstance(error, OSError | TimeoutError):
        log.warning("database_failure", error=repr(error))
        return unavailable("the database does not answer; try again")
    return None


def name_raw_errors(engine: AsyncEngine) -> None:
    """Tell errors that the drivers raise as Python's own, which would pass for faults of ours.

    Lone surrogates and integers beyond 64 bits come through JSON; a server that has fallen
    silent, or a connection that breaks at the wrong moment, through the network.
    """

    @event.listens_for(engine.sync_engine, "handle_error")
    def _name(context: ExceptionContext) -> LamassuError | None:
        error = context.original_exception
        if isinstance(error, OSError | TimeoutError):
            context.is_disconnect = True
        return _plain(error)
