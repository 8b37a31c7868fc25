"""The tables of retention in one side's schema. Rows are added and never changed, but for the columns in `CHANGING`."""

from dataclasses import dataclass

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from bract.database import DigestText, Json, Number, Utc, allow_changes, refuse_changes

PERSON = String(100)
KIND = String(16)
OBJECT = String(200)

CHANGING: dict[str, tuple[str, ...]] = {
    "retention_binding": ("ended_at", "ended_by"),
    "retention_object": ("scopes", "location", "made_at", "used_at", "busy", "gone_at"),
    "disposition_task": ("state", "attempts", "claimed_at", "code"),
    "disposition_object": ("state",),
}
"""State columns; every other one of these tables is kept by triggers."""

KEPT = (
    "retention_policy",
    "retention_event",
    "legal_hold",
    "legal_hold_lift",
    "retention_decision",
    "disposal_receipt",
)
"""Tables whose rows never change."""


@dataclass(frozen=True)
class RetentionTables:
    """The tables, by what they hold."""

    policy: Table
    binding: Table
    event: Table
    hold: Table
    lift: Table
    decision: Table
    object: Table
    task: Table
    member: Table
    receipt: Table

    @property
    def all(self) -> tuple[Table, ...]:
        """In the order in which they may be made."""
        rules = (self.policy, self.binding, self.event, self.hold, self.lift, self.decision)
        return (*rules, self.object, self.task, self.member, self.receipt)


def tables(metadata: MetaData) -> RetentionTables:
    """Declare the tables in a schema."""
    return RetentionTables(
        policy=_policy(metadata),
        binding=_binding(metadata),
        event=_event(metadata),
        hold=_hold(metadata),
        lift=_lift(metadata),
        decision=_decision(metadata),
        object=_object(metadata),
        task=_task(metadata),
        member=_member(metadata),
        receipt=_receipt(metadata),
    )


def guards(dialect: str) -> tuple[str, ...]:
    """DDL of the triggers that keep the tables."""
    found = [ddl for table in KEPT for ddl in refuse_changes(dialect, table)]
    fixed = tables(MetaData())
    for table in fixed.all:
        if table.name in CHANGING:
            columns = [one.name for one in table.columns if one.name not in CHANGING[table.name]]
            found += refuse_changes(dialect, table.name, columns)
    return tuple(found)


def unguards(dialect: str) -> tuple[str, ...]:
    """DDL that takes `guards` back."""
    return tuple(ddl for table in (*KEPT, *CHANGING) for ddl in allow_changes(dialect, table))


