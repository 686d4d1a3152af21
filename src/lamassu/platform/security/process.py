"""What the process asks of the operating system before it holds secrets."""

from __future__ import annotations

import ctypes
import resource
import sys

PR_SET_DUMPABLE = 4  # linux/prctl.h


def forbid_core_dumps() -> None:
    """Keep private keys out of core files; called at process start, before any is read.

    The limit stops dumps to a file. A `core_pattern` that pipes to a program ignores the limit,
    so that on Linux the process is also marked not dumpable.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def raise_open_file_limit(wanted: int) -> None:
    """Ask for room for `wanted` open files, as far as the hard limit lets us.

    A connection is a file; with the usual 1,024 the server would run out before its own bound.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
