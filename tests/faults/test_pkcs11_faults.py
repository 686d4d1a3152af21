"""A library that fails at random under many threads: nothing wrong, no hang, no lasting harm."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from lamassu.kernel.errors import LamassuError
from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec, MessageType
from lamassu.services.kms.engines.pkcs11 import Pkcs11Engine
from lamassu.services.kms.model import SCHEMES, MadeKey
from lamassu.services.kms.usecases.signatures import signature_holds, signature_over
from tests.support.engines import ComponentMissing
from tests.support.missing import missing_component
from tests.support.softhsm import FUNCTIONS, ShimmedHsm

GENERAL = KeyPurpose.GENERAL
SCHEME = SCHEMES["ECDSA_SHA_256"]
SECONDS = 3.0
# of PKCS #11 v2.40: device error and removed, session and token gone, not logged in, general
# error, function failed, key and object handle invalid, too many sessions, no memory
ANSWERS = (0x30, 0x32, 0xB3, 0xE0, 0x101, 0x05, 0x06, 0x60, 0x82, 0xB1, 0x31)


def sign(engine: Pkcs11Engine, made: MadeKey) -> bool:
    key = engine.private_key(made.key_id, purpose=GENERAL)
    signature = signature_over(key, SCHEME, b"message", MessageType.RAW)
    return signature_holds(made.public_key, SCHEME, b"message", MessageType.RAW, signature)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the binding's
def test_random_failures_make_no_wrong_signature_and_leave_both_tokens_usable(
    tmp_path: Path,
) -> None:
    try:
        shimmed = ShimmedHsm(tmp_path / "hsm")
    except ComponentMissing as missing:
        missing_component(str(missing))
    engines = [shimmed.token(label).engine() for label in ("one", "two")]
    spec = KeySpec(KeyAlgorithm.ECDSA, 256)
    keys = [engine.generate(spec, purpose=GENERAL) for engine in engines]
    outcomes: Counter[str] = Counter()
    over = time.monotonic() + SECONDS

    def work(number: int) -> None:
        place = number % 2
        while time.monotonic() < over:
            try:
                outcomes["right" if sign(engines[place], keys[place]) else "wrong"] += 1
            except LamassuError as error:
                outcomes[error.code] += 1
            except Exception as error:  # noqa: BLE001 - what should not be
                outcomes[f"not ours: {error!r}"] += 1

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(6)]
    for worker in workers:
        worker.start()
    dice = random.Random(4)
    while time.monotonic() < over:
        function = dice.choice(list(FUNCTIONS))
        shimmed.fail(function, dice.choice(ANSWERS), times=dice.choice([1, 1, 3]))
        time.sleep(dice.random() * 0.02)
    for worker in workers:
        worker.join(30)

    assert not any(worker.is_alive() for worker in workers)
    assert outcomes["right"]
    assert sum(outcomes.values()) > outcomes["right"]  # something did fail
    assert not [outcome for outcome in outcomes if outcome.startswith(("wrong", "not ours"))]
    for function in FUNCTIONS:
        shimmed.fail(function, 0, times=0)
    for engine, made in zip(engines, keys, strict=True):
        assert sign(engine, made)
        engine.check()
        engine.close()
