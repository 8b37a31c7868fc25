"""Models beyond encoders, evaluations, approvals, releases, decisions about withdrawals."""

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
