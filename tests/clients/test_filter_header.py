"""The C header for devices says of every certificate what the platform's own reader says."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from lamassu.kernel.revocation_filter import (
    Standing,
    Verdict,
    build_delta,
    build_full,
    judge,
    parse_filter,
)
from tests.kernel.test_revocation_filter import (
    AFTER,
    BEFORE,
    FACTS,
    LATER,
    NOW,
    certificates,
    salts,
)
from tests.support.missing import missing_component

ROOT = Path(__file__).resolve().parents[2]
VERDICTS = {"0": Verdict.GOOD, "1": Verdict.REVOKED, "2": Verdict.NOT_COVERED}
SIGNATURE = b"signed"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The header in a program, with the compiler watching its every access to memory."""
    if shutil.which("gcc") is None:
        missing_component("there is no C compiler (apt-get install gcc libc6-dev)")
    built = tmp_path_factory.mktemp("header") / "driver"
    source = Path(__file__).with_name("filter_driver.c")
    flags = "-std=c99 -pedantic -Wall -Wextra -Werror -O2 -fsanitize=address,undefined"
    command = ["gcc", *flags.split(), "-fno-sanitize-recover=all", f"-I{ROOT / 'clients' / 'c'}"]
    subprocess.run([*command, str(source), "-o", str(built)], check=True)
    return built


def asked(driver: Path, folder: Path, contents: list[bytes], lines: list[str]) -> list[str]:
    paths = []
    for number, content in enumerate(contents):
        path = folder / f"{number}.filter"
        path.write_bytes(content)
        paths.append(str(path))
    now = str(int(NOW.timestamp()))
    done = subprocess.run(
        [str(driver), FACTS.issuer.hex(), now, SIGNATURE.decode(), *paths],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def line_of(standing: Standing) -> str:
    serial = standing.serial_number
    octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")  # as DER writes it
    return f"{octets.hex()} {int(standing.not_before.timestamp())}"


def test_it_agrees_about_every_certificate(driver: Path, tmp_path: Path) -> None:
    standings = certificates(20_000, 300, seed=11, not_before=BEFORE)
    full = build_full(FACTS, standings, new_salt=salts())
    now = [replace(one, revoked=one.revoked ^ (n % 997 == 0)) for n, one in enumerate(standings)]
    now += certificates(2_000, 90, seed=12, not_before=AFTER)
    now += certificates(10, 5, seed=13, not_before=NOW + timedelta(days=3))
    delta = build_delta(LATER, parse_filter(full), now, new_salt=salts())
    read, changed = parse_filter(full), parse_filter(delta)

    alone = asked(driver, tmp_path, [full + SIGNATURE], [line_of(one) for one in now])
    together = asked(
        driver, tmp_path, [full + SIGNATURE, delta + SIGNATURE], [line_of(one) for one in now]
    )

    assert len(alone) == len(together) == len(now)
    for one, by_itself, with_delta in zip(now, alone, together, strict=True):
        question = (one.serial_number, one.not_before)
        assert VERDICTS[by_itself] is judge(read, *question, now=NOW)
        assert VERDICTS[with_delta] is judge(read, *question, now=NOW, delta=changed)


def test_another_issuer_or_signature_is_not_believed(driver: Path, tmp_path: Path) -> None:
    standings = certificates(100, 5, seed=14, not_before=BEFORE)
    full = build_full(FACTS, standings, new_salt=salts())
    other = build_full(replace(FACTS, issuer=bytes(32)), standings, new_salt=salts())
    assert asked(driver, tmp_path, [full + b"forged"], []) == ["fault -3"]
    assert asked(driver, tmp_path, [other + SIGNATURE], []) == ["fault -2"]
    assert asked(driver, tmp_path, [full[:40]], []) == ["fault -1"]


def test_damage_reads_no_memory_but_the_files(driver: Path, tmp_path: Path) -> None:
    """The compiler's own checks end the program if it does."""
    random = Random(15)
    standings = certificates(300, 30, seed=16, not_before=BEFORE)
    full = build_full(FACTS, standings, new_salt=salts())
    delta = build_delta(LATER, parse_filter(full), standings[:250], new_salt=salts())
    for _ in range(60):
        damaged = []
        for content in (full, delta):
            octets = bytearray(content + SIGNATURE)
            for _ in range(random.randint(0, 3)):
                octets[random.choice([*range(110), *range(len(octets))])] = random.randrange(256)
            damaged.append(bytes(octets[: random.choice([len(octets), random.randrange(150)])]))
        asked(driver, tmp_path, damaged, [line_of(one) for one in standings[:20]])
