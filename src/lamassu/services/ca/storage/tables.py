"""The CA's tables. `EXPIRED` is in none of them: it follows from `not_after`."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    MetaData,
    Table,
    UniqueConstraint,
    func,
    literal_column,
    text,
)

from lamassu.platform.database.types import (
    BigInteger,
    Boolean,
    Integer,
    JsonDocument,
    LargeBinary,
    Text,
    UtcDateTime,
    sequence_key,
)

metadata = MetaData()

certificates = Table(
    "ca_certificates",
    metadata,
    Column("serial_number", Text, primary_key=True),
    Column("der", LargeBinary, nullable=False),
    Column("csr", LargeBinary),  # never read with the rest; kept from the first day (decision 35)
    Column("subject", JsonDocument, nullable=False),
    Column("common_name", Text, nullable=False),
    Column("issuer", JsonDocument, nullable=False),
    Column("subject_key_id", Text, nullable=False),
    Column("authority_key_id", Text, nullable=False),
    Column("issuer_ca_id", Text, nullable=False),
    Column("issuer_serial_number", Text, nullable=False),
    Column("issuer_level", Integer, nullable=False),
    Column("not_before", UtcDateTime, nullable=False),
    Column("not_after", UtcDateTime, nullable=False),
    Column("status", Text, nullable=False),
    Column("revocation_time", UtcDateTime),
    Column("revocation_reason", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("is_ca", Boolean, nullable=False),
    Column("key_algorithm", Text, nullable=False),
    Column("key_size", Integer, nullable=False),
    Column("engine_id", Text, nullable=False),
    Column("key_usage", JsonDocument, nullable=False),
    Column("extended_key_usages", JsonDocument, nullable=False),
    Column("metadata", JsonDocument, nullable=False),
    Column("owner", Text, nullable=False),
    Column("device_id", Text, nullable=False),
    Column("awaits_binding", Boolean, nullable=False),
    Column("request_key", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("version", Integer, nullable=False),
    Column("reissued_as", Text),  # of a CA's certificate: the serial number that followed it
    Column("reissued_at", UtcDateTime),
    Column("reissued_from", Text),
    Column("alert_at", UtcDateTime),  # when the next of its expiration deltas is due
    Column("profile_id", Text),  # the stored profile that decided; absent if there was none
    Column("requested_by", Text),  # who brought the CSR; absent if nobody did, or long ago
    UniqueConstraint("request_key", name="uq_ca_certificates_request_key"),
    # by serial number, the order of lists: what walks a CA's certificates need not sort
    Index("ix_ca_certificates_issuer", "issuer_ca_id", "serial_number"),
    Index("ix_ca_certificates_not_after", "not_after", "serial_number"),
    Index("ix_ca_certificates_not_before", "not_before"),
    Index("ix_ca_certificates_common_name", "common_name"),
    Index("ix_ca_certificates_folded_name", func.lower(literal_column("common_name"))),
    Index("ix_ca_certificates_subject_key_id", "subject_key_id"),
    Index("ix_ca_certificates_profile_id", "profile_id", "serial_number"),
    Index(
        "ix_ca_certificates_awaiting",
        "created_at",
        postgresql_where=text("awaits_binding"),
        sqlite_where=text("awaits_binding = 1"),
    ),
    Index(
        "ix_ca_certificates_alert_at",
        "alert_at",
        postgresql_where=text("alert_at IS NOT NULL"),
        sqlite_where=text("alert_at IS NOT NULL"),
    ),
    # what hardly a row has: an enrolment writes none of these
    *(
        Index(
            f"ix_ca_certificates_{name}",
            *columns,
            postgresql_where=text(where),
            sqlite_where=text(where),
        )
        for name, columns, where in (
            ("unusual_status", ["status", "serial_number"], "status <> 'ACTIVE'"),
            (
                "issuer_unusual",
                ["issuer_ca_id", "status", "serial_number"],
                "status <> 'ACTIVE'",
            ),
            ("revoked", ["revocation_time", "serial_number"], "revocation_time IS NOT NULL"),
            (
                "reason",
                ["revocation_reason", "serial_number"],
                "revocation_reason <> 'Unspecified'",
            ),
            ("type", ["type", "serial_number"], "type <> 'IMPORTED_WITHOUT_KEY'"),
            ("engine", ["engine_id", "serial_number"], "engine_id <> ''"),
            ("of_cas", ["serial_number"], "is_ca"),
        )
    ),
    Index(
        "ix_ca_certificates_metadata",
        "metadata",
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
        postgresql_where=text("metadata <> '{}'"),
    ).ddl_if(dialect="postgresql"),
    Index(
        "ix_ca_certificates_usages", "key_usage", "extended_key_usages", postgresql_using="gin"
    ).ddl_if(dialect="postgresql"),
    # and where PostgreSQL has pg_trgm, common names by groups of letters
)

# How many certificates there are by issuer, stored status and day of their end. Triggers keep
# them: on PostgreSQL as changes, which a job folds into the counts, on SQLite at once.
certificate_counts = Table(
    "ca_certificate_counts",
    metadata,
    Column("issuer_ca_id", Text, primary_key=True),
    Column("status", Text, primary_key=True),
    Column("expires_on", Text, primary_key=True),  # YYYY-MM-DD
    Column("certificates", BigInteger, nullable=False),
)
certificate_changes = Table(
    "ca_certificate_changes",
    metadata,
    Column("id", sequence_key(), primary_key=True),
    Column("issuer_ca_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("expires_on", Text, nullable=False),
    Column("certificates", BigInteger, nullable=False),
)

# Expired certificates out of the way of lists; found by their serial numbers, for OCSP too.
archived_certificates = Table(
    "ca_archived_certificates",
    metadata,
    Column("serial_number", Text, primary_key=True),
    Column("issuer_ca_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("revocation_time", UtcDateTime),
    Column("revocation_reason", Text, nullable=False),
    Column("not_after", UtcDateTime, nullable=False),
    Column("archived_at", UtcDateTime, nullable=False),
    Column("der", LargeBinary, nullable=False),
    Column("csr", LargeBinary),
    Column("content", JsonDocument, nullable=False),  # the row's other columns
)

cas = Table(
    "ca_cas",
    metadata,
    Column("id", Text, primary_key=True),
    Column("serial_number", Text, ForeignKey("ca_certificates.serial_number"), nullable=False),
    Column("key_id", Text, nullable=False),
    Column("level", Integer, nullable=False),
    Column("parent_id", Text, ForeignKey("ca_cas.id")),
    Column("profile_id", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("metadata", JsonDocument, nullable=False),
    Column("revoked_by", Text),
    Column("version", Integer, nullable=False),
    Column("approvals", JsonDocument),
    Column("successor_id", Text),
    Column("lineage_id", Text),  # of the first generation; absent for a first generation
    Column("alert_at", UtcDateTime),  # when the next of its expiration deltas is due
    Column("subject_key_id", Text),  # its certificate's
    UniqueConstraint("serial_number", name="uq_ca_cas_serial_number"),
    UniqueConstraint("successor_id", name="uq_ca_cas_successor_id"),
    # security rule 14: whoever is found by a key identifier, or by a key, is one CA
    Index("uq_ca_cas_subject_key_id", "subject_key_id", unique=True),
    Index(
        "uq_ca_cas_key_id",
        "key_id",
        unique=True,
        postgresql_where=text("key_id <> ''"),
        sqlite_where=text("key_id <> ''"),
    ),
    Index("ix_ca_cas_lineage_id", "lineage_id"),
    Index("ix_ca_cas_parent_id", "parent_id"),
    Index("ix_ca_cas_profile_id", "profile_id"),
    Index(
        "ix_ca_cas_alert_at",
        "alert_at",
        postgresql_where=text("alert_at IS NOT NULL"),
        sqlite_where=text("alert_at IS NOT NULL"),
    ),
)

profiles = Table(
    "ca_profiles",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("content", JsonDocument, nullable=False),
    Column("version", Integer, nullable=False),
)

jobs = Table(
    "ca_jobs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("ca_ids", JsonDocument, nullable=False),
    Column("revoked_at", UtcDateTime, nullable=False),
    Column("caller", JsonDocument, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("status", Text, nullable=False),
    Column("done_at", UtcDateTime),
    Column("kind", Text),
    Column("total", BigInteger),  # absent until it was counted
    Column("done", BigInteger),
    Column("announced", BigInteger),
    Column("place", Text),  # how far it has come, in words of its own
    Index("ix_ca_jobs_status", "status", "created_at"),
)

# What a job's certificates were before it, where they were not active.
job_exceptions = Table(
    "ca_job_exceptions",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("serial_number", Text, primary_key=True),
    Column("status", Text, nullable=False),
    Column("revocation_time", UtcDateTime),
    Column("revocation_reason", Text, nullable=False),
)

# How far the expiry monitor has come: all that ended before was told of.
watermarks = Table(
    "ca_watermarks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("reached", UtcDateTime, nullable=False),
    Column("serial_number", Text, nullable=False),
)

awaited = Table(
    "ca_awaited",
    metadata,
    Column("id", Text, primary_key=True),
    Column("csr", LargeBinary, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("key_algorithm", Text, nullable=False),
    Column("key_size", Integer, nullable=False),
    Column("engine_id", Text, nullable=False),
    Column("subject", JsonDocument, nullable=False),
    Column("root_id", Text, nullable=False),
    Column("profile_id", Text, nullable=False),
    Column("metadata", JsonDocument, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

approvals = Table(
    "ca_approvals",
    metadata,
    Column("id", Text, primary_key=True),
    Column("operation", Text, nullable=False),
    Column("ca_id", Text, nullable=False),  # the first of ca_ids
    Column("ca_ids", JsonDocument, nullable=False),
    Column("requester", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("request", JsonDocument, nullable=False),
    Column("policies", JsonDocument, nullable=False),
    Column("basis", JsonDocument, nullable=False),
    Column("excluded", JsonDocument, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    Column("version", Integer, nullable=False),
    Index("ix_ca_approvals_ca_status", "ca_id", "status"),
    Index("ix_ca_approvals_status_expires", "status", "expires_at"),
)

approval_votes = Table(
    "ca_approval_votes",
    metadata,
    Column("approval_id", Text, ForeignKey("ca_approvals.id"), primary_key=True),
    Column("approver", Text, primary_key=True),
    Column("verdict", Text, nullable=False),
    Column("cast_at", UtcDateTime, nullable=False),
    Column("comment", Text, nullable=False),
)
