"""The first schema: everything from an enrolled site to a withdrawal's impact, and the triggers that keep it."""

import sqlalchemy as sa
from alembic import op

from bract.database import DigestText, Json, Number, Utc, allow_changes, refuse_changes
from bract.log import book

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "log_entry",
    "log_body",
    "log_checkpoint",
    "site",
    "site_certificate",
    "campaign",
    "campaign_site",
    "encoder_version",
    "server_state",
    "round",
    "clearance",
    "reservation",
    "refusal",
    "round_plan",
    "participant",
    "contribution",
    "round_outcome",
    "receipt",
    "lineage_node",
    "lineage_edge",
    "withdrawal_notice",
    "withdrawal_snapshot",
    "withdrawal_impact",
    "clearance_revocation",
)
"""In the order in which they may be made."""

KEPT = {
    "site": ("name", "verify_key", "node_fingerprint", "node_public_pem", "subjects_floor", "registered_at"),
    "campaign": ("digest", "name", "envelope", "created_at"),
    "round": ("id", "campaign", "number", "proposal", "proposed_at"),
}
"""The columns that never change, of the tables that have others. No other table changes at all."""


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    _log()
    _sites()
    _campaigns()
    _proposals()
    _answers()
    _rounds()
    _lineage()
    _withdrawals()
    for table in TABLES:
        if not table.startswith("log_"):
            _run(refuse_changes(dialect, table, KEPT.get(table, ())))
    _run(book.guards(dialect))


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    _run(book.unguards(dialect))
    for table in reversed(TABLES):
        _run(allow_changes(dialect, table))
        op.drop_table(table)


def _run(statements: tuple[str, ...]) -> None:
    for statement in statements:
        op.execute(statement)


