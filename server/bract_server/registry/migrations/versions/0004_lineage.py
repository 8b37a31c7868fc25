"""Models beyond encoders, evaluations, approvals, releases, decisions about withdrawals."""

import sqlalchemy as sa
from alembic import op

from bract.database import DigestText, Json, Number, Utc, allow_changes, refuse_changes

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = (
    "artefact",
    "dataset_terms",
    "model_card",
    "person",
    "person_role",
    "person_end",
    "signed_override",
    "withdrawal_decision",
    "withdrawal_decided",
    "release_policy",
    "model_release",
    "approval",
    "release_publication",
    "release_withdrawal",
)
"""In the order in which they may be made."""

REMADE = ("lineage_edge", "withdrawal_impact")
"""Tables of the first schema that get other columns; no other table points to them before."""


def upgrade() -> None:
    op.create_index("ix_lineage_node_ref", "lineage_node", ["ref"])
    _set_aside()
    _edges(late=True)
    _impacts()
    op.execute(
        "INSERT INTO lineage_edge (src, dst, relation, late) SELECT src, dst, relation, false FROM lineage_edge_before"
    )
    # What was recorded before has no batch: each had a log entry of its own.
    op.execute(
        "INSERT INTO withdrawal_impact (notice_id, node_id, batch, effect, bound, path_length, recorded_at) "
        "SELECT b.notice_id, n.id, 0, b.effect, b.bound, 0, b.recorded_at FROM withdrawal_impact_before b "
        "JOIN lineage_node n ON n.kind = 'version' AND n.ref = b.version"
    )
    _clear_away()
    _first_weights()
    _registered()
    _persons()
    _decisions()
    _releases()
    for table in (*TABLES, *REMADE):
        _run(refuse_changes(op.get_bind().dialect.name, table))


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    for table in reversed(TABLES):
        _run(allow_changes(dialect, table))
        op.drop_table(table)
    _set_aside()
    _edges(late=False)
    _impacts_before()
    op.execute(
        "INSERT INTO lineage_edge (src, dst, relation) SELECT src, dst, relation FROM lineage_edge_before WHERE NOT late"
    )
    op.execute(
        "INSERT INTO withdrawal_impact (notice_id, version, effect, bound, recorded_at) "
        "SELECT b.notice_id, n.ref, b.effect, b.bound, b.recorded_at FROM withdrawal_impact_before b "
        "JOIN lineage_node n ON n.id = b.node_id AND n.kind = 'version' WHERE b.batch = (SELECT max(o.batch) FROM "
        "withdrawal_impact_before o WHERE o.notice_id = b.notice_id AND o.node_id = b.node_id)"
    )
    _clear_away()
    op.drop_index("ix_lineage_node_ref", "lineage_node")
    for table in REMADE:
        _run(refuse_changes(dialect, table))


def _run(statements: tuple[str, ...]) -> None:
    for statement in statements:
        op.execute(statement)


def _set_aside() -> None:
    for table in REMADE:
        _run(allow_changes(op.get_bind().dialect.name, table))
        op.execute(f"CREATE TABLE {table}_before AS SELECT * FROM {table}")  # noqa: S608 - our own names
        op.drop_table(table)


def _clear_away() -> None:
    for table in REMADE:
        op.drop_table(f"{table}_before")


def _edges(*, late: bool) -> None:
    more = [
        sa.Column("role", sa.String(64), nullable=True),
        sa.Column("late", sa.Boolean(), server_default=sa.false(), nullable=False),
    ]
    op.create_table(
        "lineage_edge",
        sa.Column("src", Number, nullable=False),
        sa.Column("dst", Number, nullable=False),
        sa.Column("relation", sa.String(64), nullable=False),
        *(more if late else []),
        sa.CheckConstraint(
            "relation IN ('used', 'wasGeneratedBy', 'wasDerivedFrom')", name=op.f("ck_lineage_edge_prov")
        ),
        sa.CheckConstraint(
            "src > dst OR (late AND src <> dst)" if late else "src > dst", name=op.f("ck_lineage_edge_no_circle")
        ),
        sa.ForeignKeyConstraint(["dst"], ["lineage_node.id"], name="fk_lineage_edge_dst"),
        sa.ForeignKeyConstraint(["src"], ["lineage_node.id"], name="fk_lineage_edge_src"),
        sa.PrimaryKeyConstraint("src", "dst", "relation", name="pk_lineage_edge"),
    )
    op.create_index("ix_lineage_edge_dst", "lineage_edge", ["dst"])


