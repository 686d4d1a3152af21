"""A ceremony with a real token, killed before each line: one root key, never two.

`tests/services/ceremony/test_crash.py` does the same before, within and after each line, with
keys in software.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lamassu.services.ceremony.contract import Answers, parse_bundle, parse_transcript
from tests.services.ceremony.room import Room, ca_wish, request, responder_wish
from tests.services.ceremony.test_crash import KillingLedger
from tests.support.engines import ComponentMissing
from tests.support.missing import missing_component
from tests.support.softhsm import SoftHsm, Token


@pytest.fixture
def new_token(tmp_path: Path) -> Callable[[int], Token]:
    def make(number: int) -> Token:
        try:
            return SoftHsm(tmp_path / f"hsm-{number}").token("root")
        except ComponentMissing as missing:
            missing_component(str(missing))

    return make


def in_a_process(work: Callable[[], None]) -> bool:
    """Whether the work, in a process of its own, was killed before its end."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert (os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL) or not ended
    return os.WIFSIGNALED(ended)


def hold(room: Room, token: Token, answers: Answers, *, kill_at: int) -> None:
    room.engine = token.engine()  # type: ignore[assignment]
    room.hold(answers, lambda ledger: KillingLedger(ledger, kill_at, "before"))


def private_keys(token: Token) -> list[dict[str, str]]:
    return [one for one in token.objects() if one["object"].startswith("Private Key")]


@pytest.mark.slow
def test_a_ceremony_killed_before_any_line_makes_one_key(
    tmp_path: Path, new_token: Callable[[int], Token]
) -> None:
    requests = (ca_wish(request("Between")), responder_wish(request("Responder")))
    number = 0
    found_again = 0
    while True:
        number += 1
        token = new_token(number)
        room = Room(tmp_path / f"ceremony-{number}", None)  # type: ignore[arg-type]
        answers = room.answers(requests=requests)

        killed = in_a_process(partial(hold, room, token, answers, kill_at=number))
        if killed:
            assert not in_a_process(partial(hold, room, token, answers, kill_at=0))
        transcript = parse_transcript(room.transcript)
        assert transcript.is_closed
        [private] = private_keys(token)
        assert "sensitive" in private["Access"]
        assert "never extractable" in private["Access"]
        bundle = parse_bundle(room.bundle())
        assert (len(bundle.certificates), len(bundle.responders)) == (1, 1)
        found_again += any(
            line.facts.get("found_after_interruption") is True for line in transcript.lines
        )
        if not killed:
            break
    assert number > 15
    assert found_again == 1  # the run that died between the token and the transcript


@pytest.mark.parametrize("writes", range(5))
def test_a_key_that_the_token_was_still_naming_is_the_one_that_is_used(
    tmp_path: Path, new_token: Callable[[int], Token], writes: int
) -> None:
    token = new_token(writes)
    room = Room(tmp_path / "ceremony", None)  # type: ignore[arg-type]
    answers = room.answers()

    assert in_a_process(partial(hold_while_naming, room, token, answers, kill_after=writes))
    assert len(private_keys(token)) == 1
    assert not in_a_process(partial(hold, room, token, answers, kill_at=0))

    [private] = private_keys(token)
    made = next(
        line for line in parse_transcript(room.transcript).lines if "public_key" in line.facts
    )
    assert made.facts["found_after_interruption"] is True
    assert private["ID"] == made.facts["key_id"]
    assert parse_bundle(room.bundle()).crl is not None


def hold_while_naming(room: Room, token: Token, answers: Answers, *, kill_after: int) -> None:
    """As `hold`, but killed after so many of the four attributes that name a pair."""
    from pkcs11.constants import Attribute

    from lamassu.services.kms.engines.pkcs11 import objects

    written = 0

    def give_name(one: Any, name: objects.Name) -> None:
        nonlocal written
        values = ((Attribute.ID, bytes.fromhex(name.key_id)), (Attribute.LABEL, name.label))
        for attribute, value in values:
            if written == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            one[attribute] = value
            written += 1

    objects.give_name = give_name
    hold(room, token, answers, kill_at=5)  # the line that tells of the key
