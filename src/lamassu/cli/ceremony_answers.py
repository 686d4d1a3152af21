"""Where a session's answers come from: people who are asked, or a script that rehearses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import NoReturn

import typer
import yaml
from cryptography import x509

from lamassu.cli.keys import KeyType
from lamassu.cli.options import fail, out
from lamassu.kernel.errors import LamassuError, RuleViolation
from lamassu.kernel.wire_text import format_duration, parse_duration
from lamassu.kernel.x509.csr import verify_csr_signature
from lamassu.kernel.x509.keys import key_id
from lamassu.kernel.x509.names import Subject
from lamassu.services.ceremony.contract import (
    CA_VALIDITY,
    CRL_VALIDITY,
    KEY_CUSTODIAN,
    RESPONDER_VALIDITY,
    ROOT_VALIDITY,
    Answers,
    Person,
    RequestWish,
    RootWish,
    Signed,
    read_request,
)
from lamassu.services.kms.contract import KeyAlgorithm, KeySpec

_LARGEST = 256 * 1024
_SECTIONS = frozenset({"date", "people", "root", "cas", "responders", "revocations", "crl"})
_ROOT = frozenset(
    {"common_name", "organization", "organization_unit", "country", "key", "validity"}
    | {"path_length"}
)
_REQUEST = frozenset({"csr", "validity", "path_length", "fingerprint"})


def _refuse(field: str, text: str) -> NoReturn:
    raise RuleViolation(f"{field}: {text}", code="script_malformed", field=field)


# --- a script -------------------------------------------------------------------------------


def read_script(path: Path, today: date, *, needs_root: bool, rehearsal: bool) -> Answers:
    """The answers of a YAML file; files that it names are found from its own folder. Only a
    rehearsal takes any day for `today`.

    Raises `RuleViolation` (`script_malformed`), `OSError`.
    """
    raw = path.read_bytes()
    try:
        document = yaml.safe_load(raw[:_LARGEST]) if len(raw) <= _LARGEST else None
    except (yaml.YAMLError, RecursionError):
        document = None
    script = _mapping(document, "the script", _SECTIONS)
    folder = path.parent
    root = script.get("root")
    revocations = script.get("revocations")
    crl = _mapping(script.get("crl") or {}, "crl", frozenset({"validity"}))
    return Answers(
        date=_date(script.get("date"), today if rehearsal else None),
        people=[_person(person) for person in _list(script.get("people"), "people")],
        # a script may be used again for a later session
        root=_root(root) if root is not None and needs_root else None,
        requests=[
            _request(kind, entry, folder, section)
            for kind, section in ((Signed.CA, "cas"), (Signed.RESPONDER, "responders"))
            for entry in _list(script.get(section), section)
        ],
        revocations=None if revocations is None else (folder / str(revocations)).read_bytes(),
        crl_validity=_duration(crl.get("validity"), CRL_VALIDITY, "crl.validity"),
    )


def _mapping(value: object, field: str, known: frozenset[str]) -> Mapping[str, object]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        _refuse(field, "is no mapping")
    unknown = sorted(set(value) - known)
    if unknown:
        _refuse(field, f"knows no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    return value


def _list(value: object, field: str) -> Sequence[object]:
    if value is None:
        return ()
    if not isinstance(value, list):
        _refuse(field, "is no list")
    return value


def _date(value: object, today: date | None) -> date:
    if value == "today" and today is not None:
        return today
    if isinstance(value, datetime) or not isinstance(value, date):
        _refuse("date", "is a day such as 2026-11-23, or for a rehearsal (mode: development) today")
    return value


def _person(value: object) -> Person:
    person = _mapping(value, "people", frozenset({"role", "name"}))
    return Person(str(person.get("role", "")), str(person.get("name", "")))


def _root(value: object) -> RootWish:
    root = _mapping(value, "root", _ROOT)
    subject = Subject(
        common_name=str(root.get("common_name", "")),
        organization=str(root.get("organization", "")),
        organization_unit=str(root.get("organization_unit", "")),
        country=str(root.get("country", "")),
    )
    return RootWish(
        subject,
        key_spec(str(root.get("key", KeyType.RSA_4096.value)), "root.key"),
        _duration(root.get("validity"), ROOT_VALIDITY, "root.validity"),
        _number(root.get("path_length"), "root.path_length"),
    )


def _request(kind: Signed, value: object, folder: Path, section: str) -> RequestWish:
    entry = _mapping(value, section, _REQUEST)
    if "csr" not in entry:
        _refuse(section, "each entry names a csr, a file")
    usual = CA_VALIDITY if kind is Signed.CA else RESPONDER_VALIDITY
    return RequestWish(
        kind,
        (folder / str(entry["csr"])).read_bytes(),
        _duration(entry.get("validity"), usual, f"{section}.validity"),
        _number(entry.get("path_length"), f"{section}.path_length"),
        str(entry.get("fingerprint", "")),
        source=str(entry["csr"]),
    )


def key_spec(name: str, field: str) -> KeySpec:
    """A key by its name on the command line. Raises `RuleViolation`."""
    try:
        key = KeyType(name)
    except ValueError:
        _refuse(field, f"is one of {', '.join(KeyType)}")
    return KeySpec(KeyAlgorithm(key.algorithm), key.bits)


def _duration(value: object, usual: timedelta, field: str) -> timedelta:
    if value is None:
        return usual
    try:
        return parse_duration(str(value))
    except ValueError as fault:
        _refuse(field, str(fault))


def _number(value: object, field: str) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        _refuse(field, "is a number from 0, or absent")
    return value


# --- people ---------------------------------------------------------------------------------


def ask_people(now: datetime, *, needs_root: bool) -> Answers:
    """Ask those in the room, question by question; nothing is written yet."""
    return Answers(
        date=ask_date(now),
        people=ask_names(),
        root=_ask_root() if needs_root else None,
        requests=[
            *_ask_requests(Signed.CA, "CA", CA_VALIDITY),
            *_ask_requests(Signed.RESPONDER, "OCSP responder", RESPONDER_VALIDITY),
        ],
        revocations=_ask_revocations(),
        crl_validity=_ask_duration("The CRL is valid for", CRL_VALIDITY),
    )


def _ask(what: str) -> str:
    """An answer that cannot be left out. A bare Enter is told so, and asked again."""
    while True:
        answer = str(typer.prompt(what, default="", show_default=False)).strip()
        if answer:
            return answer
        out.print("This needs an answer; Ctrl-C ends the ceremony here.")


def ask_date(now: datetime) -> date:
    """The day, typed in rather than agreed to: a nod confirms anything."""
    out.print(f"This host's clock says {now:%A, %Y-%m-%d %H:%M} UTC.")
    while True:
        try:
            return date.fromisoformat(_ask("Today's date, as YYYY-MM-DD"))
        except ValueError:
            out.print("That is no date.")


def ask_names() -> Sequence[Person]:
    """Who is present."""
    people = [Person(KEY_CUSTODIAN, _ask("Key custodian (who holds the token)"))]
    while role := typer.prompt(
        "Role of somebody else present, such as witness; empty for nobody", default="",
        show_default=False,
    ).strip():  # fmt: skip
        people.append(Person(role, _ask(f"Name of the {role}")))
    return people


def _ask_root() -> RootWish:
    subject = Subject(
        common_name=_ask("Common name of the root"),
        organization=typer.prompt("Organization", default="", show_default=False),
        country=typer.prompt("Country, two letters", default="", show_default=False),
    )
    key = _ask_key()
    validity = _ask_duration("The root is valid for", ROOT_VALIDITY)
    depth = typer.prompt("How many CAs may stand below each other", default=2, type=int)
    return RootWish(subject, key, validity, depth)


def _ask_key() -> KeySpec:
    while True:
        try:
            return key_spec(typer.prompt("Kind of its key", default=KeyType.RSA_4096.value), "key")
        except LamassuError as fault:
            out.print(fault.text, markup=False)


def _ask_requests(kind: Signed, what: str, usual: timedelta) -> Sequence[RequestWish]:
    wishes: list[RequestWish] = []
    while name := typer.prompt(
        f"File with the request of a{'n OCSP' if kind is Signed.RESPONDER else ''}"
        f" {'responder' if kind is Signed.RESPONDER else what}; empty for no more",
        default="",
        show_default=False,
    ).strip():
        csr = _confirmed_request(name)
        if csr is None:
            continue
        wishes.append(
            RequestWish(kind, csr, _ask_duration(f"This {what} is valid for", usual), source=name)
        )
    return wishes


def _confirmed_request(name: str) -> bytes | None:
    """The file's request, if it can be read and everybody knows its key; `None` to ask anew."""
    try:
        content = Path(name).read_bytes()
        csr = read_request(content)
        verify_csr_signature(csr)
    except OSError as error:
        out.print(f"{name}: {error.strerror}", markup=False)
        return None
    except LamassuError as fault:
        out.print(f"{name}: {fault.text}", markup=False)
        return None
    subject = x509.load_der_x509_csr(csr.der).subject.rfc4514_string()
    out.print(f"  {subject}\n  key {key_id(csr.spki)}", markup=False)
    if not typer.confirm("Is this the fingerprint that was read out to you?"):
        out.print("Then it is not signed.")
        return None
    return content


def _ask_revocations() -> bytes | None:
    name = typer.prompt(
        "File of `lamassu va export-revocations`; empty for none", default="", show_default=False
    ).strip()
    if not name:
        return None
    try:
        return Path(name).read_bytes()
    except OSError as error:
        fail(f"{name}: {error.strerror}")


def _ask_duration(what: str, usual: timedelta) -> timedelta:
    hours = f"{usual // timedelta(hours=1)}h"
    while True:
        try:
            return parse_duration(typer.prompt(what, default=hours).strip())
        except ValueError as fault:
            out.print(f"It {fault}; such as {format_duration(usual)}", markup=False)
