"""The load generator where Go is missing: several processes, and still a lower bound.

Takes the flags of `bench/loadgen/main.go` and prints the same JSON line.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import multiprocessing
import ssl
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.est import make_csr, new_key

Result = list[tuple[float, str]]


def work(arguments: argparse.Namespace, bodies: list[bytes]) -> Result:
    """One process: its share of the requests, one after the other."""
    context = ssl.create_default_context(cafile=arguments.ca)
    context.load_cert_chain(arguments.cert, arguments.key)
    url = urlsplit(arguments.url)
    connection = http.client.HTTPSConnection(url.netloc, context=context, timeout=60)
    results: Result = []
    for body in bodies:
        begun = time.monotonic()
        try:
            connection.request("POST", url.path, body, {"Content-Type": "application/pkcs10"})
            answer = connection.getresponse()
            answer.read()
            label = str(answer.status)
        except OSError as error:
            label = f"error: {error}"
            connection.close()
        if arguments.keep != "true":
            connection.close()
        results.append((time.monotonic() - begun, label))
    return results


def main() -> None:
    """Parse, make the bodies, drive, print one JSON line."""
    parser = argparse.ArgumentParser()
    for flag in ("url", "cert", "key", "ca", "prefix", "keep"):
        parser.add_argument(f"-{flag}", default="")
    parser.add_argument("-n", type=int)
    parser.add_argument("-c", type=int)
    parser.add_argument("-expect", type=int)
    arguments = parser.parse_args()
    bodies = [
        base64.b64encode(make_csr(new_key(), f"{arguments.prefix}-{n}"))
        if arguments.prefix
        else b""
        for n in range(arguments.n)
    ]
    shares = [bodies[start :: arguments.c] for start in range(arguments.c)]
    begun = time.monotonic()
    with multiprocessing.Pool(arguments.c) as pool:
        parts = pool.starmap(work, [(arguments, share) for share in shares])
    seconds = time.monotonic() - begun
    results = [result for part in parts for result in part]
    times = sorted(took for took, _ in results)
    labels = [label for _, label in results]
    good = labels.count(str(arguments.expect))
    figures = {
        "requests": len(results),
        "failed": len(results) - good,
        "seconds": seconds,
        "per_second": good / seconds,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[len(times) * 99 // 100] * 1000,
        "statuses": {label: labels.count(label) for label in set(labels)},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