def _log() -> None:
    op.create_table(
        "log_entry",
        sa.Column("seq", Number, autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("at", Utc(), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("about", sa.String(200), nullable=False),
        sa.Column("commitment", DigestText, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_log_entry"),
    )
    op.create_index("ix_log_entry_about", "log_entry", ["about"])
    op.create_index("ix_log_entry_kind", "log_entry", ["kind"])
    op.create_table(
        "log_body",
        sa.Column("seq", Number, autoincrement=False, nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["seq"], ["log_entry.seq"], name="fk_log_body_seq"),
        sa.PrimaryKeyConstraint("seq", name="pk_log_body"),
    )
    op.create_table(
        "log_checkpoint",
        sa.Column("size", Number, autoincrement=False, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["size"], ["log_entry.seq"], name="fk_log_checkpoint_size"),
        sa.PrimaryKeyConstraint("size", name="pk_log_checkpoint"),
    )


def _sites() -> None:
    op.create_table(
        "site",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("verify_key", sa.String(64), nullable=False),
        sa.Column("node_fingerprint", DigestText, nullable=False),
        sa.Column("node_public_pem", sa.Text(), nullable=False),
        sa.Column("subjects_floor", Number, nullable=False),
        sa.Column("registered_at", Utc(), nullable=False),
        sa.Column("revoked_at", Utc(), nullable=True),
        sa.Column("seen_at", Utc(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_site"),
        sa.UniqueConstraint("node_fingerprint", name="uq_site_node_fingerprint"),
        sa.UniqueConstraint("verify_key", name="uq_site_verify_key"),
    )
    op.create_table(
        "site_certificate",
        sa.Column("id", Number, nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("fingerprint", DigestText, nullable=False),
        sa.Column("recorded_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_site_certificate_site"),
        sa.PrimaryKeyConstraint("id", name="pk_site_certificate"),
        sa.UniqueConstraint("fingerprint", name="uq_site_certificate_fingerprint"),
    )
    op.create_index("ix_site_certificate_site", "site_certificate", ["site"])


def _campaigns() -> None:
    op.create_table(
        "campaign",
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Utc(), nullable=False),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_campaign"),
        sa.UniqueConstraint("name", name="uq_campaign_name"),
    )
    op.create_table(
        "campaign_site",
        sa.Column("campaign", DigestText, nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.ForeignKeyConstraint(["campaign"], ["campaign.digest"], name="fk_campaign_site_campaign"),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_campaign_site_site"),
        sa.PrimaryKeyConstraint("campaign", "site", name="pk_campaign_site"),
    )
    op.create_index("ix_campaign_site_site", "campaign_site", ["site"])
    op.create_table(
        "encoder_version",
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("campaign", DigestText, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("parent", DigestText, nullable=True),
        sa.Column("arrays", DigestText, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["campaign"], ["campaign.digest"], name="fk_encoder_version_campaign"),
        sa.ForeignKeyConstraint(["parent"], ["encoder_version.digest"], name="fk_encoder_version_parent"),
        sa.PrimaryKeyConstraint("digest", name="pk_encoder_version"),
        sa.UniqueConstraint("campaign", "number", name="uq_encoder_version_campaign_number"),
    )
    op.create_index("ix_encoder_version_arrays", "encoder_version", ["arrays"])
    op.create_table(
        "server_state",
        sa.Column("version", DigestText, nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.ForeignKeyConstraint(["version"], ["encoder_version.digest"], name="fk_server_state_version"),
        sa.PrimaryKeyConstraint("version", name="pk_server_state"),
    )


def _proposals() -> None:
    op.create_table(
        "round",
        sa.Column("id", Number, nullable=False),
        sa.Column("campaign", DigestText, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("proposal", sa.LargeBinary(), nullable=False),
        sa.Column("proposed_at", Utc(), nullable=False),
        sa.Column("state", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["campaign"], ["campaign.digest"], name="fk_round_campaign"),
        sa.PrimaryKeyConstraint("id", name="pk_round"),
        sa.UniqueConstraint("campaign", "number", name="uq_round_campaign_number"),
    )
    op.create_index("ix_round_state", "round", ["state"])


def _answers() -> None:
    op.create_table(
        "clearance",
        sa.Column("id", Number, nullable=False),
        sa.Column("round_id", Number, nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("snapshot", DigestText, nullable=False),
        sa.Column("expires_at", Utc(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name="fk_clearance_round_id"),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_clearance_site"),
        sa.PrimaryKeyConstraint("id", name="pk_clearance"),
        sa.UniqueConstraint("digest", name="uq_clearance_digest"),
        sa.UniqueConstraint("id", "round_id", "site", name="uq_clearance_id_round_id_site"),
        sa.UniqueConstraint("round_id", "site", name="uq_clearance_round_id_site"),
    )
    op.create_index("ix_clearance_site_snapshot", "clearance", ["site", "snapshot"])
    op.create_table(
        "reservation",
        sa.Column("id", Number, nullable=False),
        sa.Column("round_id", Number, nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("noise_multiplier", sa.Float(53), nullable=False),
        sa.Column("sampling_rate", sa.Float(53), nullable=False),
        sa.Column("steps", Number, nullable=False),
        sa.Column("expires_at", Utc(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name="fk_reservation_round_id"),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_reservation_site"),
        sa.PrimaryKeyConstraint("id", name="pk_reservation"),
        sa.UniqueConstraint("digest", name="uq_reservation_digest"),
        sa.UniqueConstraint("id", "round_id", "site", name="uq_reservation_id_round_id_site"),
        sa.UniqueConstraint("round_id", "site", name="uq_reservation_round_id_site"),
    )
    op.create_index("ix_reservation_site_dataset", "reservation", ["site", "dataset"])
    op.create_table(
        "refusal",
        sa.Column("id", Number, nullable=False),
        sa.Column("round_id", Number, nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name="fk_refusal_round_id"),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_refusal_site"),
        sa.PrimaryKeyConstraint("id", name="pk_refusal"),
        sa.UniqueConstraint("digest", name="uq_refusal_digest"),
        sa.UniqueConstraint("round_id", "site", name="uq_refusal_round_id_site"),
    )


def _rounds() -> None:
    op.create_table(
        "round_plan",
        sa.Column("round_id", Number, nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("parent", DigestText, nullable=False),
        sa.Column("arrays", DigestText, nullable=False),
        sa.Column("arrays_bytes", Number, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("opened_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["parent"], ["encoder_version.digest"], name="fk_round_plan_parent"),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name="fk_round_plan_round_id"),
        sa.PrimaryKeyConstraint("round_id", name="pk_round_plan"),
        sa.UniqueConstraint("digest", name="uq_round_plan_digest"),
    )
    op.create_table(
        "participant",
        sa.Column("round_id", Number, nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("clearance_id", Number, nullable=False),
        sa.Column("reservation_id", Number, nullable=False),
        sa.ForeignKeyConstraint(
            ["clearance_id", "round_id", "site"],
            ["clearance.id", "clearance.round_id", "clearance.site"],
            name="fk_participant_clearance_id_round_id_site",
        ),
        sa.ForeignKeyConstraint(
            ["reservation_id", "round_id", "site"],
            ["reservation.id", "reservation.round_id", "reservation.site"],
            name="fk_participant_reservation_id_round_id_site",
        ),
        sa.ForeignKeyConstraint(["round_id"], ["round_plan.round_id"], name="fk_participant_round_id"),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_participant_site"),
        sa.PrimaryKeyConstraint("round_id", "site", name="pk_participant"),
    )
    op.create_table(
        "contribution",
        sa.Column("id", Number, nullable=False),
        sa.Column("round_id", Number, nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("code", sa.String(64), nullable=True),
        sa.Column("digest", DigestText, nullable=True),
        sa.Column("update_digest", DigestText, nullable=True),
        sa.Column("envelope", sa.LargeBinary(), nullable=True),
        sa.Column("received_at", Utc(), nullable=False),
        sa.CheckConstraint(
            "NOT accepted OR (digest IS NOT NULL AND update_digest IS NOT NULL AND envelope IS NOT NULL)",
            name=op.f("ck_contribution_accepted_is_whole"),
        ),
        sa.CheckConstraint("accepted = (code IS NULL)", name=op.f("ck_contribution_code_tells_why")),
        sa.ForeignKeyConstraint(
            ["round_id", "site"], ["participant.round_id", "participant.site"], name="fk_contribution_round_id_site"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_contribution"),
    )
    op.create_index("ix_contribution_digest", "contribution", ["digest"])
    op.create_index("ix_contribution_update_digest", "contribution", ["update_digest"])
    op.create_index(
        "uq_contribution_accepted",
        "contribution",
        ["round_id", "site"],
        unique=True,
        sqlite_where=sa.text("accepted"),
        postgresql_where=sa.text("accepted"),
    )
    op.create_table(
        "round_outcome",
        sa.Column("round_id", Number, nullable=False),
        sa.Column("version", DigestText, nullable=True),
        sa.Column("missing", Json, nullable=False),
        sa.Column("bytes_moved", Number, nullable=False),
        sa.Column("closed_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["round.id"], name="fk_round_outcome_round_id"),
        sa.ForeignKeyConstraint(["version"], ["encoder_version.digest"], name="fk_round_outcome_version"),
        sa.PrimaryKeyConstraint("round_id", name="pk_round_outcome"),
        sa.UniqueConstraint("version", name="uq_round_outcome_version"),
    )
    op.create_table(
        "receipt",
        sa.Column("id", Number, nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("contribution_id", Number, nullable=False),
        sa.Column("version", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("issued_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["contribution_id"], ["contribution.id"], name="fk_receipt_contribution_id"),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_receipt_site"),
        sa.ForeignKeyConstraint(["version"], ["encoder_version.digest"], name="fk_receipt_version"),
        sa.PrimaryKeyConstraint("id", name="pk_receipt"),
        sa.UniqueConstraint("contribution_id", name="uq_receipt_contribution_id"),
    )
    op.create_index("ix_receipt_site", "receipt", ["site"])
    op.create_index("ix_receipt_version", "receipt", ["version"])


def _lineage() -> None:
    op.create_table(
        "lineage_node",
        sa.Column("id", Number, nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("ref", sa.String(160), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_lineage_node"),
        sa.UniqueConstraint("kind", "ref", name="uq_lineage_node_kind_ref"),
    )
    op.create_table(
        "lineage_edge",
        sa.Column("src", Number, nullable=False),
        sa.Column("dst", Number, nullable=False),
        sa.Column("relation", sa.String(64), nullable=False),
        sa.CheckConstraint(
            "relation IN ('used', 'wasGeneratedBy', 'wasDerivedFrom')", name=op.f("ck_lineage_edge_prov")
        ),
        sa.CheckConstraint("src > dst", name=op.f("ck_lineage_edge_no_circle")),
        sa.ForeignKeyConstraint(["dst"], ["lineage_node.id"], name="fk_lineage_edge_dst"),
        sa.ForeignKeyConstraint(["src"], ["lineage_node.id"], name="fk_lineage_edge_src"),
        sa.PrimaryKeyConstraint("src", "dst", "relation", name="pk_lineage_edge"),
    )
    op.create_index("ix_lineage_edge_dst", "lineage_edge", ["dst"])


def _withdrawals() -> None:
    op.create_table(
        "withdrawal_notice",
        sa.Column("id", Number, nullable=False),
        sa.Column("site", sa.String(63), nullable=False),
        sa.Column("notice", sa.String(200), nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_withdrawal_notice_site"),
        sa.PrimaryKeyConstraint("id", name="pk_withdrawal_notice"),
        sa.UniqueConstraint("site", "notice", name="uq_withdrawal_notice_site_notice"),
    )
    op.create_table(
        "withdrawal_snapshot",
        sa.Column("notice_id", Number, nullable=False),
        sa.Column("ref", sa.String(160), nullable=False),
        sa.ForeignKeyConstraint(["notice_id"], ["withdrawal_notice.id"], name="fk_withdrawal_snapshot_notice_id"),
        sa.PrimaryKeyConstraint("notice_id", "ref", name="pk_withdrawal_snapshot"),
    )
    op.create_index("ix_withdrawal_snapshot_ref", "withdrawal_snapshot", ["ref"])
    op.create_table(
        "withdrawal_impact",
        sa.Column("notice_id", Number, nullable=False),
        sa.Column("version", DigestText, nullable=False),
        sa.Column("effect", sa.String(64), nullable=False),
        sa.Column("bound", Json, nullable=False),
        sa.Column("recorded_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["notice_id"], ["withdrawal_notice.id"], name="fk_withdrawal_impact_notice_id"),
        sa.ForeignKeyConstraint(["version"], ["encoder_version.digest"], name="fk_withdrawal_impact_version"),
        sa.PrimaryKeyConstraint("notice_id", "version", name="pk_withdrawal_impact"),
    )
    op.create_table(
        "clearance_revocation",
        sa.Column("clearance_id", Number, nullable=False),
        sa.Column("notice_id", Number, nullable=False),
        sa.Column("revoked_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["clearance_id"], ["clearance.id"], name="fk_clearance_revocation_clearance_id"),
        sa.ForeignKeyConstraint(["notice_id"], ["withdrawal_notice.id"], name="fk_clearance_revocation_notice_id"),
        sa.PrimaryKeyConstraint("clearance_id", name="pk_clearance_revocation"),
    )
