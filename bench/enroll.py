"""How fast a device is enrolled, beside what limits it.

Starts the real server for each database and issuing key and prints, each measured in the same
run: enrolments per second over a new mutual-TLS connection each and over kept ones; the floor
(an empty POST over the same connections); the bare signing rate of the issuing key on all
cores; the ratios; and the server's processor time per enrolment, with all that follows from it
off its path. Figures to read and explain, not a test.

    make bench                 or: .venv/bin/python bench/enroll.py --requests 2000
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from tests.support.est import Credential, bootstrap, make_dms
from tests.support.postgres import PostgresCluster
from tests.support.server import Server, make_installation, serving

HERE = Path(__file__).resolve().parent
KEY_TYPES = ("ecdsa-p256", "rsa-4096")
AT_ONCE = 16
SETTLING = 1.5  # seconds in which every event was sequenced and heard


@dataclass(frozen=True)
class Load:
    """A way to drive the server: over kept connections, or a new one for each request."""

    requests: int
    keep: bool


def processor_seconds(process: int) -> float:
    """What the process has used so far, all its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@cache
def load_generator() -> Path | None:
    """The Go load generator, built when Go is there."""
    binary = HERE / "bin" / "loadgen"
    if shutil.which("go") is None:
        return None
    subprocess.run(["go", "build", "-o", str(binary), "."], cwd=HERE / "loadgen", check=True)
    return binary


def drive(
    server: Server, credential: Credential, path: str, load: Load, *, prefix: str, expect: int
) -> dict[str, float]:
    """Send the load and return the generator's figures."""
    generator = load_generator()
    command = [sys.executable, str(HERE / "loadgen.py")] if generator is None else [str(generator)]
    command += ["-url", server.url + path, "-cert", str(credential.certificate_path)]
    command += ["-key", str(credential.key_path), "-ca", str(server.directory / "tls-ca.crt")]
    command += ["-n", str(load.requests), "-c", str(AT_ONCE), "-expect", str(expect)]
    command += [f"-keep={'true' if load.keep else 'false'}", "-prefix", prefix]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    if figures["failed"]:
        print(f"  {figures['failed']:.0f} failed: {figures['statuses']}", file=sys.stderr)
    return figures


def bare_signatures(key_type: str, seconds: float = 2.0) -> float:
    """Signatures per second of the bare library with one thread per core."""
    message = os.urandom(700)  # about a to-be-signed certificate
    counts: list[int] = []
    if key_type == "rsa-4096":
        rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=4096)

        def sign() -> None:
            rsa_key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    else:
        ec_key = ec.generate_private_key(ec.SECP256R1())

        def sign() -> None:
            ec_key.sign(message, ec.ECDSA(hashes.SHA256()))

    def work() -> None:
        count, end = 0, time.monotonic() + seconds
        while time.monotonic() < end:
            sign()
            count += 1
        counts.append(count)

    threads = [threading.Thread(target=work) for _ in range(os.cpu_count() or 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / seconds


@contextmanager
def cluster_for(wanted: list[str]) -> Iterator[PostgresCluster | None]:
    """A durable PostgreSQL of its own, where one is wanted."""
    if "postgresql" not in wanted:
        yield None
        return
    cluster = PostgresCluster(durable=True)
    try:
        cluster.create()
        cluster.start()
        yield cluster
    finally:
        cluster.remove()


def fresh_database(cluster: PostgresCluster, key_type: str) -> str:
    """The URL of a new database in the cluster."""
    name = f"bench_{key_type.replace('-', '_')}"
    cluster.sql(f"CREATE DATABASE {name}")
    return cluster.url(name)


def measure(server: Server, folder: Path, key_type: str, requests: int) -> None:
    """Print the figures of one server."""
    make_dms(server, "bench")
    credential = bootstrap(server, folder, "bench-bootstrap")
    enroll = "/.well-known/est/bench/simpleenroll"
    assert server.process is not None
    bare = bare_signatures(key_type)
    print(f"  {'bare signatures, all cores':<34}{bare:>9.0f}/s")
    for keep in (False, True):
        load = Load(requests, keep)
        label = "kept connections" if keep else "a new connection each"
        # 405 is the least that the server can say to an empty POST.
        floor = drive(server, credential, "/health/live", load, prefix="", expect=405)
        drive(server, credential, enroll, Load(64, keep), prefix=f"warm-{keep}", expect=200)
        time.sleep(SETTLING)
        used = processor_seconds(server.process.pid)
        done = drive(server, credential, enroll, load, prefix=f"device-{keep}", expect=200)
        time.sleep(SETTLING)
        used = (processor_seconds(server.process.pid) - used) / requests * 1000
        print(f"  {'floor, ' + label:<34}{floor['per_second']:>9.0f}/s")
        print(
            f"  {'enrolments, ' + label:<34}{done['per_second']:>9.0f}/s"
            f"   p50 {done['p50_ms']:.0f} ms, p99 {done['p99_ms']:.0f} ms"
            f"   {done['per_second'] / floor['per_second']:.0%} of the floor,"
            f" {done['per_second'] / bare:.0%} of bare signing, {used:.1f} ms of processor"
        )


def main() -> None:
    """Parse, start, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--database", action="append", choices=("sqlite", "postgresql"))
    parser.add_argument("--key-type", action="append", choices=KEY_TYPES)
    arguments = parser.parse_args()
    wanted = arguments.database or ["sqlite", "postgresql"]
    if load_generator() is None:
        print("Go is missing: a generator in Python drives, and figures are lower bounds.")
    print(f"{os.cpu_count()} cores, {AT_ONCE} at once, {arguments.requests} requests each")
    with cluster_for(wanted) as cluster:
        for name in wanted:
            for key_type in arguments.key_type or KEY_TYPES:
                with tempfile.TemporaryDirectory() as folder:
                    fresh = None
                    if name == "postgresql" and cluster is not None:
                        fresh = fresh_database(cluster, key_type)
                    directory = make_installation(
                        Path(folder) / "var", database=fresh, key_type=key_type
                    )
                    print(f"\n{name}, issuing CA {key_type}")
                    with serving(directory) as server:
                        measure(server, Path(folder), key_type, arguments.requests)


if __name__ == "__main__":
    main()
