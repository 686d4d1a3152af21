"""How long lists of certificates take, and what a certificate takes on disk.

Fills a PostgreSQL of its own with certificates (real DER, each with names, serial number, key
id and dates of its own; the signatures are not right) and prints, for each size, p50 and p99 of
first and deep pages, of each indexed filter and sort (docs/reference/lists.md), of the expiry
window, counts and one certificate by its serial number, through the storage that the routes
use. Figures to read and explain, not a test.

    .venv/bin/python bench/list.py --sizes 10000,100000,1000000

10^7 certificates need some 30 GB of disk and, on two cores, an hour.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import asyncpg
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.support.postgres import PostgresCluster

from lamassu.kernel.clock import SystemClock
from lamassu.kernel.listing import Filter, ListQuery, Operator
from lamassu.platform.database import Database, DatabaseSettings, RecordWriter, migrate
from lamassu.services.ca.contract import CertificateStatus
from lamassu.services.ca.model import CertificateScope
from lamassu.services.ca.storage import CaStorage

CHUNK = 200_000
SERIAL = bytes(range(0x40, 0x50))
NAME = "device-00000000"
KEY_ID = bytes(range(0x80, 0xA0))
BEGIN, END = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC), datetime(2007, 8, 9, 10, 11, 12, tzinfo=UTC)
SERVER = (
    "shared_buffers = '2GB'",
    "maintenance_work_mem = '1GB'",
    "max_wal_size = '8GB'",
    "work_mem = '16MB'",
    "effective_cache_size = '10GB'",
    "random_page_cost = 1.1",
)


def certificate() -> bytes:
    """One device's certificate, as an enrolment makes it, with marks where others differ."""
    key = ec.generate_private_key(ec.SECP256R1())
    usages = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
    usages += ("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Issuing CA 1")])
    url = "http://pki.example.com:8080"
    builder = (
        x509.CertificateBuilder()
        .serial_number(int.from_bytes(SERIAL))
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .not_valid_before(BEGIN)
        .not_valid_after(END)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(KEY_ID), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(bytes(32), None, None), critical=False)
        .add_extension(
            x509.KeyUsage(**{usage: usage == "digital_signature" for usage in usages}),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityInformationAccess(
                [
                    x509.AccessDescription(
                        x509.AuthorityInformationAccessOID.OCSP,
                        x509.UniformResourceIdentifier(f"{url}/ocsp"),
                    )
                ]
            ),
            critical=False,
        )
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def filling(der: bytes) -> str:
    """An INSERT of certificates $1 to $2; $3 is how many there will be.

    Issued over 2.2 years for two each, half of them by one CA, two in a hundred revoked, a tenth
    with metadata. All that is per certificate is a hash of its number.
    """
    patched = "$4::bytea"
    for mark, value in (
        (SERIAL, "serial"),
        (NAME.encode(), "convert_to(cn, 'UTF8')"),
        (KEY_ID, "ski"),
        (f"{BEGIN:%y%m%d%H%M%S}".encode(), "convert_to(to_char(nb, 'YYMMDDHH24MISS'), 'UTF8')"),
        (f"{END:%y%m%d%H%M%S}".encode(), "convert_to(to_char(na, 'YYMMDDHH24MISS'), 'UTF8')"),
    ):
        patched = f"overlay({patched} placing {value} from {der.index(mark) + 1})"
    return f"""
    INSERT INTO ca.ca_certificates (serial_number, der, subject, common_name, issuer,
        subject_key_id, authority_key_id, issuer_ca_id, issuer_serial_number, issuer_level,
        not_before, not_after, status, revocation_time, revocation_reason, type, is_ca,
        key_algorithm, key_size, engine_id, key_usage, extended_key_usages, metadata, owner,
        device_id, awaits_binding, request_key, created_at, version)
    SELECT encode(serial, 'hex'), {patched},
        jsonb_build_object('common_name', cn, 'organization', '', 'organization_unit', '',
            'country', '', 'state', '', 'locality', ''), cn,
        '{{"common_name": "Issuing CA 1", "organization": "", "organization_unit": "",
           "country": "", "state": "", "locality": ""}}',
        encode(ski, 'hex'), repeat('0', 64),
        CASE WHEN i % 2 = 0 THEN 'ca-0' WHEN i % 10007 = 1 THEN 'ca-small'
             ELSE 'ca-' || i % 19 END,
        repeat('1', 32), 1, nb, na,
        CASE WHEN revoked THEN 'REVOKED' WHEN i % 5003 = 0 THEN 'INACTIVE' ELSE 'ACTIVE' END,
        CASE WHEN revoked THEN nb + interval '30 days' END,
        CASE WHEN revoked THEN (ARRAY['KeyCompromise', 'Superseded', 'CessationOfOperation',
             'CertificateHold'])[1 + i % 4] ELSE 'Unspecified' END,
        CASE WHEN i % 20011 = 0 THEN 'MANAGED' ELSE 'IMPORTED_WITHOUT_KEY' END, false,
        'ECDSA', 256, CASE WHEN i % 20011 = 0 THEN 'hsm-1' ELSE '' END,
        '["DigitalSignature"]',
        CASE WHEN i % 50021 = 0 THEN '["CodeSigning"]'::jsonb ELSE '["ClientAuth"]' END,
        CASE WHEN i % 10 = 0
             THEN jsonb_build_object('env', 'prod', 'site', i % 1000, 'batch', i / 1000)
             ELSE '{{}}' END,
        'factory', cn, false, encode(sha256(serial), 'hex'), nb, 1
    FROM (
        SELECT i, 'device-' || lpad(i::text, 8, '0') AS cn,
            decode('5' || substr(md5(i::text), 2), 'hex') AS serial,
            sha256(i::text::bytea) AS ski, i % 51 = 7 AS revoked,
            nb, nb + interval '2 years' AS na
        FROM (
            SELECT i, date_trunc('second', now())
                - make_interval(secs => 69400000.0 * (1 - i / $3::float8)) AS nb
            FROM generate_series($1::int, $2::int) AS i
        ) AS numbered
    ) AS made
    """


