"""The REST API from the command line: mutual TLS, paging, and errors as texts.

A client needs three files of the installation: `admin.crt`, `admin.key` and `tls-ca.crt`. They
may be copied to another machine; `--url` then says where the platform is.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeAlias
from urllib.parse import quote, unquote
from uuid import uuid4

import httpx
import typer
from rich.markup import escape

from lamassu.cli.documents import parse_document
from lamassu.cli.options import err, fail, waits
from lamassu.platform.config import ConfigurationFaults, public_urls
from lamassu.platform.installation import Installation

DEFAULT_URL = "https://localhost:8443"
TIMEOUT = 30.0  # seconds: a CA key of RSA 4096 takes its time
PAUSES = (0.5, 2.0, 5.0)  # seconds before a creation is sent again
LARGEST_PAGE = 1000

Item: TypeAlias = dict[str, Any]
"""A resource as the wire has it."""

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="LAMASSU_URL",
        help="Where the platform is; by default as the installation's config.yml says.",
    ),
]
Filters = Annotated[
    list[str] | None,
    typer.Option("--filter", help="field[operator]value, such as status[eq]ACTIVE; repeatable."),
]
Limit = Annotated[int, typer.Option("--limit", min=0, help="At most so many; 0 for all.")]
Sort = Annotated[str, typer.Option("--sort", help="Field to sort by.")]
Descending = Annotated[bool, typer.Option("--desc", help="Largest or latest first.")]


_NAMED = re.compile(r"/\w+/v1/(?P<list>[a-z]+)/(?P<name>[^/]+)(?:/.*)?")
_NOUNS = {
    "cas": "ca",
    "certificates": "cert",
    "profiles": "profile",
    "dms": "dms",
    "devices": "device",
    "keys": "key",
    "approvals": "approval",
}
_MISSING = {
    "ca_not_found": "ca",
    "certificate_not_found": "cert",
    "profile_not_found": "profile",
    "dms_not_found": "dms",
    "device_not_found": "device",
    "key_not_found": "key",
    "approval_not_found": "approval",
}


@dataclass(frozen=True)
class Listing:
    """Which part of a list is wanted."""

    filters: Sequence[str] = ()
    limit: int = 100
    sort: str = ""
    descending: bool = False

    def query(self) -> list[tuple[str, str]]:
        """As the list routes take it."""
        size = min(self.limit or LARGEST_PAGE, LARGEST_PAGE)
        parameters = [("page_size", str(size)), *(("filter", text) for text in self.filters)]
        if self.sort:
            parameters.append(("sort_by", self.sort))
        if self.descending:
            parameters.append(("sort_mode", "desc"))
        return parameters


class Api:
    """The platform's REST API, as an admin. Every failure ends the program with its text."""

    def __init__(self, directory: Path, url: str | None) -> None:
        self.url = (url or configured_url(directory)).rstrip("/")
        self._directory = directory
        self._client = httpx.Client(
            base_url=f"{self.url}/api",
            transport=transport_with(directory),
            timeout=TIMEOUT,
            trust_env=False,
        )

    def get(self, path: str) -> Item:
        """One resource."""
        return self._object(self._answer("GET", path))

    def get_with(self, path: str, query: Sequence[tuple[str, str]]) -> Item:
        """One resource, as the query asks for it."""
        return self._object(self._answer("GET", path, query=query))

    def content(self, path: str) -> bytes | None:
        """A resource that is no JSON; `None` if there is none."""
        answer = self._answer("GET", path, may_lack=True)
        return None if answer.status_code == httpx.codes.NOT_FOUND else answer.content

    def post_text(self, path: str, body: str) -> httpx.Response:
        """Send text. A conflict (409) is returned, too."""
        request = self._client.build_request("POST", path, content=body.encode())
        answer = self._asked(request, ())
        if answer.is_error and answer.status_code != httpx.codes.CONFLICT:
            fail(_refusal(answer, path, self._directory))
        return answer

    def has(self, path: str) -> bool:
        """Whether there is a resource."""
        answer = self._answer("GET", path, may_lack=True)
        return answer.status_code != httpx.codes.NOT_FOUND

    def send(self, method: str, path: str, body: object = None, *, approval: str = "") -> Item:
        """Create or change something; the answer, `{}` if there is none. Ends the program with
        status 3 where others have to agree first; `approval` says that they did."""
        headers = {"Lamassu-Approval": approval} if approval else {}
        return self._object(self._answer(method, path, body=body, headers=headers))

    def create(self, path: str, body: object, *, approval: str = "") -> Item:
        """Make something, as `send` does, and once: it goes with a key of its own, so that it
        can be sent again when the connection is lost before the answer is here."""
        headers = {"Idempotency-Key": f'"{uuid4()}"'}
        if approval:
            headers["Lamassu-Approval"] = approval
        return self._object(self._answer("POST", path, body=body, headers=headers, pauses=PAUSES))

    def list(self, path: str, listing: Listing) -> Sequence[Item]:
        """The items of a list, page by page, as many as are wanted."""
        pages = self._items(path, listing)
        items = list(islice(pages, listing.limit or None))
        if listing.limit and next(pages, None) is not None:
            err.print(f"[dim]only the first {listing.limit}; --limit 0 shows all[/dim]")
        return items

    def _items(self, path: str, listing: Listing) -> Iterator[Item]:
        query = listing.query()
        while True:
            page = self._object(self._answer("GET", path, query=query))
            items, bookmark = page.get("list"), page.get("next")
            if not isinstance(items, list):
                fail(f"{self.url} does not answer like a Lamassu platform")
            yield from items
            if not bookmark:
                return
            query = [("bookmark", str(bookmark))]

    def _answer(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        may_lack: bool = False,
        pauses: Sequence[float] = (),
    ) -> httpx.Response:
        request = self._client.build_request(
            method,
            path,
            params=list(query),
            json=body if body is not None else None,
            headers=headers,
        )
        answer = self._asked(request, pauses)
        if may_lack and answer.status_code == httpx.codes.NOT_FOUND:
            return answer
        if answer.is_error:
            fail(_refusal(answer, path, self._directory))
        if answer.status_code == httpx.codes.ACCEPTED and "location" in answer.headers:
            _wait_for_approval(self._object(answer))
        if answer.headers.get("lamassu-revocation") == "pending":
            err.print(_pending(answer.headers.get("lamassu-ceremony")))
        if job := answer.headers.get("lamassu-job"):
            err.print(f"[dim]the certificates below follow in job {escape(job)}[/dim]")
        return answer

    def _asked(self, request: httpx.Request, pauses: Sequence[float]) -> httpx.Response:
        """The answer; asked again after each of `pauses` once it may have been lost."""
        lost: httpx.HTTPError | None = None
        for pause in (*pauses, None):
            try:
                answer = self._client.send(request)
            except httpx.ConnectError as error:
                # a platform that was never there is told at once, one that restarts is waited for
                if pause is None or lost is None:
                    fail(_unreachable(self.url, self._directory, lost or error))
            except httpx.TransportError as error:
                if pause is None:
                    fail(self._unanswered(error))
                lost = error
            else:
                under_way = _code_of(answer) == "request_in_progress"
                if pause is None or not under_way:
                    return answer
            time.sleep(pause)
        raise AssertionError("the last try returns or fails")

    def _unanswered(self, error: httpx.TransportError) -> str:
        if isinstance(error, httpx.TimeoutException):
            return f"{self.url} did not answer within {TIMEOUT:.0f} s; try again"
        return _unreachable(self.url, self._directory, error)

    def _object(self, answer: httpx.Response) -> Item:
        if not answer.content:
            return {}
        try:
            document = answer.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            fail(f"{self.url} does not answer like a Lamassu platform")
        return document


