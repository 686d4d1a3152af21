"""The ceremony as people and scripts hold it, with a software engine in the token's place."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from lamassu.cli import options
from lamassu.cli.main import app
from lamassu.kernel.errors import RuleViolation
from lamassu.services.ceremony.contract import parse_bundle, parse_transcript
from tests.services.ceremony.room import request

TODAY = datetime.now(UTC).date()
SCRIPT = {
    "date": "today",
    "people": [
        {"role": "key custodian", "name": "Ada Lovelace"},
        {"role": "witness", "name": "Charles [bold]Babbage"},
    ],
    "root": {"common_name": "Acme Root CA", "key": "ecdsa-p256", "path_length": 2},
    "cas": [{"csr": "between.csr", "path_length": 1}],
    "responders": [{"csr": "ocsp.csr", "validity": "336h"}],
}


def lamassu(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, a script and two requests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(options.out, "width", 200)
    (tmp_path / "ceremony.yml").write_text(
        "mode: development\ncrypto_engines:\n  software:\n"
        "    - {id: rehearsal, passphrase_file: keystore.pass}\n"
    )
    (tmp_path / "keystore.pass").write_text("a passphrase that is long enough\n")
    (tmp_path / "keystore.pass").chmod(0o600)
    (tmp_path / "between.csr").write_bytes(request("Between"))
    (tmp_path / "ocsp.csr").write_bytes(request("Responder"))
    script(tmp_path)
    return tmp_path


def script(host: Path, **changed: Any) -> None:
    (host / "script.yml").write_text(yaml.safe_dump({**SCRIPT, **changed}))


def rehearse(*more: str) -> Result:
    return lamassu("ceremony", "run", "--script", "script.yml", "--yes", *more)


def test_a_script_rehearses_and_what_it_left_is_verified(host: Path) -> None:
    done = rehearse()
    assert done.exit_code == 0, done.output
    assert "root key:" in done.output
    status = lamassu("ceremony", "status")
    assert "key custodian: Ada Lovelace, witness: Charles [bold]Babbage" in status.output
    whole = lamassu(
        "ceremony", "verify", "ceremony/session-1.bundle",
        "--transcript", "ceremony/transcript.jsonl",
    )  # fmt: skip
    assert whole.exit_code == 0, whole.output
    assert "CA Between" in whole.output
    assert "of a rehearsal: no root to rely on" in whole.output
    bundle = parse_bundle((host / "ceremony" / "session-1.bundle").read_bytes())
    assert bundle.root_fingerprint in whole.output


def test_people_are_asked_and_shown_before_anything_is_signed(host: Path) -> None:
    answers = [
        "2020-02-30", f"{TODAY}", "", "Ada", "witness", "Charles", "", "Acme Root CA", "", "",
        "no-such-key", "ecdsa-p256", "ten years", "87600h", "1",
        "missing.csr", "script.yml", "between.csr", "n", "between.csr", "y", "", "", "", "", "",
        "n",
    ]  # fmt: skip
    refused = lamassu("ceremony", "run", stdin="\n".join(answers) + "\n")
    assert refused.exit_code == 1, refused.output
    assert "That is no date." in refused.output
    assert refused.output.count("This needs an answer") == 1
    assert "missing.csr: No such file" in refused.output
    assert "script.yml: " in refused.output
    assert refused.output.count("Then it is not signed.") == 1
    assert "Sign the CA CN=Between" in refused.output
    assert (host / "ceremony" / "transcript.jsonl").read_bytes() == b""
    assert not list((host / "keys").glob("*.key"))
    agreed = lamassu("ceremony", "run", stdin="\n".join([*answers[:-1], "y"]) + "\n")
    assert agreed.exit_code == 0, agreed.output
    assert "put the token away" in agreed.output.replace("\n", " ")


def test_a_session_that_was_cut_off_goes_on(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lamassu.services.ceremony.storage import DirectoryLedger

    keep: Callable[..., str] = DirectoryLedger.keep

    def full_disk(self: DirectoryLedger, name: str, content: bytes) -> str:
        raise OSError(28, "No space left on device", name)

    monkeypatch.setattr(DirectoryLedger, "keep", full_disk)
    cut = rehearse()
    assert cut.exit_code == 1
    assert "No space left on device" in cut.output
    opened = lamassu("ceremony", "status").output
    assert "is open: `lamassu ceremony run` goes on" in opened
    transcript = host / "ceremony" / "transcript.jsonl"
    unsealed = lamassu("ceremony", "verify", transcript)
    assert unsealed.exit_code == 1
    assert "sealed up to line 0" in unsealed.output

    monkeypatch.setattr(DirectoryLedger, "keep", keep)
    yesterday = TODAY - timedelta(days=1)
    refused = lamassu("ceremony", "run", stdin=f"{yesterday}\nAda\n\n")
    assert "set the clock" in refused.output
    done = lamassu("ceremony", "run", stdin=f"{TODAY}\nAda\n\n")
    assert done.exit_code == 0, done.output
    assert "was interrupted and goes on" in done.output
    assert parse_transcript(transcript.read_text()).is_closed
    assert len(list((host / "keys").glob("*.key"))) == 1


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"date": "tomorrow"}, "date: is a day"),
        ({"date": TODAY - timedelta(days=1)}, "set the clock"),
        ({"people": []}, "nobody is the key custodian"),
        ({"people": "Ada"}, "people: is no list"),
        ({"root": None}, "no root yet"),
        ({"root": {**SCRIPT["root"], "key": "dsa"}}, "root.key: is one of"),  # type: ignore[dict-item]
        ({"root": {**SCRIPT["root"], "keys": "x"}}, "root: knows no keys"),  # type: ignore[dict-item]
        ({"cas": [{"csr": "absent.csr"}]}, "absent.csr: No such file"),
        ({"cas": [{"csr": "between.csr", "validity": "never"}]}, "must be a duration"),
        ({"cas": [{"csr": "between.csr", "validity": "100000h"}]}, "outlive the root"),
        ({"cas": [{"csr": "between.csr", "fingerprint": "ab"}]}, "not the one that was read out"),
        ({"crl": {"validity": "10000h"}}, "at most 366 days"),
        ({"revocations": "between.csr"}, "revocations cannot be read"),
        ({"more": 1}, "the script: knows no more"),
    ],
)
def test_a_script_with_a_fault_signs_nothing(
    host: Path, changed: dict[str, Any], text: str
) -> None:
    script(host, **changed)
    refused = rehearse()
    assert refused.exit_code == 1
    assert text in re.sub(r"\s+", " ", refused.output)
    assert not list((host / "keys").glob("*.key"))


def test_a_root_in_software_is_for_rehearsals_only(host: Path) -> None:
    config = host / "ceremony.yml"
    config.write_text(config.read_text().replace("mode: development", "mode: production"))
    (host / "keystore.pass").rename(host.parent / "keystore.pass")
    config.write_text(config.read_text().replace("keystore.pass", "../keystore.pass"))
    refused = rehearse()
    assert refused.exit_code == 1
    assert "a root belongs in a token" in refused.output.replace("\n", " ")
    assert not (host / "ceremony").exists()


def test_what_does_not_belong_together_is_refused(host: Path) -> None:
    assert rehearse().exit_code == 0
    assert rehearse("--state", "other").exit_code == 0
    bundle, transcript = "ceremony/session-1.bundle", "other/transcript.jsonl"
    mixed = lamassu("ceremony", "verify", bundle, "--transcript", transcript)
    assert mixed.exit_code == 1
    assert "another ceremony's" in mixed.output
    told = lamassu("ceremony", "verify", bundle, "--root-fingerprint", "ab" * 32)
    assert told.exit_code == 1
    assert "another root's" in told.output
    for name in ("script.yml", "absent"):
        assert lamassu("ceremony", "verify", name).exit_code == 1
    changed = (host / bundle).read_bytes().replace(b"Ada", b"Eve")
    (host / "changed").write_bytes(changed)
    forged = lamassu("ceremony", "verify", "changed")
    assert forged.exit_code == 1
    assert "was changed or is a forgery" in forged.output


def test_nobody_confirms_what_nobody_scripted(host: Path) -> None:
    assert lamassu("ceremony", "run", "--yes").exit_code == 1
    missing = rehearse("--config", "absent.yml")
    assert "absent.yml is missing" in missing.output
    unknown = rehearse("--engine", "hsm")
    assert "there is no engine 'hsm'" in unknown.output
    assert lamassu("ceremony", "status").output.strip() == "nothing was done yet"


def test_only_a_rehearsal_takes_any_day_for_today(host: Path) -> None:
    from lamassu.cli.ceremony_answers import read_script

    path = host / "script.yml"
    assert read_script(path, TODAY, needs_root=True, rehearsal=True).date == TODAY
    with pytest.raises(RuleViolation, match="is a day such as"):
        read_script(path, TODAY, needs_root=True, rehearsal=False)
