"""Foreign pages: a browser that holds an admin's certificate may be led here by any of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from lamassu.kernel.errors import Forbidden

_OWN_SITES = (b"same-origin", b"none")
_DEFAULT_PORTS = {"https": ":443", "http": ":80"}


class Origins:
    """The configured public names, as origins (RFC 6454)."""

    def __init__(self, public_hosts: Iterable[str]) -> None:
        """Each as `pki.example`, `pki.example:8443` (https both) or a whole `https://…`."""
        hosts = list(public_hosts)
        self._own = frozenset(_origin(host).encode("ascii") for host in hosts)
        self.first_host = _origin(hosts[0]).partition("://")[2] if hosts else "localhost"

    def is_own(self, origin: bytes) -> bool:
        """Whether an `Origin` header names us; `null` does not."""
        return origin in self._own

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Refuse what a foreign page sent. Raises `Forbidden` (`foreign_origin`)."""
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if origin is not None and origin not in self._own:
            raise Forbidden(
                "the request comes from a page of another origin; use a configured public name",
                code="foreign_origin",
            )
        if site is not None and site not in _OWN_SITES:
            raise Forbidden("the request comes from a page of another site", code="foreign_origin")


def _origin(host: str) -> str:
    origin = (host if "://" in host else f"https://{host}").lower().rstrip("/")
    return origin.removesuffix(_DEFAULT_PORTS.get(origin.partition("://")[0], "\0"))