def _impacts() -> None:
    op.create_table(
        "withdrawal_impact",
        sa.Column("notice_id", Number, nullable=False),
        sa.Column("node_id", Number, nullable=False),
        sa.Column("batch", Number, nullable=False),
        sa.Column("effect", sa.String(64), nullable=False),
        sa.Column("bound", Json, nullable=False),
        sa.Column("path_length", Number, nullable=False),
        sa.Column("clean", Number, nullable=True),
        sa.Column("due_at", Utc(), nullable=True),
        sa.Column("recorded_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["clean"], ["lineage_node.id"], name="fk_withdrawal_impact_clean"),
        sa.ForeignKeyConstraint(["node_id"], ["lineage_node.id"], name="fk_withdrawal_impact_node_id"),
        sa.ForeignKeyConstraint(["notice_id"], ["withdrawal_notice.id"], name="fk_withdrawal_impact_notice_id"),
        sa.PrimaryKeyConstraint("notice_id", "node_id", "batch", name="pk_withdrawal_impact"),
    )
    op.create_index("ix_withdrawal_impact_node_id", "withdrawal_impact", ["node_id"])


def _impacts_before() -> None:
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


def _first_weights() -> None:
    """The public weights with which earlier campaigns began become nodes, as those of later ones are from the start."""
    op.execute(
        "INSERT INTO lineage_node (id, kind, ref) "
        "SELECT (SELECT max(id) FROM lineage_node) + row_number() OVER (ORDER BY arrays), 'base-model', arrays "
        "FROM (SELECT DISTINCT arrays FROM encoder_version WHERE parent IS NULL) first_ones "
        # the way down keeps nodes
        "WHERE arrays NOT IN (SELECT ref FROM lineage_node WHERE kind = 'base-model')"
    )
    op.execute(
        "INSERT INTO lineage_edge (src, dst, relation, role, late) "
        "SELECT v.id, b.id, 'wasDerivedFrom', 'initialisedFrom', true FROM encoder_version e "
        "JOIN lineage_node v ON v.kind = 'version' AND v.ref = e.digest "
        "JOIN lineage_node b ON b.kind = 'base-model' AND b.ref = e.arrays WHERE e.parent IS NULL"
    )


def _registered() -> None:
    op.create_table(
        "artefact",
        sa.Column("node_id", Number, nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("content", DigestText, nullable=False),
        sa.Column("purpose", sa.String(64), nullable=True),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("registered_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["lineage_node.id"], name="fk_artefact_node_id"),
        sa.PrimaryKeyConstraint("node_id", name="pk_artefact"),
        sa.UniqueConstraint("digest", name="uq_artefact_digest"),
        sa.UniqueConstraint("kind", "name", name="uq_artefact_kind_name"),
    )
    op.create_index("ix_artefact_content", "artefact", ["content"])
    op.create_table(
        "dataset_terms",
        sa.Column("id", Number, nullable=False),
        sa.Column("dataset", sa.String(160), nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("signer", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dataset_terms"),
        sa.UniqueConstraint("digest", name="uq_dataset_terms_digest"),
    )
    op.create_index("ix_dataset_terms_dataset", "dataset_terms", ["dataset"])
    op.create_table(
        "model_card",
        sa.Column("id", Number, nullable=False),
        sa.Column("node_id", Number, nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("registered_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["node_id"], ["lineage_node.id"], name="fk_model_card_node_id"),
        sa.PrimaryKeyConstraint("id", name="pk_model_card"),
        sa.UniqueConstraint("digest", name="uq_model_card_digest"),
    )
    op.create_index("ix_model_card_node_id", "model_card", ["node_id"])


def _persons() -> None:
    op.create_table(
        "person",
        sa.Column("fingerprint", DigestText, nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("registered_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name="pk_person"),
        sa.UniqueConstraint("name", name="uq_person_name"),
    )
    op.create_table(
        "person_role",
        sa.Column("person", DigestText, nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["person.fingerprint"], name="fk_person_role_person"),
        sa.PrimaryKeyConstraint("person", "role", name="pk_person_role"),
    )
    op.create_table(
        "person_end",
        sa.Column("person", DigestText, nullable=False),
        sa.Column("ended_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["person.fingerprint"], name="fk_person_end_person"),
        sa.PrimaryKeyConstraint("person", name="pk_person_end"),
    )
    op.create_table(
        "signed_override",
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("about", DigestText, nullable=False),
        sa.Column("criterion", sa.String(64), nullable=False),
        sa.Column("person", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["person.fingerprint"], name="fk_signed_override_person"),
        sa.PrimaryKeyConstraint("digest", name="pk_signed_override"),
    )
    op.create_index("ix_signed_override_about", "signed_override", ["about"])


def _decisions() -> None:
    op.create_table(
        "withdrawal_decision",
        sa.Column("id", Number, nullable=False),
        sa.Column("notice_id", Number, nullable=False),
        sa.Column("person", DigestText, nullable=False),
        sa.Column("remedy", sa.String(64), nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["notice_id"], ["withdrawal_notice.id"], name="fk_withdrawal_decision_notice_id"),
        sa.ForeignKeyConstraint(["person"], ["person.fingerprint"], name="fk_withdrawal_decision_person"),
        sa.PrimaryKeyConstraint("id", name="pk_withdrawal_decision"),
        sa.UniqueConstraint("digest", name="uq_withdrawal_decision_digest"),
        sa.UniqueConstraint("id", "notice_id", name="uq_withdrawal_decision_id_notice_id"),
    )
    op.create_table(
        "withdrawal_decided",
        sa.Column("decision_id", Number, nullable=False),
        sa.Column("notice_id", Number, nullable=False),
        sa.Column("node_id", Number, nullable=False),
        sa.Column("batch", Number, nullable=False),
        sa.ForeignKeyConstraint(
            ["decision_id", "notice_id"],
            ["withdrawal_decision.id", "withdrawal_decision.notice_id"],
            name="fk_withdrawal_decided_decision_id_notice_id",
        ),
        sa.ForeignKeyConstraint(
            ["notice_id", "node_id", "batch"],
            ["withdrawal_impact.notice_id", "withdrawal_impact.node_id", "withdrawal_impact.batch"],
            name="fk_withdrawal_decided_notice_id_node_id_batch",
        ),
        sa.PrimaryKeyConstraint("decision_id", "notice_id", "node_id", name="pk_withdrawal_decided"),
    )
    op.create_index("ix_withdrawal_decided_notice_id_node_id", "withdrawal_decided", ["notice_id", "node_id"])


def _releases() -> None:
    op.create_table(
        "release_policy",
        sa.Column("id", Number, nullable=False),
        sa.Column("channel", sa.String(64), nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("set_at", Utc(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_release_policy"),
    )
    op.create_table(
        "model_release",
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("node_id", Number, nullable=False),
        sa.Column("target_id", Number, nullable=False),
        sa.Column("author", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("proposed_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["author"], ["person.fingerprint"], name="fk_model_release_author"),
        sa.ForeignKeyConstraint(["node_id"], ["lineage_node.id"], name="fk_model_release_node_id"),
        sa.ForeignKeyConstraint(["target_id"], ["lineage_node.id"], name="fk_model_release_target_id"),
        sa.PrimaryKeyConstraint("digest", name="pk_model_release"),
        sa.UniqueConstraint("name", name="uq_model_release_name"),
        sa.UniqueConstraint("node_id", name="uq_model_release_node_id"),
        sa.UniqueConstraint("digest", "author", name="uq_model_release_digest_author"),
    )
    op.create_table(
        "approval",
        sa.Column("release", DigestText, nullable=False),
        sa.Column("person", DigestText, nullable=False),
        sa.Column("author", DigestText, nullable=False),
        sa.Column("decision", sa.String(64), nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", Utc(), nullable=False),
        sa.CheckConstraint("decision IN ('approve', 'reject')", name=op.f("ck_approval_decision")),
        sa.CheckConstraint("person <> author", name=op.f("ck_approval_not_the_author")),
        sa.ForeignKeyConstraint(["person"], ["person.fingerprint"], name="fk_approval_person"),
        sa.ForeignKeyConstraint(
            ["release", "author"], ["model_release.digest", "model_release.author"], name="fk_approval_release_author"
        ),
        sa.PrimaryKeyConstraint("release", "person", name="pk_approval"),
        sa.UniqueConstraint("digest", name="uq_approval_digest"),
    )
    op.create_table(
        "release_publication",
        sa.Column("release", DigestText, nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("report", sa.LargeBinary(), nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("published_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["release"], ["model_release.digest"], name="fk_release_publication_release"),
        sa.PrimaryKeyConstraint("release", name="pk_release_publication"),
        sa.UniqueConstraint("digest", name="uq_release_publication_digest"),
    )
    op.create_table(
        "release_withdrawal",
        sa.Column("release", DigestText, nullable=False),
        sa.Column("person", DigestText, nullable=False),
        sa.Column("digest", DigestText, nullable=False),
        sa.Column("envelope", sa.LargeBinary(), nullable=False),
        sa.Column("withdrawn_at", Utc(), nullable=False),
        sa.ForeignKeyConstraint(["person"], ["person.fingerprint"], name="fk_release_withdrawal_person"),
        sa.ForeignKeyConstraint(["release"], ["model_release.digest"], name="fk_release_withdrawal_release"),
        sa.PrimaryKeyConstraint("release", name="pk_release_withdrawal"),
        sa.UniqueConstraint("digest", name="uq_release_withdrawal_digest"),
    )