async def fill(url: str, have: int, size: int) -> None:
    """From `have` certificates to `size`: without the indexes, which are then made at once."""
    der = certificate()
    connection = await asyncpg.connect(url, timeout=60, command_timeout=None)
    try:
        await connection.execute("ALTER TABLE ca.ca_certificates DISABLE TRIGGER USER")
        indexes = await connection.fetch(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'ca'"
            " AND tablename = 'ca_certificates' AND indexname LIKE 'ix_%'"
        )
        for index in indexes:
            await connection.execute(f"DROP INDEX ca.{index['indexname']}")
        statement = filling(der)
        for start in range(have, size, CHUNK):
            last = min(start + CHUNK, size) - 1
            await connection.execute(statement, start, last, max(size, 1), der)
        for index in indexes:
            begun = time.monotonic()
            await connection.execute(index["indexdef"])
            print(f"    {index['indexname']}: {time.monotonic() - begun:.0f} s", flush=True)
        await connection.execute(
            "TRUNCATE ca.ca_certificate_counts;"
            "INSERT INTO ca.ca_certificate_counts SELECT issuer_ca_id, status,"
            " to_char(not_after AT TIME ZONE 'UTC', 'YYYY-MM-DD'), count(*)"
            " FROM ca.ca_certificates GROUP BY 1, 2, 3;"
            "ALTER TABLE ca.ca_certificates ENABLE TRIGGER USER"
        )
        await connection.execute("VACUUM (ANALYZE) ca.ca_certificates")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


Ask = Callable[[int], Awaitable[object]]


