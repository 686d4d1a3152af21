"""SIGKILL at every line of the transcript, before it, within it and after it: nothing is made
twice, nothing announced is lost, and the next run ends the session."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from lamassu.services.ceremony.contract import parse_bundle, parse_transcript
from lamassu.services.ceremony.contract.transcript import Deed
from lamassu.services.ceremony.storage import TRANSCRIPT

from .room import Room, ca_wish, request, responder_wish


@dataclass
class KillingLedger:
    """Lets the process die at the `count`-th line."""

    inner: Any
    count: int
    moment: str
    written: int = 0

    def read(self) -> str:
        return str(self.inner.read())

    def keep(self, name: str, content: bytes) -> str:
        return str(self.inner.keep(name, content))

    def append(self, line: str) -> None:
        self.written += 1
        if self.written == self.count:
            if self.moment == "within":
                path = Path(self.inner._path)
                with path.open("ab") as file:
                    file.write(line.encode()[: len(line) // 2])
            elif self.moment == "after":
                self.inner.append(line)
            os.kill(os.getpid(), signal.SIGKILL)
        self.inner.append(line)


def killed(room: Room, answers: Any, count: int, moment: str) -> bool:
    """Hold a session in a process of its own; whether that was killed before its end."""
    child = os.fork()
    if not child:
        status = 1
        try:
            room.hold(answers, lambda ledger: KillingLedger(ledger, count, moment))
            status = 0
        finally:
            os._exit(status)
    _, ended = os.waitpid(child, 0)
    assert os.WIFSIGNALED(ended) or os.WEXITSTATUS(ended) == 0
    return os.WIFSIGNALED(ended)


def check_whole(room: Room, sessions: int) -> None:
    """One key, one root, one of everything that was asked for."""
    transcript = parse_transcript(room.transcript)
    assert transcript.is_closed
    deeds = [line.deed for line in transcript.lines]
    assert deeds.count(Deed.CEREMONY_BEGUN) == 1
    assert deeds.count(Deed.KEY_MADE) == 1
    assert deeds.count(Deed.SEALED) == sessions
    assert deeds.count(Deed.SESSION_OPENED) == sessions
    assert deeds.count(Deed.CERTIFICATE_DRAFTED) == deeds.count(Deed.CERTIFICATE_SIGNED) == 3
    assert len(room.keys) == 1
    bundle = parse_bundle(room.bundle(sessions))
    assert (len(bundle.certificates), len(bundle.responders)) == (1, 1)
    assert bundle.crl is not None
    number = x509.load_der_x509_crl(bundle.crl).extensions.get_extension_for_class(x509.CRLNumber)
    assert number.value.crl_number == sessions


@pytest.mark.parametrize("moment", ["before", "within", "after"])
def test_a_ceremony_killed_at_any_step_goes_on_there(
    room: Room, tmp_path: Path, moment: str
) -> None:
    requests = (ca_wish(request("Between")), responder_wish(request("Responder")))
    answers = room.answers(requests=requests)
    count = 0
    while True:
        count += 1
        room.directory = tmp_path / f"{moment}-{count}"
        if not killed(room, answers, count, moment):
            break
        if moment == "within":
            assert not (room.directory / TRANSCRIPT).read_bytes().endswith(b"\n")
        # a session whose last line is written has nothing left to go on with
        transcript = parse_transcript(room.opened_text())
        if not transcript.is_closed:
            room.hold(answers)
        check_whole(room, sessions=1)
        for key_id in room.keys:
            room.engine.delete(key_id)
    assert count > 15
    for key_id in room.keys:
        room.engine.delete(key_id)


def test_a_ceremony_killed_again_and_again_ends_all_the_same(room: Room) -> None:
    answers = room.answers(
        requests=(ca_wish(request("Between")), responder_wish(request("Responder")))
    )
    kills = 0
    while killed(room, answers, 3, "before"):
        kills += 1  # each run writes that it goes on, and one line more
        assert kills < 40
    assert kills > 8
    check_whole(room, sessions=1)


def test_a_key_that_nobody_can_tell_apart_stops_the_ceremony(room: Room) -> None:
    from lamassu.kernel.errors import RuleViolation
    from lamassu.services.kms.contract import KeyAlgorithm, KeyPurpose, KeySpec

    # killed as it was about to write down the key, and another program made one meanwhile
    assert killed(room, room.answers(), 5, "before")
    assert len(room.keys) == 1
    room.engine.generate(KeySpec(KeyAlgorithm.ECDSA, 256), purpose=KeyPurpose.CA)
    with pytest.raises(RuleViolation) as refused:
        room.hold()
    assert refused.value.code == "keys_ambiguous"
    assert len(room.keys) == 2
