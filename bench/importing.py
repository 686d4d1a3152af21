"""How fast an installation of the original is taken over, beside what limits it.

Fills the original's databases in a PostgreSQL of its own with that many devices, a certificate
each (real DER, all signed), and prints for the embedded database and for PostgreSQL:
certificates and devices per second, of a first run and of a repetition, and the most memory
that the command had. The limit, measured in the same run, is reading and verifying the same
certificates in a plain loop on one processor. Figures to read and explain, not a test.

    .venv/bin/python bench/importing.py --devices 20000
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cryptography import x509
from tests.support.original import ENGINES, Held, Original
from tests.support.pki import ec_key
from tests.support.postgres import PostgresCluster
from tests.support.server import LAMASSU, configure_engines, make_installation

from lamassu.kernel.x509.facts import certificate_facts

PAGE = 5000


async def fill(original: Original, devices: int) -> list[Held]:
    """The databases; the first page of certificates, to verify in a loop."""
    await original.create()
    await original.add_profile("devices")
    await original.add_ca("fleet-ca")
    await original.add_dms("plant", enrollment_ca="fleet-ca")
    key = ec_key()
    first: list[Held] = []
    for start in range(0, devices, PAGE):
        held = [
            original.issue("fleet-ca", f"pump-{number}", key=key)
            for number in range(start, min(start + PAGE, devices))
        ]
        await original.add_certificates(*held)
        rows = [
            original.device(one.facts.subject.common_name, [one], dms="plant", status="ACTIVE")
            for one in held
        ]
        await original.insert("devicemanager", "devices", *rows)
        first = first or held
        print(f"  {start + len(held)} of {devices} made", file=sys.stderr)
    return first


def limit(original: Original, held: list[Held]) -> float:
    """Certificates a second, read and verified."""
    ders = [one.made.der for one in held]
    issuer = original.cas["fleet-ca"].made.certificate
    began = time.perf_counter()
    for der in ders:
        certificate_facts(der)
        x509.load_der_x509_certificate(der).verify_directly_issued_by(issuer)
    return len(ders) / (time.perf_counter() - began)


def run(original: Original, directory: Path) -> tuple[float, float, float]:
    """Seconds for certificates and for devices, by the command's own lines; MiB of memory."""
    process = subprocess.Popen(
        [*LAMASSU, "import", "lamassu", original.server, "--dir", str(directory)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    ended: dict[str, float] = {}
    for line in process.stderr:
        ended[line.partition(":")[0].strip()] = time.perf_counter()
    assert process.wait() == 0
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    began = ended["CAs"]
    return ended["certificates"] - began, ended["devices"] - ended["certificates"], peak


def main() -> None:
    """Print the figures."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--devices", type=int, default=20_000)
    devices: int = arguments.parse_args().devices
    cluster = PostgresCluster(options=("max_wal_size = '2GB'",))
    with tempfile.TemporaryDirectory() as folder:
        cluster.create()
        cluster.start()
        try:
            measure(cluster, Path(folder), devices)
        finally:
            cluster.remove()


def measure(cluster: PostgresCluster, folder: Path, devices: int) -> None:
    """Both databases, twice each."""
    original = Original(cluster, folder / "old-keys")
    held = asyncio.run(fill(original, devices))
    most = limit(original, held)
    print(f"{devices} devices; a loop reads and verifies {most:.0f} certificates/s")
    for name in ("sqlite", "postgresql"):
        url = None
        if name == "postgresql":
            cluster.sql('CREATE DATABASE "ours"')
            url = cluster.url("ours")
        directory = make_installation(folder / name, database=url, key_type="ecdsa-p256")
        keys = folder / f"{name}-keys"
        keys.mkdir(mode=0o700)
        for file in original.keys.iterdir():
            (keys / file.name).write_bytes(file.read_bytes())
        configure_engines(directory, ENGINES.format(keys=keys))
        for what in ("first run", "repeated"):
            certificates, found, peak = run(original, directory)
            rate = devices / certificates
            print(
                f"{name:10} {what}: {rate:6.0f} certificates/s ({rate / most:.0%} of the loop),"
                f" {devices / found:6.0f} devices/s, {peak:.0f} MiB at most"
            )


if __name__ == "__main__":
    main()