@dataclass(frozen=True)
class Questions:
    """Each is asked with a number that picks another certificate or page."""

    storage: CaStorage
    size: int
    serials: list[str]

    def page(
        self, query: ListQuery, scope: CertificateScope | None = None, *, deep: bool = False
    ) -> Ask:
        async def ask(number: int) -> object:
            asked = query
            if deep:
                asked = replace(query, after=(None, self.serials[number % len(self.serials)]))
            return await self.storage.page_certificates(
                asked, now=datetime.now(UTC), scope=scope or CertificateScope()
            )

        return ask

    def filtered(self, field: str, operator: Operator, value: object) -> Ask:
        async def ask(number: int) -> object:
            chosen = value(number) if callable(value) else value
            query = ListQuery(filters=[Filter(field, operator, chosen)])
            return await self.storage.page_certificates(
                query, now=datetime.now(UTC), scope=CertificateScope()
            )

        return ask

    def deep(self, sort_by: str, *, descending: bool) -> Ask:
        """Twenty pages further, each from where the one before ended."""
        place: dict[str, tuple[str | float | None, str] | None] = {"after": None}

        async def ask(number: int) -> object:
            query = ListQuery(sort_by=sort_by, descending=descending, after=place["after"])
            page = await self.storage.page_certificates(
                query, now=datetime.now(UTC), scope=CertificateScope()
            )
            place["after"] = page.after
            return page

        return ask

    def name(self, number: int) -> str:
        return f"device-{(number * 7919 + 123457) % self.size:08}"

    def all(self) -> Iterator[tuple[str, Ask]]:
        now = datetime.now(UTC)
        equal, contains = Operator.EQ, Operator.CT
        yield (
            "one by serial number",
            lambda n: self.storage.find_certificate(self.serials[n % len(self.serials)]),
        )
        yield "first page", self.page(ListQuery())
        yield "page of 1000", self.page(ListQuery(page_size=1000))
        yield "deep page", self.page(ListQuery(), deep=True)
        for scope, name in (
            (CertificateScope(issuer_ca_id="ca-0"), "of the largest CA"),
            (CertificateScope(issuer_ca_id="ca-small"), "of a small CA"),
            (CertificateScope(status=CertificateStatus.ACTIVE), "ACTIVE"),
            (CertificateScope(status=CertificateStatus.EXPIRED), "EXPIRED"),
            (CertificateScope(status=CertificateStatus.REVOKED), "REVOKED"),
            (
                CertificateScope(expires_after=now, expires_before=now + timedelta(days=30)),
                "expiring within 30 days",
            ),
        ):
            yield f"{name}", self.page(ListQuery(), scope)
            yield f"{name}, deep page", self.page(ListQuery(), scope, deep=True)
        for field, operator, value in (
            ("serial_number", equal, lambda n: self.serials[n % len(self.serials)]),
            ("subject.common_name", equal, self.name),
            ("subject.common_name", Operator.EQ_IC, lambda n: self.name(n).upper()),
            ("subject.common_name", contains, lambda n: self.name(n)[8:]),
            ("subject_key_id", equal, "00" * 32),
            ("issuer_meta.id", equal, "ca-7"),
            ("status", equal, "EXPIRED"),
            ("status", equal, "INACTIVE"),
            ("type", equal, "MANAGED"),
            ("engine_id", equal, "hsm-1"),
            ("is_ca", equal, "true"),
            ("valid_to", Operator.BF, now - timedelta(days=60)),
            ("valid_from", Operator.AF, now - timedelta(days=1)),
            ("revocation_timestamp", Operator.AF, now - timedelta(days=1)),
            ("revocation_reason", equal, "KeyCompromise"),
            ("extensions.key_usage", contains, "DigitalSignature"),
            ("extensions.extended_key_usage", contains, "CodeSigning"),
            *self._json_filters(),
        ):
            shown = value if isinstance(value, str) else ""
            yield f"{field} {operator.value} {shown}", self.filtered(field, operator, value)
        for field in (
            *("type", "subject.common_name", "subject_key_id", "status", "engine_id"),
            *("valid_to", "valid_from", "revocation_timestamp", "revocation_reason", "is_ca"),
            "issuer_meta.id",
        ):
            for descending in (False, True):
                way = "desc" if descending else "asc"
                yield (
                    f"sort by {field} {way}",
                    self.page(ListQuery(sort_by=field, descending=descending)),
                )
                yield "... and on", self.deep(field, descending=descending)
        yield "stats", lambda n: self.storage.stats(now=datetime.now(UTC))
        yield (
            "stats of a CA",
            lambda n: self.storage.stats(now=datetime.now(UTC), issuer_ca_id=f"ca-{n % 19}"),
        )

    def _json_filters(self) -> Iterator[tuple[str, Operator, object]]:
        if hasattr(Operator, "JSONPATH"):
            yield "metadata", Operator.JSONPATH, '($."batch" == 7)'
            yield "metadata", Operator.JSONPATH, '($."env" == "prod")'


