"""Log lines, ours and the libraries': one shape, no secret. Each test has its own process,
because logging is set up once in each."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import logging, structlog
from lamassu.platform.telemetry import start_logging
start_logging("{level}", "{form}")
log = structlog.get_logger("ours")
log.debug("too_low")
said = "x\\n2030-01-01 [error] forged \\x1b[31m\\u2028"
nested = {{"client_secret": "s3cr3t", "id": 1}}
log.info("opened", path="a", said=said, password="s3cr3t", nested=nested)
logging.getLogger("theirs").debug("far too low")
logging.getLogger("theirs").warning("slow %s", "disk")
logging.getLogger("theirs").warning("device %s", "d\\n2030-01-01 [error] forged\\x1b[2J")
try:
    raise OSError("broken")
except OSError:
    log.exception("failed")
    logging.getLogger("theirs").exception("failed too")
"""


def lines_of(form: str, level: str = "info") -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(form=form, level=level)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout == ""
    assert "s3cr3t" not in done.stderr
    assert "too_low" not in done.stderr
    return done.stderr.splitlines()


def test_every_line_is_json_with_level_and_time() -> None:
    lines = [json.loads(line) for line in lines_of("json")]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("opened", "info"),
        ("slow disk", "warning"),
        ("device d\n2030-01-01 [error] forged\x1b[2J", "warning"),
        ("failed", "error"),
        ("failed too", "error"),
    ]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[0]["path"] == "a"
    assert lines[0]["nested"]["id"] == 1
    assert lines[1]["logger"] == "theirs"
    assert all("OSError: broken" in line["exception"] for line in lines[3:])


def test_the_console_shows_events_and_traces_in_plain_text() -> None:
    text = "\n".join(lines_of("console"))
    assert "opened" in text
    assert "slow disk" in text
    assert text.count("OSError: broken") == 2
    assert "\x1b[" not in text


def test_no_text_forges_a_line_or_commands_the_terminal() -> None:
    for form in ("console", "json"):
        lines = lines_of(form)
        assert sum("forged" in line for line in lines) == 2
        assert not any(line.startswith("2030") for line in lines)
        assert not any(command in line for command in "\x1b\u2028" for line in lines)


def test_the_level_is_kept() -> None:
    assert [json.loads(line)["event"] for line in lines_of("json", "error")] == [
        "failed",
        "failed too",
    ]
