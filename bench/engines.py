"""How fast each crypto engine signs through the KMS's guard, beside what limits it.

For each engine that can be started here and each kind of key it prints, measured in the same
run: signatures per second as the platform makes them (event loop, guard, stand-in), with one
and with many in flight; the limit, which is the bare library, the token or the service asked in
a plain loop; the ratio; and what it makes of two processors. `openssl speed` stands beside the
software keys. Figures to read and explain, not a test.

    make bench                 or: .venv/bin/python bench/engines.py --engines software,pkcs11
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.engines import KINDS, ComponentMissing, Stand

from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec, MessageType
from lamassu.services.kms.model import SCHEMES, PrivateKey, SignatureScheme
from lamassu.services.kms.ports import CryptoEngine
from lamassu.services.kms.usecases.guard import GuardedEngine
from lamassu.services.kms.usecases.signatures import signature_over

SPECS = {
    "rsa-2048": (KeySpec(KeyAlgorithm.RSA, 2048), "RSASSA_PKCS1_V1_5_SHA_256"),
    "rsa-3072": (KeySpec(KeyAlgorithm.RSA, 3072), "RSASSA_PKCS1_V1_5_SHA_256"),
    "rsa-4096": (KeySpec(KeyAlgorithm.RSA, 4096), "RSASSA_PKCS1_V1_5_SHA_256"),
    "ecdsa-p256": (KeySpec(KeyAlgorithm.ECDSA, 256), "ECDSA_SHA_256"),
    "ecdsa-p384": (KeySpec(KeyAlgorithm.ECDSA, 384), "ECDSA_SHA_384"),
    "ed25519": (KeySpec(KeyAlgorithm.ED25519, 256), "ED25519"),
    "ml-dsa-65": (KeySpec(KeyAlgorithm.ML_DSA, 65), "ML_DSA_65"),
}
MESSAGE = hashlib.sha256(b"a certificate's bytes").digest() * 20
IN_FLIGHT = 32
OPENSSL_NAMES = {
    "rsa-2048": "rsa2048",
    "rsa-3072": "rsa3072",
    "rsa-4096": "rsa4096",
    "ecdsa-p256": "ecdsap256",
    "ecdsa-p384": "ecdsap384",
    "ed25519": "ed25519",
}


def rate_of(call: Callable[[], object], *, threads: int, seconds: float) -> float:
    """Calls per second of a plain loop in each of some threads."""
    counts = [0] * threads
    over = threading.Event()

    def loop(index: int) -> None:
        while not over.is_set():
            call()
            counts[index] += 1

    workers = [threading.Thread(target=loop, args=(index,)) for index in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    time.sleep(seconds)
    over.set()
    for worker in workers:
        worker.join()
    return sum(counts) / (time.perf_counter() - started)


async def guarded_rate(
    engine: GuardedEngine, key_id: str, scheme: SignatureScheme, *, in_flight: int, seconds: float
) -> float:
    """Signatures per second through the guard, so many callers at once."""
    count = 0
    over = time.perf_counter() + seconds

    def build(key: PrivateKey) -> bytes:
        return signature_over(key, scheme, MESSAGE, MessageType.RAW)

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < over:
            await engine.use(key_id, build, purpose=KeyPurpose.GENERAL)
            count += 1

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(in_flight)))
    return count / (time.perf_counter() - started)


def openssl_rate(name: str, *, cores: int, seconds: float) -> float | None:
    """What the system's OpenSSL says of itself on so many cores; another version than ours."""
    if name not in OPENSSL_NAMES or shutil.which("openssl") is None:
        return None
    command = ["openssl", "speed", "-seconds", str(max(1, round(seconds))), "-mr"]
    command += ["-multi", str(cores)] if cores > 1 else []
    done = subprocess.run(
        [*command, OPENSSL_NAMES[name]], capture_output=True, text=True, check=False
    )
    found = re.findall(r"^\+F\d:\d+:\d+:(?:[A-Za-z]\w*:)?([0-9.]+):", done.stdout, re.MULTILINE)
    return float(found[-1]) if found else None


def measure(kind: str, stand: Stand, seconds: float, names: list[str]) -> None:
    """One engine's table."""
    engine: CryptoEngine = stand.engine()
    engine.check()  # a token says only then what it can
    facts = engine.facts()
    print(f"\n{kind}: {facts.provider} {facts.name}, {engine.limits.workers} at once", flush=True)
    print(
        f"  {'key':<12}{'one caller':>12}{f'{IN_FLIGHT} callers':>12}"
        f"{'limit, one':>12}{'limit, many':>12}{'ratio':>14}{'openssl 1/2':>16}"
    )
    for name in names:
        spec, scheme_name = SPECS[name]
        if spec.size not in facts.supported.get(spec.algorithm, ()):
            continue
        made = engine.generate(spec, purpose=KeyPurpose.GENERAL)
        scheme = SCHEMES[scheme_name]
        # the limit: what the stand knows of its component, else the bare key in a plain loop
        bare = getattr(stand, "bare_signer", None)
        if bare is not None:
            call = bare(made.key_id, scheme, MESSAGE)
        else:
            key = engine.private_key(made.key_id, purpose=KeyPurpose.GENERAL)

            def call(key: PrivateKey = key, scheme: SignatureScheme = scheme) -> object:
                return signature_over(key, scheme, MESSAGE, MessageType.RAW)

        many = min(IN_FLIGHT, engine.limits.workers)
        native = getattr(stand, "native_rate", None)
        if native is not None:
            limits = [native(made.key_id, scheme, MESSAGE, n, seconds) for n in (1, many)]
        else:
            limits = [rate_of(call, threads=n, seconds=seconds) for n in (1, many)]
        ours = []
        for in_flight in (1, IN_FLIGHT):
            guarded = GuardedEngine(engine)
            ours.append(
                asyncio.run(
                    guarded_rate(guarded, made.key_id, scheme, in_flight=in_flight, seconds=seconds)
                )
            )
        speed = ""
        if kind == "software":
            rates = [openssl_rate(name, cores=n, seconds=seconds) for n in (1, os.cpu_count() or 1)]
            speed = "/".join("-" if one is None else f"{one:.0f}" for one in rates)
        ratio = f"{ours[0] / limits[0]:.0%}/{ours[1] / limits[1]:.0%}"
        print(
            f"  {name:<12}{ours[0]:>12.0f}{ours[1]:>12.0f}{limits[0]:>12.0f}{limits[1]:>12.0f}"
            f"{ratio:>14}{speed:>16}",
            flush=True,
        )
        engine.delete(made.key_id)
    engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--engines", default=",".join(KINDS), help="kinds, with commas")
    parser.add_argument("--keys", default=",".join(SPECS), help="kinds of keys, with commas")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    arguments = parser.parse_args()
    sys.setswitchinterval(0.0005)  # as `lamassu serve` does
    for kind in arguments.engines.split(","):
        with tempfile.TemporaryDirectory() as folder:
            try:
                with KINDS[kind](Path(folder)) as stand:
                    measure(kind, stand, arguments.seconds, arguments.keys.split(","))
            except ComponentMissing as missing:
                print(f"\n{kind}: {missing}")


if __name__ == "__main__":
    main()
