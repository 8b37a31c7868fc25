"""What an earlier hub recorded is there after the schema moves on, and after it moves back and on again."""

# ruff: noqa: S608 - all words are this file's own

from sqlalchemy import text

from bract.database import open_engine
from bract.migrations import migrate
from bract_server.registry import MIGRATIONS
from tests.server.registry.world import named

C, V, W, S = named("campaign"), named("version"), named("weights"), f"alder/{named('snapshot')}"
AT = "2026-11-22 12:00:00.000000+00"
BEFORE = (
    f"INSERT INTO campaign VALUES ('{C}', 'heart', '', '{AT}', 'running', '')",
    f"INSERT INTO encoder_version VALUES ('{V}', '{C}', 0, NULL, '{W}', '', '{AT}')",
    f"INSERT INTO lineage_node VALUES (1, 'snapshot', '{S}'), (2, 'version', '{V}')",
    "INSERT INTO lineage_edge VALUES (2, 1, 'used')",
    "INSERT INTO site (name, verify_key, node_fingerprint, node_public_pem, subjects_floor, registered_at) "
    f"VALUES ('alder', 'k', 'f', '', 1000, '{AT}')",
    f"INSERT INTO withdrawal_notice VALUES (1, 'alder', 'n', '{named('n')}', '', '{AT}')",
    f"INSERT INTO withdrawal_impact VALUES (1, '{V}', 'without-dp', '{{\"mechanisms\": []}}', '{AT}')",
)


def test_edges_impacts_and_first_weights_move_along(database_url: str) -> None:
    engine = open_engine(database_url)
    migrate(engine, MIGRATIONS, "0003")
    with engine.begin() as connection:
        for statement in BEFORE:
            connection.execute(text(statement.replace(":", r"\:")))
    migrate(engine, MIGRATIONS, "0004")
    with engine.connect() as connection:
        edges = connection.execute(text("SELECT src, dst, relation, role, late FROM lineage_edge ORDER BY dst")).all()
        assert [tuple(edge) for edge in edges] == [
            (2, 1, "used", None, False),
            (2, 3, "wasDerivedFrom", "initialisedFrom", True),
        ]
        assert connection.scalar(text("SELECT ref FROM lineage_node WHERE kind = 'base-model'")) == W
        impact = connection.execute(text("SELECT node_id, batch, effect FROM withdrawal_impact")).one()
        assert tuple(impact) == (2, 0, "without-dp")
    migrate(engine, MIGRATIONS, "-1")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT version FROM withdrawal_impact")) == V
        assert [tuple(edge) for edge in connection.execute(text("SELECT * FROM lineage_edge"))] == [(2, 1, "used")]
    migrate(engine, MIGRATIONS, "0004")
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM lineage_edge")) == 2
        assert connection.scalar(text("SELECT ref FROM lineage_node WHERE kind = 'base-model'")) == W
    engine.dispose()
