"""A process that holds keys leaves no core file."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, resource
from lamassu.platform.security.process import forbid_core_dumps
forbid_core_dumps()
PR_GET_DUMPABLE = 3
dumpable = ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
print(resource.getrlimit(resource.RLIMIT_CORE), dumpable)
"""


def test_core_dumps_are_off_for_files_and_for_pipes() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True)

    assert done.stdout.decode().split(") ") == ["(0, 0", "0\n"]