def _code_of(answer: httpx.Response) -> str:
    if not answer.is_error:
        return ""
    try:
        return str(answer.json()["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def _wait_for_approval(approval: Item) -> NoReturn:
    policies = [
        f"{policy.get('required')} of {', '.join(map(str, policy.get('of') or ()))}"
        for policy in approval.get("policies") or ()
    ]
    waits(
        str(approval.get("id", "")),
        "nothing was done yet: this needs the approval of " + " and ".join(policies),
    )


def _pending(ceremony: str | None) -> str:
    if ceremony is None:
        return "[yellow]revoked; OCSP and CRL do not show it yet[/yellow]"
    ca = escape(ceremony)
    return (
        f"[yellow]revoked; the CRL of {ca}, whose key is offline, has to be made at its"
        f" ceremony:[/yellow]\n`lamassu va export-revocations {ca}` writes what it must list"
    )


def segment(name: str) -> str:
    """An id as a segment of a path."""
    return quote(name, safe="")


def configured_url(directory: Path) -> str:
    """The first public URL of the installation's configuration, if there is one here."""
    path = Installation(directory).config
    if not path.is_file():
        return DEFAULT_URL
    try:
        return public_urls(path)[0]
    except (ConfigurationFaults, OSError, ValueError, IndexError):
        err.print(
            f"[dim]{escape(str(path))} says no address (`lamassu config check` says why);"
            f" trying {DEFAULT_URL}[/dim]"
        )
        return DEFAULT_URL


def without_empty(document: Mapping[str, object]) -> dict[str, object]:
    """What was given; options that were left out are not sent."""
    return {name: value for name, value in document.items() if value not in (None, "", [], {})}


def read_document(path: Path) -> Item:
    """A JSON or YAML object from a file, or from standard input as `-`."""
    return parse_document(read_input(path), path)


def read_input(path: Path) -> bytes:
    """A file's bytes, or those of standard input as `-`."""
    try:
        return typer.get_binary_stream("stdin").read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}")


def transport_with(directory: Path) -> httpx.BaseTransport:
    """Mutual TLS with the admin's certificate, past any proxy of the environment."""
    return httpx.HTTPTransport(verify=_tls(directory), trust_env=False)


def _tls(directory: Path) -> ssl.SSLContext:
    files = Installation(directory)
    try:
        context = ssl.create_default_context(cafile=str(files.trust_anchor))
        context.load_cert_chain(files.admin_certificate, files.admin_key)
    except FileNotFoundError:
        fail(
            f"{directory} has no admin.crt, admin.key or tls-ca.crt; "
            f"`lamassu init --dir {directory}` makes an installation, "
            "--dir names another one"
        )
    except (ssl.SSLError, PermissionError) as error:
        fail(f"admin.crt, admin.key or tls-ca.crt in {directory} cannot be used: {error}")
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _unreachable(url: str, directory: Path, error: httpx.HTTPError) -> str:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return (
            f"the server at {url} is not the one that {directory}/tls-ca.crt vouches for; "
            "--dir names the installation that it belongs to"
        )
    return (
        f"cannot reach {url} ({text or type(error).__name__}); "
        f"`lamassu serve --dir {directory}` starts the platform, --url says where it is"
    )


def _refusal(answer: httpx.Response, path: str, directory: Path) -> str:
    """What the platform says, and what to do where that is not said."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or not body.get("err"):
        return f"the server answered {answer.status_code}"
    text = str(body["err"])
    if field := body.get("field"):
        text += f" ({field})"
    if noun := _MISSING.get(str(body.get("code"))):
        named = _NAMED.fullmatch(path)
        if named and not field and _NOUNS.get(named["list"]) == noun:
            text += f": {unquote(named['name'])}"
        text += f"; `lamassu {noun} list` shows all"
    elif answer.status_code == 404 and (named := _NAMED.fullmatch(path)):
        text += f": {unquote(named['name'])}"
    if answer.status_code == 401:
        text += f"; `lamassu admin issue NAME --dir {directory}` makes a new admin certificate"
    if seconds := answer.headers.get("retry-after"):
        text += f"; try again in {seconds} s"
    if request_id := body.get("request_id"):
        text += f"; request id {request_id}"
    return text
