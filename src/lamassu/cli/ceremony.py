"""`lamassu ceremony`: the offline root, on a host without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from lamassu.cli.ceremony_answers import ask_date, ask_names, ask_people, read_script
from lamassu.cli.options import fail, out, run
from lamassu.kernel.clock import SystemClock
from lamassu.kernel.errors import LamassuError, RuleViolation
from lamassu.kernel.x509.crls import parse_crl
from lamassu.kernel.x509.facts import certificate_facts
from lamassu.services.ceremony.contract import (
    Bundle,
    Deed,
    Line,
    Transcript,
    check_covers,
    is_bundle,
    parse_bundle,
    parse_transcript,
)
from lamassu.wiring.ceremony import opened_ceremony, read_transcript

app = typer.Typer(
    no_args_is_help=True,
    help="An offline root: made, used and recorded on a host without a network.",
)

State = Annotated[
    Path, typer.Option("--state", help="The ceremony's directory; keep it with the token.")
]
DEFAULT_STATE = Path("ceremony")


@app.command("run")
def run_(
    state: State = DEFAULT_STATE,
    config: Annotated[
        Path, typer.Option(help="File with the crypto_engines, written as in config.yml.")
    ] = Path("ceremony.yml"),
    engine: Annotated[
        str, typer.Option(help="Engine that holds the root's key; the default one if absent.")
    ] = "",
    script: Annotated[
        Path | None, typer.Option(help="Answers from this YAML file: for rehearsals.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --script: do not ask whether to sign.")
    ] = False,
) -> None:
    """Hold a session: make the root, sign what was asked for, and the root's CRL.

    Everything is asked and shown first. Then each step is written down before it is announced;
    after any interruption the same command goes on where it stopped.

    Example: lamassu ceremony run --state ceremony --config ceremony.yml
    """
    if yes and script is None:
        fail("--yes goes with --script: people are asked")
    run(_run(state, config, engine or None, script, confirmed=yes))


async def _run(
    state: Path, config: Path, engine: str | None, script: Path | None, *, confirmed: bool
) -> None:
    async with opened_ceremony(state, config, engine) as ceremony:
        now = SystemClock().now()
        needs_root = ceremony.transcript.root is None
        session = ceremony.session
        if session is not None and session.plan is not None:
            out.print(f"Session {session.number} was interrupted and goes on.")
            if script is None:
                today, people = ask_date(now), ask_names()
            else:
                answers = read_script(
                    script, now.date(), needs_root=needs_root, rehearsal=ceremony.rehearsal
                )
                today, people = answers.date, answers.people
            ceremony.resume(people, today)
        else:
            answers = (
                ask_people(now, needs_root=needs_root)
                if script is None
                else read_script(
                    script, now.date(), needs_root=needs_root, rehearsal=ceremony.rehearsal
                )
            )
            plan = await ceremony.propose(answers)
            for line in ceremony.described(plan):
                out.print(line, markup=False)
            if not confirmed:
                typer.confirm(
                    "Does everybody present agree, names and fingerprints compared?", abort=True
                )
            await ceremony.agree(answers, plan)
        await ceremony.perform(lambda text: out.print(text, markup=False))
        out.print(
            "Note the transcript's last hash on paper, carry the bundle across, put the token"
            " away.",
            markup=False,
        )


@app.command()
def status(state: State = DEFAULT_STATE) -> None:
    """Say what a ceremony has done so far, and whether a session waits to go on.

    Example: lamassu ceremony status --state ceremony
    """
    try:
        _show_transcript(parse_transcript(read_transcript(state)))
    except LamassuError as fault:
        fail(fault.text)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A bundle, or a transcript.")],
    transcript: Annotated[
        Path | None, typer.Option(help="With a bundle: the transcript it must belong to.")
    ] = None,
    root_fingerprint: Annotated[
        str, typer.Option(help="SHA-256 of the root's certificate, as noted on paper.")
    ] = "",
) -> None:
    """Verify a bundle or a transcript; ends with status 1 if anything was changed.

    A transcript alone cannot show that whole sessions were cut off its end: compare the last
    hash with the paper, or give the newest bundle and the transcript together.

    Example: lamassu ceremony verify session-1.bundle --transcript transcript.jsonl
    """
    try:
        _verify(file, transcript, root_fingerprint)
    except LamassuError as fault:
        fail(fault.text)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")


def _verify(file: Path, transcript: Path | None, root_fingerprint: str) -> None:
    content = file.read_bytes()
    if is_bundle(content):
        bundle = parse_bundle(content)
        _check_root(bundle.root, root_fingerprint)
        if transcript is not None:
            whole = _closed(transcript.read_bytes())
            check_covers(whole, bundle)
        _show_bundle(bundle)
        out.print("the bundle is as the root's key signed it")
        return
    found = _closed(content)
    if found.root is not None:
        _check_root(found.root, root_fingerprint)
    _show_transcript(found)
    out.print("the transcript is whole up to its last seal")


def _closed(content: bytes) -> Transcript:
    try:
        found = parse_transcript(content.decode("ascii"))
    except UnicodeDecodeError:
        raise RuleViolation("this is neither a bundle nor a transcript") from None
    if not found.is_closed:
        raise RuleViolation(
            f"the transcript is sealed up to line {found.sealed} of {len(found.lines)}: the"
            " session did not end, or its end was cut off",
            code="transcript_open",
        )
    return found


def _check_root(root: bytes, told: str) -> None:
    found = certificate_facts(root).sha256
    if told and told.replace(":", "").replace(" ", "").casefold() != found:
        raise RuleViolation(f"this is another root's: {found}", code="another_root")


def _show_bundle(bundle: Bundle) -> None:
    out.print(f"ceremony {bundle.ceremony}, session {bundle.session}, {bundle.made_at:%Y-%m-%d}")
    if bundle.is_rehearsal:
        out.print("of a rehearsal: no root to rely on")
    out.print(f"root {bundle.root_fingerprint}")
    for certificate in (*bundle.certificates, *bundle.responders):
        facts = certificate_facts(certificate)
        kind = "CA" if facts.is_ca else "responder"
        name = facts.subject.common_name
        out.print(f"{kind} {name}, until {facts.not_after:%Y-%m-%d}", markup=False)
    if bundle.crl is not None:
        crl = parse_crl(bundle.crl)
        out.print(
            f"CRL number {crl.number}, {len(crl.entries)} revoked, until {crl.next_update:%Y-%m-%d}"
        )


def _show_transcript(transcript: Transcript) -> None:
    if transcript.is_rehearsal:
        out.print("a rehearsal")
    for line in transcript.lines:
        shown = _line_text(line)
        if shown:
            out.print(f"{line.at:%Y-%m-%d %H:%M}  {shown}", markup=False)
    if not transcript.lines:
        out.print("nothing was done yet")
        return
    if transcript.root is not None:
        out.print(f"root {certificate_facts(transcript.root).sha256}")
    out.print(f"{len(transcript.lines)} lines, the last of hash {transcript.head}")
    if not transcript.is_closed:
        last = transcript.lines[-1]
        agreed = any(
            line.deed is Deed.PLAN_AGREED and line.session == last.session
            for line in transcript.lines
        )
        goes_on = "goes on" if agreed else "begins anew"
        out.print(f"session {last.session} is open: `lamassu ceremony run` {goes_on}")


_DEEDS = {
    Deed.KEY_MADE: "root key made: {sha256}",
    Deed.CERTIFICATE_SIGNED: "{kind} certificate signed: {sha256}",
    Deed.CRL_SIGNED: "CRL number {number} signed: {sha256}",
    Deed.BUNDLE_WRITTEN: "{name} written: {sha256}",
    Deed.SEALED: "sealed",
}


def _line_text(line: Line) -> str:
    """A line for people; empty for those between two deeds."""
    if line.deed in (Deed.SESSION_OPENED, Deed.SESSION_RESUMED):
        people = cast("list[dict[str, str]]", line.facts["people"])
        names = ", ".join(f"{one['role']}: {one['name']}" for one in people)
        verb = "opened" if line.deed is Deed.SESSION_OPENED else "goes on"
        return f"session {line.session} {verb}; {names}"
    return _DEEDS.get(line.deed, "").format_map(line.facts)
