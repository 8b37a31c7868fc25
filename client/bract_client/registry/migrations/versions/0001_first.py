"""The first schema of a site's registry."""

import sqlalchemy as sa
from alembic import op

from bract.database import DigestText, Json, Number, Utc, allow_changes, refuse_changes
from bract.log import book

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NAME = sa.String(63)

_KEPT = ("consent_event", "snapshot", "clearance", "privacy_entry", "contribution", "receipt")
_FIXED = {
    "dataset": ("name", "retention_days", "subjects_floor", "created_at"),
    "privacy_reservation": ("campaign", "number", "name", "dataset", "mechanism", "curve", "envelope", "expires_at"),
    "privacy_account": ("dataset", "delta"),
}

# What was recorded later may not claim to have been known earlier.
_MONOTONE = {
    "sqlite": (
        "CREATE TRIGGER consent_event_order BEFORE INSERT ON consent_event "
        "WHEN EXISTS (SELECT 1 FROM consent_event WHERE seq >= NEW.seq) OR NEW.recorded_at < "
        "(SELECT recorded_at FROM consent_event ORDER BY seq DESC LIMIT 1) "
        "BEGIN SELECT RAISE(ABORT, 'consent_event goes forward only'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION consent_event_order() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF EXISTS (SELECT 1 FROM consent_event WHERE seq >= NEW.seq) OR NEW.recorded_at < "
        "(SELECT recorded_at FROM consent_event ORDER BY seq DESC LIMIT 1) THEN "
        "RAISE EXCEPTION 'consent_event goes forward only' USING ERRCODE = 'integrity_constraint_violation'; "
        "END IF; RETURN NEW; END $$",
        "CREATE TRIGGER consent_event_order BEFORE INSERT ON consent_event "
        "FOR EACH ROW EXECUTE FUNCTION consent_event_order()",
    ),
}


