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
log.info("opened", path="a", password="s3cr3t", nested={{"client_secret": "s3cr3t", "id": 1}})
logging.getLogger("theirs").debug("far too low")
logging.getLogger("theirs").warning("slow %s", "disk")
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
        ("failed", "error"),
        ("failed too", "error"),
    ]
    assert all(line["timestamp"].endswith("Z") for line in lines)
    assert lines[0]["path"] == "a"
    assert lines[0]["nested"]["id"] == 1
    assert lines[1]["logger"] == "theirs"
    assert all("OSError: broken" in line["exception"] for line in lines[2:])


def test_the_console_shows_events_and_traces_in_plain_text() -> None:
    text = "\n".join(lines_of("console"))
    assert "opened" in text
    assert "slow disk" in text
    assert text.count("OSError: broken") == 2
    assert "\x1b[" not in text


def test_the_level_is_kept() -> None:
    assert [json.loads(line)["event"] for line in lines_of("json", "error")] == [
        "failed",
        "failed too",
    ]