def _policy(metadata: MetaData) -> Table:
    """Versions of policies; `body` is the canonical JSON whose digest names one."""
    return Table(
        "retention_policy",
        metadata,
        Column("digest", DigestText, primary_key=True),
        Column("name", String(63), nullable=False),
        Column("version", Number, nullable=False),
        Column("applies_to", KIND, nullable=False),
        Column("legal_basis", Text, nullable=False),
        Column("trigger", String(24), nullable=False),
        Column("floor", String(32)),
        Column("ceiling", String(32)),
        Column("action", KIND, nullable=False),
        Column("approved_by", PERSON, nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("added_at", Utc(), nullable=False),
        UniqueConstraint("name", "version"),
    )


def _binding(metadata: MetaData) -> Table:
    """To what a policy applies, whichever its newest version is: a scope, one object, or (empty) all of its kind."""
    return Table(
        "retention_binding",
        metadata,
        Column("id", Number, primary_key=True),
        Column("policy", String(63), nullable=False, index=True),
        Column("scope", OBJECT, nullable=False),
        Column("bound_by", PERSON, nullable=False),
        Column("bound_at", Utc(), nullable=False),
        Column("ended_by", PERSON),
        Column("ended_at", Utc()),
    )


def _event(metadata: MetaData) -> Table:
    """Triggers that no table of ours knows by itself: a study's end, a placement on the market."""
    return Table(
        "retention_event",
        metadata,
        Column("id", Number, primary_key=True),
        Column("trigger", String(24), nullable=False),
        Column("scope", OBJECT, nullable=False, index=True),
        Column("came_at", Utc(), nullable=False),
        Column("told_by", PERSON, nullable=False),
        Column("told_at", Utc(), nullable=False),
    )


def _hold(metadata: MetaData) -> Table:
    return Table(
        "legal_hold",
        metadata,
        Column("name", String(63), primary_key=True),
        Column("matter", Text, nullable=False),
        Column("selector", Json, nullable=False),
        Column("placed_by", PERSON, nullable=False),
        Column("approved_by", PERSON, nullable=False),
        Column("from_at", Utc(), nullable=False),
        Column("to_at", Utc()),
        Column("placed_at", Utc(), nullable=False),
        CheckConstraint("placed_by <> approved_by", name="two_persons"),
    )


def _lift(metadata: MetaData) -> Table:
    return Table(
        "legal_hold_lift",
        metadata,
        Column("hold", String(63), ForeignKey("legal_hold.name"), primary_key=True),
        Column("lifted_by", PERSON, nullable=False),
        Column("approved_by", PERSON, nullable=False),
        Column("why", Text, nullable=False),
        Column("lifted_at", Utc(), nullable=False),
        CheckConstraint("lifted_by <> approved_by", name="two_persons"),
    )


def _decision(metadata: MetaData) -> Table:
    """What a person decided about terms; the newest counts."""
    return Table(
        "retention_decision",
        metadata,
        Column("id", Number, primary_key=True),
        Column("terms", DigestText, nullable=False, index=True),
        Column("about", Json, nullable=False),
        Column("way", KIND, nullable=False),
        Column("decided_by", PERSON, nullable=False),
        Column("why", Text, nullable=False),
        Column("decided_at", Utc(), nullable=False),
        CheckConstraint("way IN ('keep', 'delete')", name="way"),
    )


def _object(metadata: MetaData) -> Table:
    """Files as the last stock-taking found them. A site's records are not here: they are rows of their own."""
    return Table(
        "retention_object",
        metadata,
        Column("kind", KIND, primary_key=True),
        Column("object", OBJECT, primary_key=True),
        Column("scopes", Json, nullable=False),
        Column("location", Text),
        Column("made_at", Utc(), nullable=False),
        Column("used_at", Utc(), nullable=False),
        Column("busy", String(64)),
        Column("gone_at", Utc()),
    )


def _task(metadata: MetaData) -> Table:
    """One disposal of objects of one kind and scope; `code` says why the last attempt failed.

    `sources` says whether the source's own files go too, which a steward must ask for.
    """
    return Table(
        "disposition_task",
        metadata,
        Column("id", Number, primary_key=True),
        Column("kind", KIND, nullable=False),
        Column("scope", OBJECT, nullable=False),
        Column("due_at", Utc(), nullable=False),
        Column("policies", Json, nullable=False),
        Column("sources", Boolean, nullable=False),
        Column("ordered_by", PERSON, nullable=False),
        Column("made_at", Utc(), nullable=False),
        Column("state", KIND, nullable=False),
        Column("attempts", Number, nullable=False),
        Column("claimed_at", Utc(), nullable=False),
        Column("code", String(64)),
        CheckConstraint("state IN ('executing', 'failed', 'done')", name="state"),
        Index("ix_disposition_task_state", "state"),
    )


def _member(metadata: MetaData) -> Table:
    """An object of a task: pending, gone, or released because something came to stand in the way."""
    return Table(
        "disposition_object",
        metadata,
        Column("task", Number, ForeignKey("disposition_task.id"), primary_key=True, autoincrement=False),
        Column("object", OBJECT, primary_key=True),
        Column("state", KIND, nullable=False),
        CheckConstraint("state IN ('pending', 'gone', 'released')", name="state"),
        Index(
            "ix_disposition_object_pending",
            "object",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
    )


def _receipt(metadata: MetaData) -> Table:
    return Table(
        "disposal_receipt",
        metadata,
        Column("digest", DigestText, primary_key=True),
        Column("task", Number, ForeignKey("disposition_task.id"), nullable=False, index=True),
        Column("kind", KIND, nullable=False),
        Column("scope", OBJECT, nullable=False),
        Column("method", String(24), nullable=False),
        Column("salt", LargeBinary, nullable=False),
        Column("envelope", LargeBinary, nullable=False),
        Column("at", Utc(), nullable=False),
    )
