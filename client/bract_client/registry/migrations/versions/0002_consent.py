"""Purposes with their closure, conditions, what shows a decision; consent that is resolved ahead."""

import sqlalchemy as sa
from alembic import op

from bract.database import DigestText, Json, Number, Utc, allow_changes, refuse_changes
from bract.vocabulary.purposes import TERMS, closure

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

CODE, NAME = sa.String(32), sa.String(63)

_COLUMNS = (
    ("condition_no", Number),
    ("supersedes_seq", Number),
    ("legal_basis", sa.String(64)),
    ("evidence_digest", DigestText),
    ("notice_ref", sa.String(128)),
    ("capacity", sa.String(16)),
    ("actor", sa.String(64)),
)

# What corrects another decision corrects an earlier one of the same subject.
_SAME_SUBJECT = {
    "sqlite": (
        "CREATE TRIGGER consent_event_supersedes BEFORE INSERT ON consent_event WHEN NEW.supersedes_seq IS NOT NULL AND "
        "NOT EXISTS (SELECT 1 FROM consent_event WHERE seq = NEW.supersedes_seq AND subject_no = NEW.subject_no) "
        "BEGIN SELECT RAISE(ABORT, 'consent_event supersedes its own subject only'); END",
    ),
    "postgresql": (
        "CREATE FUNCTION consent_event_supersedes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NOT EXISTS (SELECT 1 FROM consent_event WHERE seq = NEW.supersedes_seq AND subject_no = NEW.subject_no) THEN "
        "RAISE EXCEPTION 'consent_event supersedes its own subject only' "
        "USING ERRCODE = 'integrity_constraint_violation'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER consent_event_supersedes BEFORE INSERT ON consent_event FOR EACH ROW "
        "WHEN (NEW.supersedes_seq IS NOT NULL) EXECUTE FUNCTION consent_event_supersedes()",
    ),
}

# Says what 0001's says. PostgreSQL planned its EXISTS as a scan of all events for every new one; this is one look-up, and
# is left in place on the way down.
_ORDER = {
    "sqlite": (),
    "postgresql": (
        "CREATE OR REPLACE FUNCTION consent_event_order() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE newest record; "
        "BEGIN SELECT seq, recorded_at INTO newest FROM consent_event ORDER BY seq DESC LIMIT 1; "
        "IF newest.seq >= NEW.seq OR NEW.recorded_at < newest.recorded_at THEN "
        "RAISE EXCEPTION 'consent_event goes forward only' USING ERRCODE = 'integrity_constraint_violation'; "
        "END IF; RETURN NEW; END $$",
    ),
}


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    _vocabulary()
    op.create_table(
        "consent_condition",
        sa.Column("no", Number, autoincrement=False, nullable=False),
        sa.Column("modifiers", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("no", name=op.f("pk_consent_condition")),
        sa.UniqueConstraint("modifiers", name=op.f("uq_consent_condition_modifiers")),
    )
    for name, kind in _COLUMNS:
        op.add_column("consent_event", sa.Column(name, kind, nullable=True))
    _partial("ix_consent_event_supersedes_seq", ["supersedes_seq"], "supersedes_seq IS NOT NULL")
    _partial("ix_consent_event_expire", ["subject_no", "valid_from"], "decision = 'expire'")
    op.create_index("ix_consent_event_valid_from", "consent_event", ["valid_from"])
    op.add_column("consent_current", sa.Column("condition_no", Number, nullable=True))
    op.add_column("snapshot", sa.Column("use", Json, nullable=True))
    _effective()
    for ddl in (*refuse_changes(dialect, "consent_condition"), *_SAME_SUBJECT[dialect], *_ORDER[dialect]):
        op.execute(ddl)


def downgrade() -> None:
    dialect = op.get_bind().dialect.name
    if dialect == "postgresql":
        op.execute("DROP TRIGGER consent_event_supersedes ON consent_event")
        op.execute("DROP FUNCTION consent_event_supersedes()")
    else:
        op.execute("DROP TRIGGER consent_event_supersedes")
    for ddl in allow_changes(dialect, "consent_condition"):
        op.execute(ddl)
    op.drop_table("consent_effective")
    op.drop_column("snapshot", "use")
    op.drop_column("consent_current", "condition_no")
    op.drop_index("ix_consent_event_valid_from", "consent_event")
    op.drop_index("ix_consent_event_expire", "consent_event")
    op.drop_index("ix_consent_event_supersedes_seq", "consent_event")
    for name, _ in reversed(_COLUMNS):
        op.drop_column("consent_event", name)
    op.drop_table("consent_condition")
    op.drop_table("purpose_closure")
    op.drop_table("purpose")


def _partial(name: str, columns: list[str], where: str, table: str = "consent_event") -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def _vocabulary() -> None:
    purpose = op.create_table(
        "purpose",
        sa.Column("code", CODE, nullable=False),
        sa.Column("iri", sa.String(128), nullable=False),
        sa.Column("label", sa.String(128), nullable=False),
        sa.Column("scheme", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("code", name=op.f("pk_purpose")),
        sa.UniqueConstraint("iri", name=op.f("uq_purpose_iri")),
    )
    covers = op.create_table(
        "purpose_closure",
        sa.Column("ancestor", CODE, nullable=False),
        sa.Column("descendant", CODE, nullable=False),
        sa.Column("depth", Number, nullable=False),
        sa.ForeignKeyConstraint(["ancestor"], ["purpose.code"], name=op.f("fk_purpose_closure_ancestor")),
        sa.ForeignKeyConstraint(["descendant"], ["purpose.code"], name=op.f("fk_purpose_closure_descendant")),
        sa.PrimaryKeyConstraint("ancestor", "descendant", name=op.f("pk_purpose_closure")),
    )
    rows = [{"code": one.code, "iri": one.iri, "label": one.label, "scheme": one.scheme.value} for one in TERMS]
    op.bulk_insert(purpose, rows)
    op.bulk_insert(covers, [dict(zip(("ancestor", "descendant", "depth"), row, strict=True)) for row in closure()])


def _effective() -> None:
    """The table, and what the decisions so far amount to: each about one use, none under a condition."""
    op.create_table(
        "consent_effective",
        sa.Column("purpose", CODE, nullable=False),
        sa.Column("scope", NAME, nullable=False),
        sa.Column("subject_no", Number, autoincrement=False, nullable=False),
        sa.Column("ok", Number, nullable=False),
        sa.Column("withdrawn", Number, nullable=False),
        sa.Column("until", Utc(), nullable=True),
        sa.Column("since", Utc(), nullable=False),
        sa.Column("deciding_seq", Number, nullable=False),
        sa.PrimaryKeyConstraint("purpose", "scope", "subject_no", name=op.f("pk_consent_effective")),
        sqlite_with_rowid=False,
    )
    _partial("ix_consent_effective_conditional", ["purpose", "scope"], "ok = 2", "consent_effective")
    op.execute(
        "INSERT INTO consent_effective (purpose, scope, subject_no, ok, withdrawn, until, since, deciding_seq) "
        "SELECT purpose, scope, subject_no, 1 - refusal, CASE WHEN decision = 'withdraw' THEN 1 ELSE 0 END, "
        "CASE WHEN refusal = 0 THEN valid_to END, valid_from, seq FROM consent_current"
    )
