"""A PostgreSQL cluster of its own for a test run, from the distribution's package."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PACKAGED = Path("/usr/lib/postgresql")
USER = "lamassu"


class PostgresMissing(Exception):
    """The text says what is missing and how to get it."""


def find_binaries() -> Path:
    """The newest installed version's folder. Raises `PostgresMissing`."""
    found = sorted(PACKAGED.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise PostgresMissing("PostgreSQL is not installed (apt-get install postgresql)")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        raise PostgresMissing("root cannot run PostgreSQL without setpriv (util-linux)")
    return found[-1].parent


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class PostgresCluster:
    """Started by `start`; listens on loopback only and trusts whoever comes.

    `durable` keeps fsync on, for tests that kill it. `options` are lines of postgresql.conf.
    """

    durable: bool = False
    options: tuple[str, ...] = ()
    binaries: Path = field(default_factory=find_binaries)
    port: int = field(default_factory=free_port)
    root: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="lamassu-postgres-")))
    process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.root / "data"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}?sslmode=disable"

    def create(self) -> None:
        """Make the data directory."""
        if os.geteuid() == 0:
            shutil.chown(self.root, "postgres", "postgres")
        self._run(
            "initdb", "-D", self.data, "-U", USER, "--auth=trust", "--no-sync",
            "--encoding=UTF8", "--locale=C.UTF-8",
        )  # fmt: skip
        sync = "on" if self.durable else "off"
        lines = (
            "listen_addresses = '127.0.0.1'",
            f"port = {self.port}",
            f"unix_socket_directories = '{self.root}'",
            f"fsync = {sync}",
            f"full_page_writes = {sync}",
            f"synchronous_commit = {sync}",
            "max_connections = 200",
            "shared_buffers = '64MB'",
            "autovacuum = off",
            *self.options,
        )
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write("\n".join(lines) + "\n")

    def start(self) -> None:
        """Run the server and return when it answers. Raises `RuntimeError` with its log."""
        log = (self.root / "log").open("ab")
        self.process = subprocess.Popen(
            [*self._as_user(), str(self.binaries / "postgres"), "-D", str(self.data)],
            stdout=log,
            stderr=log,
        )
        log.close()
        deadline = time.monotonic() + 30
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.root / "log").read_text(errors="replace")[-4000:])
            time.sleep(0.05)

    def stop(self, *, kill: bool = False) -> None:
        """A fast shutdown, or with `kill` the end of a machine that lost its power."""
        process, self.process = self.process, None
        if process is None:
            return
        if not kill:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
            return
        children = _children(process.pid)
        process.kill()  # first, or it would start new ones
        process.wait(timeout=30)
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        # the memory that they shared must be free before the next start
        deadline = time.monotonic() + 30
        while any(map(_lives, children)) and time.monotonic() < deadline:
            time.sleep(0.01)

    def remove(self) -> None:
        """Stop it and delete everything."""
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def processes(self) -> list[int]:
        """The server's process and those that it has forked so far."""
        assert self.process is not None
        return [self.process.pid, *_children(self.process.pid)]

    def sql(self, statement: str) -> None:
        """Run a statement as the cluster's owner."""
        self._run("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url())

    def _answers(self) -> bool:
        ready = subprocess.run(
            [
                str(self.binaries / "pg_isready"),
                "-q",
                "-h",
                "127.0.0.1",
                "-p",
                str(self.port),
                "-U",
                USER,
            ],
            check=False,
        )
        return ready.returncode == 0

    def _run(self, program: str, *arguments: object) -> None:
        command = [*self._as_user(), str(self.binaries / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, check=False, cwd="/")
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace"))

    def _as_user(self) -> list[str]:
        """PostgreSQL refuses to run as root."""
        if os.geteuid() != 0:
            return []
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.exists() else []
