"""Purposes with their closure, legal bases, modifiers; consent that is resolved ahead."""

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
