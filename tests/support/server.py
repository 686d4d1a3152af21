"""A real installation and a real server process, as an operator has them."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

LAMASSU = (sys.executable, "-m", "lamassu.cli.main")


def free_port() -> int:
    """A TCP port of loopback that nobody has right now.

    Below those that the kernel hands to outgoing connections, of which another test might get
    this one before it is used.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def lamassu(*arguments: str, check: bool = True, **environment: str) -> str:
    """Run the command line and return what it printed."""
    done = subprocess.run(
        [*LAMASSU, *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **environment},
    )
    if check and done.returncode != 0:
        raise AssertionError(f"lamassu {arguments}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def command(*arguments: str) -> tuple[int, str]:
    """Run the command line in this process, which saves a second; its status and its words.

    Not within a running event loop.
    """
    from typer.testing import CliRunner

    from lamassu.cli.main import app

    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.output


def make_installation(directory: Path, *, database: str | None = None, key_type: str) -> Path:
    """`lamassu init` with ports of its own, all on loopback."""
    arguments = [
        "init",
        "--dir",
        str(directory),
        "--port",
        str(free_port()),
        "--http-port",
        str(free_port()),
        "--key-type",
        key_type,
    ]
    if database is not None:
        arguments += ["--database", database]
    lamassu(*arguments)
    return directory


@dataclass
class Server:
    """A running `lamassu serve`."""

    directory: Path
    port: int
    http_port: int
    internal_port: int
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    services: Sequence[str] = ()
    options: Sequence[str] = ()
    prefix: Sequence[str] = ()
    database: str | None = None  # a PostgreSQL URL; the embedded database if absent

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://localhost:{self.http_port}"

    @property
    def log(self) -> Path:
        return self.directory / "server.log"

    def start(self, *, wait: bool = True) -> None:
        """Start the process; with `wait`, until it says that it is ready."""
        command = [*self.prefix, *LAMASSU, "serve", "--dir", str(self.directory)]
        command += ["--port", str(self.port), "--http-port", str(self.http_port)]
        command += ["--internal-port", str(self.internal_port)]
        for service in self.services:
            command += ["--service", service]
        command += self.options
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds: float = 60) -> None:
        """Poll `/health/ready` until it answers 200."""
        assert self.process is not None
        deadline = time.monotonic() + seconds
        with self.client() as client:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    raise AssertionError(f"server ended: {self.log.read_text()[-4000:]}")
                try:
                    if client.get("/health/ready").status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        raise AssertionError(f"server not ready: {self.log.read_text()[-4000:]}")

    def kill(self) -> None:
        """SIGKILL the whole process group: nothing gets to tidy up."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, as an operator does."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
            raise AssertionError(f"did not stop: {self.log.read_text()[-4000:]}") from None
        self.process = None

    def admin(self) -> httpx.Client:
        """A REST client that shows the admin's certificate."""
        return self.client(self.directory / "admin.crt", self.directory / "admin.key")

    def client(self, certificate: Path | None = None, key: Path | None = None) -> httpx.Client:
        """An HTTPS client that trusts this installation and shows `certificate`, if given."""
        context = ssl.create_default_context(cafile=str(self.directory / "tls-ca.crt"))
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        return httpx.Client(base_url=self.url, verify=context, timeout=30)


def ports_of(directory: Path) -> tuple[int, int]:
    """The HTTPS and HTTP ports that init wrote into the configuration."""
    import yaml

    configuration = yaml.safe_load((directory / "config.yml").read_text())
    return configuration["http"]["port"], configuration["server"]["http_port"]


@contextmanager
def serving(directory: Path, *, elsewhere: bool = False, **options: object) -> Iterator[Server]:
    """A server of this installation, stopped at the end.

    `elsewhere`: on free ports, because a server of its twin has those of the configuration.
    """
    port, http_port = (free_port(), free_port()) if elsewhere else ports_of(directory)
    server = Server(directory, port, http_port, free_port(), **options)  # type: ignore[arg-type]
    server.start()
    try:
        yield server
    finally:
        server.stop()


def configure_engines(directory: Path, section: str) -> None:
    """Put a `crypto_engines:` section in place of the one that init wrote."""
    config = directory / "config.yml"
    text, replaced = re.subn(
        r"^crypto_engines:\n(?:  .*\n)+", lambda _: section, config.read_text(), flags=re.MULTILINE
    )
    assert replaced == 1
    config.write_text(text)


def copy_installation(source: Path, target: Path) -> Path:
    """A fresh copy of an installation with the embedded database; it must not be running."""
    return Path(shutil.copytree(source, target, symlinks=True))


def told_by(file: Path) -> bytes:
    """A file of `/proc`; nothing where even the process's own user may not read it, because it
    leaves no core."""
    try:
        return file.read_bytes()
    except PermissionError:
        return b""