async def measure(name: str, ask: Ask, times: int) -> None:
    taken = []
    failed = ""
    for number in range(times):
        begun = time.perf_counter()
        try:
            await ask(number)
        except Exception as error:  # noqa: BLE001 - a figure is missing, the others are not
            failed = f"  {type(error).__name__}: {error}"
        taken.append((time.perf_counter() - begun) * 1000)
        if sum(taken) > 20_000:
            break
    taken.sort()
    p50, p99 = taken[len(taken) // 2], taken[min(len(taken) - 1, len(taken) * 99 // 100)]
    print(f"  {name:52} {p50:9.1f} {p99:9.1f}{failed}", flush=True)


async def sizes_of(url: str, count: int) -> None:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT relname, pg_relation_size(c.oid) AS size FROM pg_class c"
            " JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'ca'"
            " AND (relname = 'ca_certificates' OR c.oid IN (SELECT indexrelid FROM pg_index"
            " WHERE indrelid = 'ca.ca_certificates'::regclass)) ORDER BY 2 DESC"
        )
        total = await connection.fetchval("SELECT pg_total_relation_size('ca.ca_certificates')")
    finally:
        await connection.close()
    print(f"  storage: {total / count:.0f} bytes per certificate, {total / 1e9:.2f} GB in all")
    for row in rows:
        if row["size"] / count >= 1:
            print(f"    {row['relname']:50} {row['size'] / count:7.0f}")


async def run(url: str, sizes: list[int], times: int) -> None:
    settings = DatabaseSettings.from_url(url)
    await migrate(settings, ["ca"])
    connection = await asyncpg.connect(url, command_timeout=None)
    have = await connection.fetchval("SELECT count(*) FROM ca.ca_certificates")
    await connection.close()
    for size in sizes:
        begun = time.monotonic()
        if have < size:
            await fill(url, have, size)
        have = size
        print(f"{size:,} certificates (filled in {time.monotonic() - begun:.0f} s)", flush=True)
        await sizes_of(url, size)
        database = await Database.open(
            settings, services=["ca"], writer=RecordWriter(b"k" * 32), clock=SystemClock()
        )
        try:
            connection = await asyncpg.connect(url)
            serials = [
                row[0]
                for row in await connection.fetch(
                    "SELECT encode(decode('5' || substr(md5(i::text), 2), 'hex'), 'hex')"
                    " FROM generate_series(0, $1::int - 1, greatest($1::int / 997, 1)) AS i",
                    size,
                )
            ]
            await connection.close()
            print(f"  {'':52} {'p50 ms':>9} {'p99 ms':>9}")
            for name, ask in Questions(CaStorage(database), size, serials).all():
                await measure(name, ask, times)
        finally:
            await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--times", type=int, default=100, help="how often each is asked")
    parser.add_argument("--keep", help="database URL to fill instead of a server of its own")
    arguments = parser.parse_args()
    sizes = sorted(int(float(size)) for size in arguments.sizes.split(","))
    free = shutil.disk_usage("/var/tmp").free
    if not arguments.keep and sizes[-1] * 4000 > free:
        parser.error(f"{sizes[-1]:,} certificates need some {sizes[-1] * 4 // 10**6} GB of disk")
    os.environ.setdefault("TMPDIR", "/var/tmp")
    if arguments.keep:
        asyncio.run(run(arguments.keep, sizes, arguments.times))
        return
    cluster = PostgresCluster(options=SERVER)
    try:
        cluster.create()
        cluster.start()
        cluster.sql("CREATE DATABASE lists")
        asyncio.run(run(cluster.url("lists"), sizes, arguments.times))
    finally:
        cluster.remove()


if __name__ == "__main__":
    main()