def upgrade() -> None:
    op.create_table(
        "dataset",
        sa.Column("name", NAME, nullable=False),
        sa.Column("location", Json, nullable=False),
        sa.Column("retention_days", Number, nullable=True),
        sa.Column("subjects_floor", Number, nullable=False),
        sa.Column("member_seq", Number, nullable=False),
        sa.Column("created_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_dataset")),
    )
    op.create_table(
        "log_entry",
        sa.Column("seq", Number, autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("about", sa.String(length=200), nullable=False),
        sa.Column("commitment", DigestText, nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_log_entry")),
    )
    op.create_index(op.f("ix_log_entry_about"), "log_entry", ["about"], unique=False)
    op.create_index(op.f("ix_log_entry_kind"), "log_entry", ["kind"], unique=False)
    op.create_table(
        "notice_outbox",
        sa.Column("no", Number, nullable=False),
        sa.Column("snapshots", Json, nullable=False),
        sa.Column("queued_at", Utc(), nullable=False),
        sa.Column("notice", sa.String(length=64), nullable=True),
        sa.Column("noticed_at", Utc(), nullable=True),
        sa.Column("sent_at", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("no", name=op.f("pk_notice_outbox")),
    )
    op.create_table(
        "privacy_entry",
        sa.Column("seq", Number, nullable=False),
        sa.Column("campaign", DigestText, nullable=False),
        sa.Column("number", Number, nullable=False),
        sa.Column("dataset", NAME, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("mechanism", Json, nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_privacy_entry")),
        sa.UniqueConstraint("campaign", "number", "state", name=op.f("uq_privacy_entry_campaign_number_state")),
    )
    op.create_table(
        "subject",
        sa.Column("subject_no", Number, autoincrement=False, nullable=False),
        sa.Column("handle", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", DigestText, nullable=False),
        sa.Column("created_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("subject_no", name=op.f("pk_subject")),
        sa.UniqueConstraint("handle", name=op.f("uq_subject_handle")),
    )
    op.create_table(
        "consent_event",
        sa.Column("seq", Number, autoincrement=False, nullable=False),
        sa.Column("subject_no", Number, nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("scope", NAME, nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("valid_from", Utc(), nullable=False),
        sa.Column("valid_to", Utc(), nullable=True),
        sa.Column("recorded_at", Utc(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("source_ref", sa.String(length=128), nullable=False),
        sa.CheckConstraint("valid_to IS NULL OR valid_to > valid_from", name=op.f("ck_consent_event_valid")),
        sa.ForeignKeyConstraint(["subject_no"], ["subject.subject_no"], name=op.f("fk_consent_event_subject_no")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_consent_event")),
        sa.UniqueConstraint("source", "source_ref", name=op.f("uq_consent_event_source_source_ref")),
    )
    op.create_index(
        "ix_consent_event_subject_no_purpose", "consent_event", ["subject_no", "purpose", "scope"], unique=False
    )
    op.create_table(
        "log_body",
        sa.Column("seq", Number, autoincrement=False, nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["seq"], ["log_entry.seq"], name=op.f("fk_log_body_seq")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_log_body")),
    )
    op.create_table(
        "log_checkpoint",
        sa.Column("size", Number, autoincrement=False, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["size"], ["log_entry.seq"], name=op.f("fk_log_checkpoint_size")),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_log_checkpoint")),
    )
    op.create_table(
        "privacy_account",
        sa.Column("dataset", NAME, nullable=False),
        sa.Column("cap_epsilon", sa.Float(precision=53), nullable=False),
        sa.Column("delta", sa.Float(precision=53), nullable=False),
        sa.Column("curve", Json, nullable=False),
        sa.ForeignKeyConstraint(["dataset"], ["dataset.name"], name=op.f("fk_privacy_account_dataset")),
        sa.PrimaryKeyConstraint("dataset", name=op.f("pk_privacy_account")),
    )
    op.create_table(
        "quarantine",
        sa.Column("dataset", NAME, nullable=False),
        sa.Column("line", Number, autoincrement=False, nullable=False),
        sa.Column("reason", sa.String(length=32), nullable=False),
        sa.ForeignKeyConstraint(["dataset"], ["dataset.name"], name=op.f("fk_quarantine_dataset")),
        sa.PrimaryKeyConstraint("dataset", "line", name=op.f("pk_quarantine")),
    )
    op.create_table(
        "record",
        sa.Column("record_no", Number, autoincrement=False, nullable=False),
        sa.Column("dataset", NAME, nullable=False),
        sa.Column("subject_no", Number, nullable=False),
        sa.Column("record_id", sa.String(length=256), nullable=False),
        sa.Column("record_digest", sa.LargeBinary(), nullable=False),
        sa.Column("collected_at", Utc(), nullable=False),
        sa.Column("added_seq", Number, nullable=False),
        sa.Column("removed_seq", Number, nullable=True),
        sa.CheckConstraint("removed_seq > added_seq", name=op.f("ck_record_interval")),
        sa.ForeignKeyConstraint(["dataset"], ["dataset.name"], name=op.f("fk_record_dataset")),
        sa.ForeignKeyConstraint(["subject_no"], ["subject.subject_no"], name=op.f("fk_record_subject_no")),
        sa.PrimaryKeyConstraint("record_no", name=op.f("pk_record")),
    )
    op.create_index(op.f("ix_record_subject_no"), "record", ["subject_no"], unique=False)
    op.create_index(
        "uq_record_live",
        "record",
        ["dataset", "record_id"],
        unique=True,
        sqlite_where=sa.text("removed_seq IS NULL"),
        postgresql_where=sa.text("removed_seq IS NULL"),
    )
    op.create_table(
        "snapshot",
        sa.Column("root", DigestText, nullable=False),
        sa.Column("dataset", NAME, nullable=False),
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("until", Utc(), nullable=True),
        sa.Column("consent_seq", Number, nullable=False),
        sa.Column("member_seq", Number, nullable=False),
        sa.Column("n_subjects", Number, nullable=False),
        sa.Column("n_records", Number, nullable=False),
        sa.ForeignKeyConstraint(["dataset"], ["dataset.name"], name=op.f("fk_snapshot_dataset")),
        sa.PrimaryKeyConstraint("root", name=op.f("pk_snapshot")),
    )
    op.create_table(
        "clearance",
        sa.Column("name", DigestText, nullable=False),
        sa.Column("campaign", DigestText, nullable=False),
        sa.Column("number", Number, nullable=False),
        sa.Column("snapshot", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("issued_at", Utc(), nullable=False),
        sa.Column("expires_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["snapshot"], ["snapshot.root"], name=op.f("fk_clearance_snapshot")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_clearance")),
    )
    op.create_index("ix_clearance_campaign_number", "clearance", ["campaign", "number"], unique=False)
    op.create_table(
        "consent_current",
        sa.Column("purpose", sa.String(length=32), nullable=False),
        sa.Column("scope", NAME, nullable=False),
        sa.Column("subject_no", Number, autoincrement=False, nullable=False),
        sa.Column("decision", sa.String(length=16), nullable=False),
        sa.Column("refusal", Number, nullable=False),
        sa.Column("valid_from", Utc(), nullable=False),
        sa.Column("valid_to", Utc(), nullable=True),
        sa.Column("seq", Number, nullable=False),
        sa.ForeignKeyConstraint(["seq"], ["consent_event.seq"], name=op.f("fk_consent_current_seq")),
        sa.ForeignKeyConstraint(["subject_no"], ["subject.subject_no"], name=op.f("fk_consent_current_subject_no")),
        sa.PrimaryKeyConstraint("purpose", "scope", "subject_no", name=op.f("pk_consent_current")),
    )
    op.create_table(
        "privacy_reservation",
        sa.Column("campaign", DigestText, nullable=False),
        sa.Column("number", Number, autoincrement=False, nullable=False),
        sa.Column("name", DigestText, nullable=False),
        sa.Column("dataset", NAME, nullable=False),
        sa.Column("mechanism", Json, nullable=False),
        sa.Column("curve", Json, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("expires_at", Utc(), nullable=False),
        sa.Column("begun_at", Utc(), nullable=True),
        sa.CheckConstraint("state IN ('reserved', 'settled', 'spent')", name=op.f("ck_privacy_reservation_state")),
        sa.ForeignKeyConstraint(["dataset"], ["privacy_account.dataset"], name=op.f("fk_privacy_reservation_dataset")),
        sa.PrimaryKeyConstraint("campaign", "number", name=op.f("pk_privacy_reservation")),
        sa.UniqueConstraint("name", name=op.f("uq_privacy_reservation_name")),
    )
    op.create_index(op.f("ix_privacy_reservation_dataset"), "privacy_reservation", ["dataset"], unique=False)
    op.create_table(
        "contribution",
        sa.Column("campaign", DigestText, nullable=False),
        sa.Column("number", Number, autoincrement=False, nullable=False),
        sa.Column("name", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("kept_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(
            ["campaign", "number"],
            ["privacy_reservation.campaign", "privacy_reservation.number"],
            name=op.f("fk_contribution_campaign_number"),
        ),
        sa.PrimaryKeyConstraint("campaign", "number", name=op.f("pk_contribution")),
        sa.UniqueConstraint("name", name=op.f("uq_contribution_name")),
    )
    op.create_table(
        "receipt",
        sa.Column("contribution", DigestText, nullable=False),
        sa.Column("number", Number, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("kept_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["contribution"], ["contribution.name"], name=op.f("fk_receipt_contribution")),
        sa.PrimaryKeyConstraint("contribution", name=op.f("pk_receipt")),
        sa.UniqueConstraint("number", name=op.f("uq_receipt_number")),
    )
    dialect = op.get_bind().dialect.name
    guards = [ddl for table in _KEPT for ddl in refuse_changes(dialect, table)]
    guards += [ddl for table, columns in _FIXED.items() for ddl in refuse_changes(dialect, table, columns)]
    for ddl in (*guards, *_MONOTONE[dialect], *book.guards(dialect)):
        op.execute(ddl)


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    for ddl in (
        *(ddl for table in (*_KEPT, *_FIXED) for ddl in allow_changes(dialect, table)),
        *book.unguards(dialect),
    ):
        op.execute(ddl)
    if dialect == "postgresql":
        op.execute("DROP TRIGGER consent_event_order ON consent_event")
        op.execute("DROP FUNCTION consent_event_order()")
    op.drop_table("receipt")
    op.drop_table("contribution")
    op.drop_table("privacy_reservation")
    op.drop_table("consent_current")
    op.drop_table("clearance")
    op.drop_table("snapshot")
    op.drop_table("record")
    op.drop_table("quarantine")
    op.drop_table("privacy_account")
    op.drop_table("log_checkpoint")
    op.drop_table("log_body")
    op.drop_table("consent_event")
    op.drop_table("subject")
    op.drop_table("privacy_entry")
    op.drop_table("notice_outbox")
    op.drop_table("log_entry")
    op.drop_table("dataset")
